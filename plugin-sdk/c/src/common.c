#include <errno.h>
#include <math.h>
#include <stdio.h>

#include "internal.h"

/* The bindings want to be linked with a file that holds the type of their world. `wasmill build` adds
 * the type by itself. */
void __component_type_object_force_link_bindings(void);
void __component_type_object_force_link_bindings(void) {}

void *wasmill_must(void *memory) {
  if (memory == NULL) abort();
  return memory;
}

void *wasmill_grow(void *items, size_t *max, size_t count, size_t size) {
  if (count < *max) return items;
  *max = *max == 0 ? 16 : *max * 2;
  return wasmill_must(realloc(items, *max * size));
}

/* Memory of a call: blocks that are freed together. */
typedef struct block {
  struct block *next;
  size_t used, size;
} block;
static block *blocks;

void *wasmill_alloc(size_t size) {
  size = (size + 15) & ~(size_t)15;
  if (blocks == NULL || blocks->size - blocks->used < size) {
    size_t room = size > 65536 ? size : 65536;
    block *fresh = wasmill_must(malloc(sizeof(block) + 16 + room));
    *fresh = (block){blocks, 0, room};
    blocks = fresh;
  }
  uint8_t *start = (uint8_t *)blocks + ((sizeof(block) + 15) & ~(size_t)15);
  void *memory = start + blocks->used;
  blocks->used += size;
  return memory;
}

void wasmill_end_call(void) {
  while (blocks != NULL && blocks->next != NULL) {
    block *next = blocks->next;
    free(blocks);
    blocks = next;
  }
  if (blocks != NULL) blocks->used = 0;
}

wasmill_bytes wasmill_keep(wasmill_bytes bytes) {
  uint8_t *copy = wasmill_alloc(bytes.len);
  if (bytes.len > 0) memcpy(copy, bytes.data, bytes.len);
  return (wasmill_bytes){copy, bytes.len};
}

wasmill_bytes wasmill_vformat(const char *format, va_list words) {
  va_list again;
  va_copy(again, words);
  int len = vsnprintf(NULL, 0, format, words);
  if (len < 0) len = 0;
  char *text = wasmill_alloc((size_t)len + 1);
  vsnprintf(text, (size_t)len + 1, format, again);
  va_end(again);
  return (wasmill_bytes){(uint8_t *)text, (size_t)len};
}

wasmill_bytes wasmill_format(const char *format, ...) {
  va_list words;
  va_start(words, format);
  wasmill_bytes text = wasmill_vformat(format, words);
  va_end(words);
  return text;
}

bindings_string_t wasmill_give(wasmill_bytes bytes) {
  uint8_t *copy = wasmill_must(malloc(bytes.len + 1));
  if (bytes.len > 0) memcpy(copy, bytes.data, bytes.len);
  return (bindings_string_t){copy, bytes.len};
}

void wasmill_column_push(wasmill_column *column, wasmill_bytes row) {
  if (column->len + row.len > column->len_max) {
    column->len_max = (column->len + row.len) * 2;
    column->data = wasmill_must(realloc(column->data, column->len_max));
  }
  if (row.len > 0) memcpy(column->data + column->len, row.data, row.len);
  column->len += row.len;
  column->ends = wasmill_grow(column->ends, &column->rows_max, column->rows, sizeof(uint32_t));
  column->ends[column->rows++] = (uint32_t)column->len;
}

void wasmill_column_truncate(wasmill_column *column, size_t rows) {
  column->rows = rows;
  column->len = rows == 0 ? 0 : column->ends[rows - 1];
}

void wasmill_column_free(wasmill_column *column) {
  free(column->ends);
  free(column->data);
  *column = (wasmill_column){0};
}

wasmill_operator_types_column_t wasmill_column_lend(const wasmill_column *column) {
  return (wasmill_operator_types_column_t){{column->ends, column->rows}, {column->data, column->len}};
}

wasmill_bytes wasmill_row(const wasmill_operator_types_column_t *column, size_t row) {
  if (row >= column->ends.len) return (wasmill_bytes){NULL, 0};
  uint32_t start = row == 0 ? 0 : column->ends.ptr[row - 1];
  return (wasmill_bytes){column->data.ptr + start, column->ends.ptr[row] - start};
}

bool wasmill_is_utf8(wasmill_bytes bytes) {
  const uint8_t *s = bytes.data;
  for (size_t i = 0; i < bytes.len;) {
    uint8_t c = s[i];
    if (c < 0x80) {
      i++;
      continue;
    }
    size_t more = c >= 0xc2 && c <= 0xdf ? 1 : (c & 0xf0) == 0xe0 ? 2 : c >= 0xf0 && c <= 0xf4 ? 3 : 0;
    if (more == 0 || bytes.len - i <= more) return false;
    uint8_t d = s[i + 1];
    if ((c == 0xe0 && d < 0xa0) || (c == 0xed && d > 0x9f) || (c == 0xf0 && d < 0x90) || (c == 0xf4 && d > 0x8f))
      return false;
    for (size_t j = 1; j <= more; j++)
      if ((s[i + j] & 0xc0) != 0x80) return false;
    i += more + 1;
  }
  return true;
}

/* JSON. `at` moves behind what was read; false where it is not what it should be. */
typedef struct {
  const uint8_t *at, *end;
} text_at;

static void spaces(text_at *t) {
  while (t->at < t->end && (*t->at == ' ' || *t->at == '\t' || *t->at == '\n' || *t->at == '\r')) t->at++;
}

static bool string(text_at *t) {
  if (t->at >= t->end || *t->at != '"') return false;
  for (t->at++; t->at < t->end; t->at++) {
    if (*t->at == '\\') {
      if (++t->at >= t->end || strchr("\"\\/bfnrtu", *t->at) == NULL) return false;
    } else if (*t->at == '"') {
      t->at++;
      return true;
    } else if (*t->at < 0x20) {
      return false;
    }
  }
  return false;
}

static bool digits(text_at *t) {
  const uint8_t *start = t->at;
  while (t->at < t->end && *t->at >= '0' && *t->at <= '9') t->at++;
  return t->at > start;
}

static bool number(text_at *t) {
  if (t->at < t->end && *t->at == '-') t->at++;
  if (t->at < t->end && *t->at == '0') t->at++;
  else if (!digits(t)) return false;
  if (t->at < t->end && *t->at == '.') {
    t->at++;
    if (!digits(t)) return false;
  }
  if (t->at < t->end && (*t->at == 'e' || *t->at == 'E')) {
    t->at++;
    if (t->at < t->end && (*t->at == '+' || *t->at == '-')) t->at++;
    if (!digits(t)) return false;
  }
  return true;
}

static bool word(text_at *t, const char *word) {
  size_t len = strlen(word);
  if ((size_t)(t->end - t->at) < len || memcmp(t->at, word, len) != 0) return false;
  t->at += len;
  return true;
}

enum { DEPTH_MAX = 64 };

static bool value(text_at *t, wasmill_json *found, int depth) {
  spaces(t);
  const uint8_t *start = t->at;
  if (t->at >= t->end || depth > DEPTH_MAX) return false;
  bool fits = false;
  wasmill_json_kind kind = WASMILL_JSON_MISSING;
  switch (*t->at) {
    case '"': kind = WASMILL_JSON_STRING, fits = string(t); break;
    case 't': kind = WASMILL_JSON_BOOL, fits = word(t, "true"); break;
    case 'f': kind = WASMILL_JSON_BOOL, fits = word(t, "false"); break;
    case 'n': kind = WASMILL_JSON_NULL, fits = word(t, "null"); break;
    case '{':
    case '[': {
      bool object = *t->at == '{';
      uint8_t close = object ? '}' : ']';
      kind = object ? WASMILL_JSON_OBJECT : WASMILL_JSON_ARRAY;
      t->at++;
      spaces(t);
      if (t->at < t->end && *t->at == close) {
        t->at++;
        fits = true;
        break;
      }
      for (;;) {
        if (object) {
          spaces(t);
          if (!string(t)) return false;
          spaces(t);
          if (t->at >= t->end || *t->at++ != ':') return false;
        }
        if (!value(t, NULL, depth + 1)) return false;
        spaces(t);
        if (t->at >= t->end) return false;
        uint8_t next = *t->at++;
        if (next == close) {
          fits = true;
          break;
        }
        if (next != ',') return false;
      }
      break;
    }
    default: kind = WASMILL_JSON_NUMBER, fits = number(t);
  }
  if (fits && found != NULL) *found = (wasmill_json){kind, {start, (size_t)(t->at - start)}};
  return fits;
}

/* Goes through the fields of an object. */
static bool next_field(text_at *t, bool *first, wasmill_bytes *name, wasmill_json *found) {
  spaces(t);
  if (t->at >= t->end) return false;
  uint8_t expected = *first ? '{' : ',';
  if (*t->at++ != expected) return false;
  *first = false;
  spaces(t);
  const uint8_t *start = t->at;
  if (!string(t)) return false;
  *name = (wasmill_bytes){start + 1, (size_t)(t->at - start) - 2};
  spaces(t);
  return t->at < t->end && *t->at++ == ':' && value(t, found, 0);
}

wasmill_json wasmill_json_field(wasmill_bytes text, const char *wanted) {
  text_at t = {text.data, text.data + text.len};
  bool first = true;
  wasmill_bytes name;
  wasmill_json found, last = {WASMILL_JSON_MISSING, {NULL, 0}};
  while (next_field(&t, &first, &name, &found))
    if (wasmill_equal(name, wasmill_text(wanted))) last = found;
  return last;
}

bool wasmill_json_valid(wasmill_bytes text) {
  text_at t = {text.data, text.data + text.len};
  bool fits = value(&t, NULL, 0);
  spaces(&t);
  return fits && t.at == t.end;
}

bool wasmill_json_number(wasmill_json json, double *number) {
  if (json.kind != WASMILL_JSON_NUMBER) return false;
  char text[64];
  size_t len = json.raw.len < sizeof text ? json.raw.len : sizeof text - 1;
  memcpy(text, json.raw.data, len);
  text[len] = 0;
  *number = strtod(text, NULL);
  return true;
}

bool wasmill_json_integer(wasmill_json json, int64_t *integer) {
  if (json.kind != WASMILL_JSON_NUMBER || json.raw.len > 24) return false;
  char text[32], *end;
  memcpy(text, json.raw.data, json.raw.len);
  text[json.raw.len] = 0;
  errno = 0;
  *integer = strtoll(text, &end, 10);
  return *end == 0 && errno == 0;
}

static int hex(uint8_t digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  digit |= 0x20;
  return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

static bool hex4(const uint8_t *at, const uint8_t *end, uint32_t *code) {
  if (end - at < 4) return false;
  *code = 0;
  for (int i = 0; i < 4; i++) {
    int digit = hex(at[i]);
    if (digit < 0) return false;
    *code = *code << 4 | (uint32_t)digit;
  }
  return true;
}

bool wasmill_json_string(wasmill_json json, wasmill_bytes *string) {
  if (json.kind != WASMILL_JSON_STRING) return false;
  const uint8_t *at = json.raw.data + 1, *end = json.raw.data + json.raw.len - 1;
  uint8_t *out = wasmill_alloc(json.raw.len + 1), *to = out;
  while (at < end) {
    if (*at != '\\') {
      *to++ = *at++;
      continue;
    }
    static const char escapes[] = "\"\"\\\\//b\bf\fn\nr\rt\t";
    uint8_t escape = at[1];
    at += 2;
    if (escape != 'u') {
      for (size_t i = 0; escapes[i] != 0; i += 2)
        if ((uint8_t)escapes[i] == escape) *to++ = (uint8_t)escapes[i + 1];
      continue;
    }
    uint32_t code, low;
    if (!hex4(at, end, &code)) return false;
    at += 4;
    if (code >= 0xd800 && code < 0xdc00 && end - at >= 6 && at[0] == '\\' && at[1] == 'u' && hex4(at + 2, end, &low) &&
        low >= 0xdc00 && low < 0xe000) {
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
      at += 6;
    }
    if (code >= 0xd800 && code < 0xe000) return false;
    if (code < 0x80) {
      *to++ = (uint8_t)code;
    } else if (code < 0x800) {
      *to++ = (uint8_t)(0xc0 | code >> 6);
      *to++ = (uint8_t)(0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
      *to++ = (uint8_t)(0xe0 | code >> 12);
      *to++ = (uint8_t)(0x80 | (code >> 6 & 0x3f));
      *to++ = (uint8_t)(0x80 | (code & 0x3f));
    } else {
      *to++ = (uint8_t)(0xf0 | code >> 18);
      *to++ = (uint8_t)(0x80 | (code >> 12 & 0x3f));
      *to++ = (uint8_t)(0x80 | (code >> 6 & 0x3f));
      *to++ = (uint8_t)(0x80 | (code & 0x3f));
    }
  }
  *to = 0;
  *string = (wasmill_bytes){out, (size_t)(to - out)};
  return true;
}

/* The configuration. */
static void wrong(wasmill_config *config, wasmill_bytes error) {
  if (config->error.len == 0) config->error = error;
}

void wasmill_config_wrong(wasmill_config *config, const char *name, const char *message) {
  wrong(config, name == NULL || *name == 0 ? wasmill_format("config: %s", message)
                                           : wasmill_format("config: `%s`: %s", name, message));
}

void wasmill_config_read(wasmill_config *config, wasmill_bytes text) {
  *config = (wasmill_config){.text = text};
  text_at t = {text.data, text.data + text.len};
  spaces(&t);
  config->absent = t.at == t.end || (t.end - t.at >= 4 && memcmp(t.at, "null", 4) == 0);
  if (config->absent) return;
  if (!wasmill_json_valid(text)) wasmill_config_wrong(config, NULL, "it is not JSON");
  else if (*t.at != '{')
    wrong(config, wasmill_format("config: expected an object, found %.*s", (int)(t.end - t.at), (const char *)t.at));
}

static wasmill_json field(wasmill_config *config, const char *name) {
  if (config->asked_count < 64) config->asked[config->asked_count++] = wasmill_text(name);
  if (config->absent) return (wasmill_json){WASMILL_JSON_MISSING, {NULL, 0}};
  return wasmill_json_field(config->text, name);
}

static void mistyped(wasmill_config *config, const char *name, const char *what, wasmill_json found, bool needed) {
  if (found.kind != WASMILL_JSON_MISSING)
    wrong(config, wasmill_format("config: `%s`: expected %s, found %.*s", name, what, (int)found.raw.len,
                                 (const char *)found.raw.data));
  else if (needed) wrong(config, wasmill_format("config: missing field `%s`", name));
}

const char *wasmill_config_string(wasmill_config *config, const char *name, const char *fallback) {
  wasmill_json found = field(config, name);
  wasmill_bytes text;
  if (!wasmill_json_string(found, &text)) {
    mistyped(config, name, "a string", found, fallback == NULL);
    return fallback == NULL ? "" : fallback;
  }
  /* It outlives the call: what open() is told, it keeps. */
  char *copy = wasmill_must(malloc(text.len + 1));
  memcpy(copy, text.data, text.len);
  copy[text.len] = 0;
  return copy;
}

int64_t wasmill_config_integer(wasmill_config *config, const char *name, const int64_t *fallback) {
  wasmill_json found = field(config, name);
  int64_t integer = fallback == NULL ? 0 : *fallback;
  if (!wasmill_json_integer(found, &integer)) {
    mistyped(config, name, "an integer", found, fallback == NULL);
    integer = fallback == NULL ? 0 : *fallback;
  }
  return integer;
}

double wasmill_config_number(wasmill_config *config, const char *name, const double *fallback) {
  wasmill_json found = field(config, name);
  double number = fallback == NULL ? 0 : *fallback;
  if (!wasmill_json_number(found, &number)) mistyped(config, name, "a number", found, fallback == NULL);
  return number;
}

bool wasmill_config_bool(wasmill_config *config, const char *name, bool fallback) {
  wasmill_json found = field(config, name);
  if (found.kind == WASMILL_JSON_BOOL) return found.raw.data[0] == 't';
  mistyped(config, name, "true or false", found, false);
  return fallback;
}

bool wasmill_config_done(wasmill_config *config) {
  text_at t = {config->text.data, config->text.data + config->text.len};
  bool first = true;
  wasmill_bytes name;
  wasmill_json found;
  while (!config->absent && config->error.len == 0 && next_field(&t, &first, &name, &found)) {
    bool known = false;
    wasmill_bytes hint = wasmill_text("");
    for (size_t i = 0; i < config->asked_count; i++) {
      known |= wasmill_equal(config->asked[i], name);
      hint = wasmill_format("%.*s%s`%.*s`", (int)hint.len, (const char *)hint.data, i == 0 ? "expected " : " or ",
                            (int)config->asked[i].len, (const char *)config->asked[i].data);
    }
    if (hint.len == 0) hint = wasmill_text("this operator takes none");
    if (!known)
      wrong(config, wasmill_format("config: `%.*s`: unknown field `%.*s`, %.*s", (int)name.len, (const char *)name.data,
                                   (int)name.len, (const char *)name.data, (int)hint.len, (const char *)hint.data));
  }
  return config->error.len == 0;
}

void wasmill_log(wasmill_level level, const char *format, ...) {
  va_list words;
  va_start(words, format);
  wasmill_bytes text = wasmill_vformat(format, words);
  va_end(words);
  bindings_string_t message = {(uint8_t *)text.data, text.len};
  wasmill_operator_log_write((wasmill_operator_log_level_t)level, &message);
}

static bindings_string_t lent(const char *name) { return (bindings_string_t){(uint8_t *)name, strlen(name)}; }

void wasmill_count_metric(const char *name, uint64_t delta) {
  bindings_string_t text = lent(name);
  wasmill_operator_metrics_add(&text, delta);
}

void wasmill_gauge(const char *name, double number) {
  bindings_string_t text = lent(name);
  wasmill_operator_metrics_set(&text, number);
}

void wasmill_observe(const char *name, double number) {
  bindings_string_t text = lent(name);
  wasmill_operator_metrics_observe(&text, number);
}
