/* Every case of the conformance suite that is an operator: `config.op` says which. */
#include <stdlib.h>

#include "wasmill.h"

typedef struct conformance conformance;
typedef void op(conformance *self, const wasmill_event *event, wasmill_context *ctx);

struct conformance {
  op *handle;
  wasmill_space *seen, *last, *items, *places;
};

static bool is(wasmill_bytes bytes, const char *text) { return wasmill_equal(bytes, wasmill_text(text)); }
#define TEXT(bytes) (int)(bytes).len, (const char *)(bytes).data

static void op_filter(conformance *self, const wasmill_event *event, wasmill_context *ctx) {
  (void)self;
  if (event->value.len > 0 && memchr(event->value.data, 'x', event->value.len) != NULL) wasmill_forward(ctx);
}

static void op_map(conformance *self, const wasmill_event *event, wasmill_context *ctx) {
  (void)self;
  uint8_t *out = wasmill_alloc(event->value.len);
  for (size_t i = 0; i < event->value.len; i++) {
    uint8_t byte = event->value.data[i];
    out[i] = byte >= 'a' && byte <= 'z' ? byte - 32 : byte;
  }
  wasmill_emit(ctx, (wasmill_bytes){out, event->value.len});
}

static void op_flat_map(conformance *self, const wasmill_event *event, wasmill_context *ctx) {
  (void)self;
  size_t start = 0;
  for (size_t i = 0; i <= event->value.len; i++) {
    if (i < event->value.len && event->value.data[i] != ' ') continue;
    if (i > start) wasmill_emit(ctx, (wasmill_bytes){event->value.data + start, i - start});
    start = i + 1;
  }
}

static unsigned long long count(conformance *self) {
  uint64_t count = wasmill_get_u64(self->seen, 0) + 1;
  wasmill_set_u64(self->seen, count);
  return count;
}

static void op_count(conformance *self, const wasmill_event *event, wasmill_context *ctx) {
  (void)event;
  wasmill_emit(ctx, wasmill_format("%llu", count(self)));
}

static void op_timers(conformance *self, const wasmill_event *event, wasmill_context *ctx) {
  (void)self;
  if (is(event->value, "cancel")) wasmill_delete_timer(ctx, WASMILL_EVENT_TIME, wasmill_text("a"));
  else wasmill_set_timer(ctx, WASMILL_EVENT_TIME, event->time + 10, event->value);
}

static void op_two_inputs(conformance *self, const wasmill_event *event, wasmill_context *ctx) {
  if (event->port == 0) {
    wasmill_set(self->last, event->value);
    return;
  }
  wasmill_bytes last = wasmill_text("nothing");
  wasmill_get(self->last, &last);
  wasmill_emit(ctx, wasmill_format("%.*s|%.*s", TEXT(last), TEXT(event->value)));
}

static void op_side(conformance *self, const wasmill_event *event, wasmill_context *ctx) {
  (void)self;
  if (event->value.len % 2 == 0) {
    wasmill_forward(ctx);
    return;
  }
  wasmill_bytes key = wasmill_text("odd");
  int64_t time = event->time + 1;
  wasmill_emit_row(ctx, 1, event->value, &key, &time);
}

static void op_reject(conformance *self, const wasmill_event *event, wasmill_context *ctx) {
  op_count(self, event, ctx);
  wasmill_set_timer(ctx, WASMILL_EVENT_TIME, event->time + 10, wasmill_text("t"));
  if (is(event->value, "bad")) wasmill_reject(ctx, "the value is bad");
}

static wasmill_bytes listed(conformance *self) {
  const wasmill_entry *all;
  size_t many = wasmill_map_entries(self->items, &all);
  wasmill_bytes text = wasmill_text("");
  for (size_t i = 0; i < many; i++)
    text = wasmill_format("%.*s%s%.*s=%.*s", TEXT(text), i == 0 ? "" : ",", TEXT(all[i].subkey), TEXT(all[i].value));
  return text;
}

static void op_migrate(conformance *self, const wasmill_event *event, wasmill_context *ctx) {
  op_count(self, event, ctx);
  wasmill_emit(ctx, listed(self));
}

/* What version 1 has left: counts in text, "0" for none, and items without a mark. */
static bool old_count(uint32_t from_version, wasmill_bytes old, wasmill_bytes *now) {
  (void)from_version;
  uint64_t count = strtoull((const char *)wasmill_format("%.*s", TEXT(old)).data, NULL, 10);
  *now = wasmill_u64(count);
  return count > 0;
}

static bool old_item(uint32_t from_version, wasmill_bytes old, wasmill_bytes *now) {
  (void)from_version;
  *now = wasmill_format("%.*s!", TEXT(old));
  return true;
}

static void op_map_state(conformance *self, const wasmill_event *event, wasmill_context *ctx) {
  wasmill_bytes name = event->value, value = {NULL, 0};
  for (size_t i = 0; i < event->value.len; i++) {
    if (event->value.data[i] != '=') continue;
    name.len = i;
    value = (wasmill_bytes){event->value.data + i + 1, event->value.len - i - 1};
    break;
  }
  if (is(name, "*")) {
    wasmill_emit(ctx, listed(self));
    return;
  }
  uint8_t last = name.len == 0 ? 0 : name.data[name.len - 1];
  wasmill_bytes bare = {name.data, name.len - 1};
  if (last == '?') {
    value = wasmill_text("none");
    wasmill_map_get(self->items, bare, &value);
    wasmill_emit(ctx, value);
  } else if (last == '!') {
    wasmill_map_delete(self->items, bare);
  } else {
    wasmill_map_set(self->items, name, value);
  }
}

static void op_numbers(conformance *self, const wasmill_event *event, wasmill_context *ctx) {
  if (!is(event->value, "*")) {
    wasmill_bytes text = wasmill_format("%.*s", TEXT(event->value));
    wasmill_map_set(self->places, wasmill_key_i64(strtoll((const char *)text.data, NULL, 10)), event->value);
    return;
  }
  const wasmill_entry *all;
  size_t many = wasmill_map_entries(self->places, &all);
  wasmill_bytes text = wasmill_text("");
  for (size_t i = 0; i < many; i++) {
    long long place = wasmill_unkey_i64(all[i].subkey);
    text = wasmill_format("%.*s%s%lld:%.*s", TEXT(text), i == 0 ? "" : ",", place, TEXT(all[i].value));
    wasmill_map_delete(self->places, all[i].subkey);
  }
  wasmill_emit(ctx, text);
}

static void op_text(conformance *self, const wasmill_event *event, wasmill_context *ctx) {
  (void)self;
  if (!wasmill_is_utf8(event->value)) {
    wasmill_reject(ctx, "not UTF-8");
    return;
  }
  unsigned points = 0;
  for (size_t i = 0; i < event->value.len; i++) points += (event->value.data[i] & 0xc0) != 0x80;
  wasmill_emit(ctx, wasmill_format("%u", points));
}

static wasmill_bytes reversed(wasmill_bytes bytes) {
  uint8_t *out = wasmill_alloc(bytes.len);
  for (size_t i = 0; i < bytes.len; i++) out[i] = bytes.data[bytes.len - 1 - i];
  return (wasmill_bytes){out, bytes.len};
}

static void op_bytes(conformance *self, const wasmill_event *event, wasmill_context *ctx) {
  (void)self;
  wasmill_bytes key = reversed(event->key);
  wasmill_emit_row(ctx, 0, reversed(event->value), &key, NULL);
}

static const struct {
  const char *name;
  op *handle;
} ops[] = {
    {"filter", op_filter}, {"map", op_map},       {"flat-map", op_flat_map},   {"count", op_count},
    {"timers", op_timers}, {"side", op_side},     {"two-inputs", op_two_inputs}, {"reject", op_reject},
    {"numbers", op_numbers}, {"text", op_text},   {"map-state", op_map_state}, {"bytes", op_bytes},
    {"migrate", op_migrate},
};

static void open_conformance(void *state, wasmill_config *config, wasmill_setup *setup) {
  conformance *self = state;
  const char *name = wasmill_config_string(config, "op", NULL);
  for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
    if (strcmp(ops[i].name, name) == 0) self->handle = ops[i].handle;
  int64_t one = 1;
  if (wasmill_config_integer(config, "limit", &one) < 1) wasmill_config_wrong(config, "limit", "expected at least 1");
  uint32_t version = self->handle == op_migrate ? 2 : 1;
  wasmill_space_options counts = {.version = version, .migrates_from = 1, .migrate = old_count};
  wasmill_space_options marked = {.version = version, .migrates_from = 1, .migrate = old_item};
  self->seen = wasmill_value(setup, "seen", &counts);
  self->last = wasmill_value(setup, "last", NULL);
  self->items = wasmill_map(setup, "items", &marked);
  self->places = wasmill_map(setup, "places", NULL);
}

static void event(void *state, const wasmill_event *event, wasmill_context *ctx) {
  conformance *self = state;
  wasmill_count_metric("events", 1);
  self->handle(self, event, ctx);
}

static void on_timer(void *state, const wasmill_timer *timer, wasmill_context *ctx) {
  wasmill_emit(ctx, wasmill_format("%.*s at %lld, number %llu", TEXT(timer->tag), (long long)timer->time, count(state)));
}

static const char *const inputs[] = {"left", "right", NULL}, *const outputs[] = {"out", "side", NULL};
WASMILL_OPERATOR(.size = sizeof(conformance), .inputs = inputs, .outputs = outputs, .open = open_conformance,
                 .event = event, .timer = on_timer);
