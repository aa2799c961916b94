/* Write Wasmill operators in C.
 *
 * A plugin defines `wasmill_plugin`: with WASMILL_OPERATOR, or WASMILL_AGGREGATE for a stage with a
 * window.
 *
 * Ownership: what a function is given it only borrows, until it returns. What it hands over (values,
 * reasons, names) is copied. Memory that the author allocates is the author's to free;
 * wasmill_alloc() is freed at the end of the call. */
#ifndef WASMILL_H
#define WASMILL_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of someone else. */
typedef struct {
  const uint8_t *data;
  size_t len;
} wasmill_bytes;

static inline wasmill_bytes wasmill_text(const char *text) {
  wasmill_bytes bytes = {(const uint8_t *)text, strlen(text)};
  return bytes;
}

static inline bool wasmill_equal(wasmill_bytes one, wasmill_bytes other) {
  return one.len == other.len && (one.len == 0 || memcmp(one.data, other.data, one.len) == 0);
}

/* Memory for the rest of the call. */
void *wasmill_alloc(size_t size);
/* Text as printf makes it, for the rest of the call. */
wasmill_bytes wasmill_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Whether bytes are UTF-8. */
bool wasmill_is_utf8(wasmill_bytes bytes);

/* One event. Times are microseconds since the Unix epoch. */
typedef struct {
  uint32_t row;
  uint16_t port;
  int64_t time;
  wasmill_bytes key;
  wasmill_bytes value;
} wasmill_event;

typedef enum { WASMILL_EVENT_TIME = 0, WASMILL_PROCESSING_TIME = 1 } wasmill_clock;

typedef struct {
  wasmill_clock clock;
  int64_t time;
  wasmill_bytes key;
  wasmill_bytes tag;
} wasmill_timer;

/* JSON: a field of an object, without a parse of all of it. */
typedef enum {
  WASMILL_JSON_MISSING,
  WASMILL_JSON_NULL,
  WASMILL_JSON_BOOL,
  WASMILL_JSON_NUMBER,
  WASMILL_JSON_STRING,
  WASMILL_JSON_ARRAY,
  WASMILL_JSON_OBJECT
} wasmill_json_kind;

typedef struct {
  wasmill_json_kind kind;
  wasmill_bytes raw; /* as it stands in the text */
} wasmill_json;

/* The field of the object `text`; MISSING where it has none, or is no object. */
wasmill_json wasmill_json_field(wasmill_bytes text, const char *name);
/* Whether it is a number, and which. */
bool wasmill_json_number(wasmill_json json, double *number);
/* Whether it is an integer, and which. */
bool wasmill_json_integer(wasmill_json json, int64_t *integer);
/* Whether it is a string, and which: for the rest of the call. */
bool wasmill_json_string(wasmill_json json, wasmill_bytes *string);
/* Whether a text is one JSON value. */
bool wasmill_json_valid(wasmill_bytes text);

/* The stage's config. The first field that is wrong fails open(); so does one that nobody asked for. */
typedef struct wasmill_config wasmill_config;
const char *wasmill_config_string(wasmill_config *config, const char *name, const char *fallback);
int64_t wasmill_config_integer(wasmill_config *config, const char *name, const int64_t *fallback);
double wasmill_config_number(wasmill_config *config, const char *name, const double *fallback);
bool wasmill_config_bool(wasmill_config *config, const char *name, bool fallback);
/* Says what is wrong with a field. */
void wasmill_config_wrong(wasmill_config *config, const char *name, const char *message);

/* State by the key of the event at hand. The formats of numbers are those of every other SDK. */
typedef struct wasmill_space wasmill_space;
typedef struct {
  uint32_t version; /* raised when the meaning of the bytes changes; 0 is taken for 1 */
  bool expires;
  wasmill_clock clock;
  uint64_t ttl_micros;
  /* Takes over entries of the versions from `migrates_from` up to the one before `version`: `now`
   * becomes what an entry that was `old` is today; false: the entry goes. */
  uint32_t migrates_from;
  bool (*migrate)(uint32_t from_version, wasmill_bytes old, wasmill_bytes *now);
} wasmill_space_options;

typedef struct wasmill_setup wasmill_setup;
/* One value per event key. `options` may be NULL. */
wasmill_space *wasmill_value(wasmill_setup *setup, const char *name, const wasmill_space_options *options);
/* A map per event key. */
wasmill_space *wasmill_map(wasmill_setup *setup, const char *name, const wasmill_space_options *options);
/* Names the output ports: a list that ends with NULL, and lives on. */
void wasmill_outputs(wasmill_setup *setup, const char *const *names);

bool wasmill_get(wasmill_space *value, wasmill_bytes *found);
void wasmill_set(wasmill_space *value, wasmill_bytes bytes);
void wasmill_delete(wasmill_space *value);
bool wasmill_map_get(wasmill_space *map, wasmill_bytes subkey, wasmill_bytes *found);
void wasmill_map_set(wasmill_space *map, wasmill_bytes subkey, wasmill_bytes bytes);
void wasmill_map_delete(wasmill_space *map, wasmill_bytes subkey);
/* All entries of the current key in the order of their sub-keys: how many, and where they are. */
typedef struct {
  wasmill_bytes subkey;
  wasmill_bytes value;
} wasmill_entry;
size_t wasmill_map_entries(wasmill_space *map, const wasmill_entry **entries);

/* The value, or `fallback` where there is none. Eight bytes, little-endian. */
uint64_t wasmill_get_u64(wasmill_space *value, uint64_t fallback);
void wasmill_set_u64(wasmill_space *value, uint64_t number);
double wasmill_get_f64(wasmill_space *value, double fallback);
void wasmill_set_f64(wasmill_space *value, double number);
/* A number as wasmill_set_u64 keeps it. Lives for the rest of the call. */
wasmill_bytes wasmill_u64(uint64_t number);
/* A sub-key that sorts as the number does. Lives for the rest of the call. */
wasmill_bytes wasmill_key_i64(int64_t number);
int64_t wasmill_unkey_i64(wasmill_bytes subkey);

/* During a call. Rows leave by the first port unless told. */
typedef struct wasmill_context wasmill_context;
void wasmill_forward(wasmill_context *ctx);
void wasmill_forward_to(wasmill_context *ctx, uint16_t port);
void wasmill_emit(wasmill_context *ctx, wasmill_bytes value);
/* A key, a time and a port of its own; NULL is the event's. */
void wasmill_emit_row(wasmill_context *ctx, uint16_t port, wasmill_bytes value, const wasmill_bytes *key,
                      const int64_t *time);
/* Rejects the event at hand: it goes to the dead letters with these words, and what it has changed
 * and emitted is undone. Return afterwards. */
void wasmill_reject(wasmill_context *ctx, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Fails the call: nothing of it counts. Return afterwards. */
void wasmill_fail(wasmill_context *ctx, bool retry, const char *format, ...) __attribute__((format(printf, 3, 4)));
int64_t wasmill_now(wasmill_context *ctx, wasmill_clock clock);
/* One per clock, key and tag: setting it again moves it. */
void wasmill_set_timer(wasmill_context *ctx, wasmill_clock clock, int64_t at, wasmill_bytes tag);
void wasmill_delete_timer(wasmill_context *ctx, wasmill_clock clock, wasmill_bytes tag);
/* How many events the call has, and each of them: for batch(). */
uint32_t wasmill_count(wasmill_context *ctx);
wasmill_event wasmill_event_at(wasmill_context *ctx, uint32_t row);
/* Makes an event the one at hand: state, timers and rows are its own from here on. For batch(). */
void wasmill_enter(wasmill_context *ctx, const wasmill_event *event);

typedef enum { WASMILL_DEBUG, WASMILL_INFO, WASMILL_WARN, WASMILL_ERROR } wasmill_level;
void wasmill_log(wasmill_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Metrics, published under the job and stage. They count at once, and only if the call does. */
void wasmill_count_metric(const char *name, uint64_t delta);
void wasmill_gauge(const char *name, double value);
void wasmill_observe(const char *name, double value);

enum { WASMILL_TIMES = 1, WASMILL_KEYS = 2, WASMILL_VALUES = 4 };

/* What a plugin is. All but `event` (or `batch`) may be left out. */
typedef struct {
  const char *const *inputs;  /* ends with NULL; { "in" } */
  const char *const *outputs; /* ends with NULL; { "out" } */
  unsigned columns;           /* those that it reads; all */
  size_t size;                /* bytes of `self`, zeroed before open() */
  void (*open)(void *self, wasmill_config *config, wasmill_setup *setup);
  void (*event)(void *self, const wasmill_event *event, wasmill_context *ctx);
  void (*batch)(void *self, wasmill_context *ctx);
  void (*timer)(void *self, const wasmill_timer *timer, wasmill_context *ctx);
  void (*watermark)(void *self, int64_t watermark, wasmill_context *ctx);
} wasmill_operator;

typedef struct {
  int64_t start; /* [start, end) */
  int64_t end;
  wasmill_bytes key;
} wasmill_pane;

typedef struct wasmill_results wasmill_results;
void wasmill_result(wasmill_results *results, wasmill_bytes value);
/* In fold(): rejects the event. The accumulator may not have been changed. */
void wasmill_reject_fold(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* An aggregate. An accumulator is `accumulator` bytes, zero at first, with no pointers in it: the
 * host keeps its bytes. Fields are little-endian, as in the machine. */
typedef struct {
  unsigned columns;
  size_t size;
  size_t accumulator;
  void (*open)(void *self, wasmill_config *config);
  void (*fold)(void *self, void *accumulator, const wasmill_event *event);
  void (*merge)(void *self, void *into, const void *other);
  void (*finish)(void *self, const wasmill_pane *pane, const void *accumulator, wasmill_results *results);
} wasmill_aggregate;

#define WASMILL_OPERATOR(...) const wasmill_operator wasmill_plugin = {__VA_ARGS__}
#define WASMILL_AGGREGATE(...) const wasmill_aggregate wasmill_plugin_aggregate = {__VA_ARGS__}
extern const wasmill_operator wasmill_plugin;
extern const wasmill_aggregate wasmill_plugin_aggregate;

#ifdef __cplusplus
}
#endif
#endif
