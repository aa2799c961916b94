/* State, timers, log and time in memory, in place of a host's imports. */
#include "wasmill_test.h"

#include <stdio.h>

#include "internal.h"

typedef struct {
  uint16_t space;
  wasmill_bytes key, subkey, value;
} entry;
static struct {
  entry *items;
  size_t count, max;
} entries;

typedef struct {
  uint8_t clock;
  wasmill_bytes key, tag;
  int64_t at;
} timer;
static struct {
  timer *items;
  size_t count, max;
} timers;

static struct {
  wasmill_test_row *items;
  size_t count, max;
} rows;
static struct {
  char **items;
  size_t count, max;
} rejected;
static int64_t watermark;
static char *configuration;

static wasmill_bytes own(wasmill_bytes bytes) {
  uint8_t *copy = wasmill_must(malloc(bytes.len + 1));
  if (bytes.len > 0) memcpy(copy, bytes.data, bytes.len);
  copy[bytes.len] = 0;
  return (wasmill_bytes){copy, bytes.len};
}

static entry *find(uint16_t space, wasmill_bytes key, wasmill_bytes subkey) {
  for (size_t i = 0; i < entries.count; i++) {
    entry *one = &entries.items[i];
    if (one->space == space && wasmill_equal(one->key, key) && wasmill_equal(one->subkey, subkey)) return one;
  }
  return NULL;
}

void wasmill_operator_state_get_many(uint16_t space, wasmill_operator_types_column_t *keys,
                                     wasmill_operator_types_column_t *subkeys,
                                     wasmill_operator_state_tuple2_list_u64_column_t *ret) {
  size_t count = keys->ends.len;
  ret->f0 = (bindings_list_u64_t){wasmill_must(calloc((count + 63) / 64, 8)), (count + 63) / 64};
  wasmill_column values = {0};
  for (size_t i = 0; i < count; i++) {
    entry *one = find(space, wasmill_row(keys, i), wasmill_row(subkeys, i));
    if (one != NULL) ret->f0.ptr[i / 64] |= (uint64_t)1 << (i % 64);
    wasmill_column_push(&values, one == NULL ? (wasmill_bytes){NULL, 0} : one->value);
  }
  ret->f1 = wasmill_column_lend(&values);
}

void wasmill_operator_state_put_many(uint16_t space, wasmill_operator_types_column_t *keys,
                                     wasmill_operator_types_column_t *subkeys, wasmill_operator_types_column_t *values) {
  for (size_t i = 0; i < keys->ends.len; i++) {
    entry *one = find(space, wasmill_row(keys, i), wasmill_row(subkeys, i));
    if (one == NULL) {
      entry made = {space, own(wasmill_row(keys, i)), own(wasmill_row(subkeys, i)), {NULL, 0}};
      WASMILL_PUSH(entries, made);
      one = &entries.items[entries.count - 1];
    }
    one->value = own(wasmill_row(values, i));
  }
}

void wasmill_operator_state_delete_many(uint16_t space, wasmill_operator_types_column_t *keys,
                                        wasmill_operator_types_column_t *subkeys) {
  for (size_t i = 0; i < keys->ends.len; i++) {
    entry *one = find(space, wasmill_row(keys, i), wasmill_row(subkeys, i));
    if (one != NULL) *one = entries.items[--entries.count];
  }
}

static int compare(wasmill_bytes a, wasmill_bytes b) {
  int order = memcmp(a.data, b.data, a.len < b.len ? a.len : b.len);
  return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

void wasmill_operator_state_scan(uint16_t space, bindings_list_u8_t *key, bindings_list_u8_t *start, uint32_t limit,
                                 wasmill_operator_state_tuple2_column_column_t *ret) {
  wasmill_bytes wanted = {key->ptr, key->len}, from = {start->ptr, start->len};
  wasmill_column subkeys = {0}, values = {0};
  bool inclusive = true;
  while (subkeys.rows < limit) {
    const entry *next = NULL;
    for (size_t i = 0; i < entries.count; i++) {
      const entry *one = &entries.items[i];
      if (one->space != space || !wasmill_equal(one->key, wanted)) continue;
      int order = compare(one->subkey, from);
      if (order < 0 || (order == 0 && !inclusive)) continue;
      if (next == NULL || compare(one->subkey, next->subkey) < 0) next = one;
    }
    if (next == NULL) break;
    wasmill_column_push(&subkeys, next->subkey);
    wasmill_column_push(&values, next->value);
    from = next->subkey;
    inclusive = false;
  }
  ret->f0 = wasmill_column_lend(&subkeys);
  ret->f1 = wasmill_column_lend(&values);
}

int64_t wasmill_operator_timers_now(uint8_t clock) { return clock == WASMILL_EVENT_TIME ? watermark : 0; }

void wasmill_operator_timers_delete_many(uint8_t clock, wasmill_operator_types_column_t *keys,
                                         wasmill_operator_types_column_t *tags) {
  for (size_t row = 0; row < keys->ends.len; row++)
    for (size_t i = 0; i < timers.count; i++) {
      timer *one = &timers.items[i];
      if (one->clock == clock && wasmill_equal(one->key, wasmill_row(keys, row)) &&
          wasmill_equal(one->tag, wasmill_row(tags, row)))
        *one = timers.items[--timers.count], i--;
    }
}

void wasmill_operator_timers_set_many(uint8_t clock, wasmill_operator_types_column_t *keys,
                                      wasmill_operator_types_column_t *tags, bindings_list_s64_t *times) {
  wasmill_operator_timers_delete_many(clock, keys, tags);
  for (size_t row = 0; row < times->len; row++) {
    timer made = {clock, own(wasmill_row(keys, row)), own(wasmill_row(tags, row)), times->ptr[row]};
    WASMILL_PUSH(timers, made);
  }
}

void wasmill_operator_log_write(uint8_t level, bindings_string_t *message) {
  fprintf(stderr, "log %u: %.*s\n", level, (int)message->len, (const char *)message->ptr);
}
void wasmill_operator_metrics_add(bindings_string_t *name, uint64_t delta) { (void)name, (void)delta; }
void wasmill_operator_metrics_set(bindings_string_t *name, double value) { (void)name, (void)value; }
void wasmill_operator_metrics_observe(bindings_string_t *name, double value) { (void)name, (void)value; }

const char *wasmill_test_restart(void) {
  size_t len = strlen(configuration);
  bindings_list_u8_t config = {NULL, len};
  if (len > 0) config.ptr = (uint8_t *)own(wasmill_text(configuration)).data;
  exports_wasmill_operator_plugin_failure_t failure;
  if (exports_wasmill_operator_plugin_open(&config, &failure)) return NULL;
  return (const char *)own((wasmill_bytes){failure.val.fatal.ptr, failure.val.fatal.len}).data;
}

const char *wasmill_test_open(const char *config) {
  configuration = (char *)own(wasmill_text(config)).data;
  entries.count = timers.count = rows.count = rejected.count = 0;
  watermark = 0;
  return wasmill_test_restart();
}

static void take(bool done, wasmill_operator_types_outcome_t *outcome, wasmill_operator_types_failure_t *failure,
                 const wasmill_operator_types_batch_t *given) {
  if (!done) {
    fprintf(stderr, "the call failed: %.*s\n", (int)failure->val.fatal.len, (const char *)failure->val.fatal.ptr);
    exit(1);
  }
  for (size_t i = 0; i < outcome->rejected.len; i++) {
    bindings_string_t *reason = &outcome->rejected.ptr[i].reason;
    char *text = (char *)own((wasmill_bytes){reason->ptr, reason->len}).data;
    WASMILL_PUSH(rejected, text);
  }
  for (size_t e = 0; e < outcome->emissions.len; e++) {
    const wasmill_operator_types_emission_t *emission = &outcome->emissions.ptr[e];
    const wasmill_operator_types_rows_t *made = &emission->output.val.rows;
    bool is_rows = emission->output.tag == WASMILL_OPERATOR_TYPES_OUTPUT_ROWS;
    size_t count = is_rows ? made->batch.values.ends.len : given->times.len;
    for (size_t i = 0; i < count; i++) {
      size_t from = is_rows && made->origins.len > 0 ? made->origins.ptr[i] : i;
      wasmill_bytes key = wasmill_row(&given->keys, from), value = wasmill_row(&given->values, from);
      int64_t time = from < given->times.len ? given->times.ptr[from] : watermark;
      if (emission->output.tag == WASMILL_OPERATOR_TYPES_OUTPUT_KEEP &&
          (emission->output.val.keep.ptr[i / 64] >> (i % 64) & 1) == 0)
        continue;
      if (emission->output.tag == WASMILL_OPERATOR_TYPES_OUTPUT_VALUES) value = wasmill_row(&emission->output.val.values, i);
      if (is_rows) {
        value = wasmill_row(&made->batch.values, i);
        if (made->batch.keys.ends.len > 0) key = wasmill_row(&made->batch.keys, i);
        if (made->batch.times.len > 0) time = made->batch.times.ptr[i];
      }
      wasmill_test_row row = {emission->port, time, (char *)own(key).data, (char *)own(value).data};
      WASMILL_PUSH(rows, row);
    }
  }
}

void wasmill_test_send_all(uint16_t port, int64_t time, const char *const *events) {
  wasmill_column keys = {0}, values = {0};
  struct {
    int64_t *items;
    size_t count, max;
  } times = {0};
  for (; events[0] != NULL; events += 2) {
    wasmill_column_push(&keys, wasmill_text(events[0]));
    wasmill_column_push(&values, wasmill_text(events[1]));
    WASMILL_PUSH(times, time);
  }
  wasmill_operator_types_batch_t batch = {{times.items, times.count}, wasmill_column_lend(&keys), wasmill_column_lend(&values)};
  /* The operator frees what it is given. */
  wasmill_column keys_copy = {0}, values_copy = {0};
  int64_t *times_copy = wasmill_must(malloc((times.count + 1) * sizeof *times_copy));
  memcpy(times_copy, times.items, times.count * sizeof *times_copy);
  for (size_t i = 0; i < times.count; i++) {
    wasmill_column_push(&keys_copy, wasmill_row(&batch.keys, i));
    wasmill_column_push(&values_copy, wasmill_row(&batch.values, i));
  }
  wasmill_operator_types_batch_t copy = {{times_copy, times.count}, wasmill_column_lend(&keys_copy), wasmill_column_lend(&values_copy)};
  wasmill_operator_types_outcome_t outcome;
  wasmill_operator_types_failure_t failure;
  bool done = exports_wasmill_operator_operator_process(port, &copy, &outcome, &failure);
  take(done, &outcome, &failure, &batch);
}

void wasmill_test_send(const char *key, const char *value) {
  const char *const events[] = {key, value, NULL};
  wasmill_test_send_all(0, 0, events);
}

static int by_time(const void *one, const void *other) {
  int64_t a = ((const timer *)one)->at, b = ((const timer *)other)->at;
  return (a > b) - (a < b);
}

void wasmill_test_watermark(int64_t time) {
  watermark = time;
  for (;;) {
    if (timers.count > 0) qsort(timers.items, timers.count, sizeof *timers.items, by_time);
    if (timers.count == 0 || timers.items[0].at > time) break;
    timer due = timers.items[0];
    memmove(timers.items, timers.items + 1, --timers.count * sizeof *timers.items);
    wasmill_column keys[2] = {{0}, {0}}, tags = {0};
    for (int i = 0; i < 2; i++) wasmill_column_push(&keys[i], due.key);
    wasmill_column_push(&tags, due.tag);
    int64_t *at = wasmill_must(malloc(sizeof *at));
    *at = due.at;
    int64_t given_at = due.at;
    exports_wasmill_operator_timed_firings_t fired = {{at, 1}, wasmill_column_lend(&keys[0]), wasmill_column_lend(&tags)};
    wasmill_operator_types_batch_t given = {{&given_at, 1}, wasmill_column_lend(&keys[1]), {{NULL, 0}, {NULL, 0}}};
    wasmill_operator_types_outcome_t outcome;
    wasmill_operator_types_failure_t failure;
    take(exports_wasmill_operator_timed_on_timers(due.clock, &fired, &outcome, &failure), &outcome, &failure, &given);
  }
  if (wasmill_plugin.watermark != NULL) {
    wasmill_operator_types_batch_t given = {0};
    wasmill_operator_types_outcome_t outcome;
    wasmill_operator_types_failure_t failure;
    take(exports_wasmill_operator_timed_on_watermark(time, &outcome, &failure), &outcome, &failure, &given);
  }
}

size_t wasmill_test_count(void) { return rows.count; }
const wasmill_test_row *wasmill_test_row_at(size_t place) { return &rows.items[place]; }
size_t wasmill_test_rejected_count(void) { return rejected.count; }
const char *wasmill_test_rejected_at(size_t place) { return rejected.items[place]; }

const uint8_t *wasmill_test_state(uint16_t space, const char *key, const char *subkey, size_t *len) {
  entry *one = find(space, wasmill_text(key), wasmill_text(subkey));
  if (one == NULL) return NULL;
  *len = one->value.len;
  return one->value.data;
}

void wasmill_test_expect(bool holds, const char *what, const char *file, int line) {
  if (holds) return;
  fprintf(stderr, "%s:%d: expected %s\n", file, line, what);
  for (size_t i = 0; i < rows.count; i++)
    fprintf(stderr, "  row %u: port %u, key %s, value %s\n", (unsigned)i, rows.items[i].port, rows.items[i].key,
            rows.items[i].value);
  for (size_t i = 0; i < rejected.count; i++) fprintf(stderr, "  rejected: %s\n", rejected.items[i]);
  exit(1);
}

const char *wasmill_test_migrate(uint16_t space, uint32_t from_version, const char *key, const char *value) {
  wasmill_column keys = {0}, subkeys = {0}, values = {0};
  wasmill_column_push(&keys, wasmill_text(key));
  wasmill_column_push(&subkeys, wasmill_text(""));
  wasmill_column_push(&values, wasmill_text(value));
  exports_wasmill_operator_migration_entries_t given = {wasmill_column_lend(&keys), wasmill_column_lend(&subkeys),
                                                        wasmill_column_lend(&values)};
  exports_wasmill_operator_migration_migrated_t made;
  exports_wasmill_operator_migration_failure_t failure;
  if (!exports_wasmill_operator_migration_migrate(space, from_version, &given, &made, &failure))
    return (const char *)own((wasmill_bytes){failure.val.fatal.ptr, failure.val.fatal.len}).data;
  if (made.dropped.len == 0) {
    entry one = {space, own(wasmill_text(key)), own(wasmill_text("")), own(wasmill_row(&made.values, 0))};
    WASMILL_PUSH(entries, one);
  }
  free(made.values.ends.ptr);
  free(made.values.data.ptr);
  free(made.dropped.ptr);
  return NULL;
}
