/* Runs an operator: from the calls of the interface to the functions of the author, and back. */
#include "state.h"

typedef struct {
  struct {
    uint32_t *items;
    size_t count, max;
  } origins;
  struct {
    int64_t *items;
    size_t count, max;
  } times;
  wasmill_column keys, values;
  size_t forwarded; /* rows that go on as they were */
  size_t mark, mark_forwarded;
  bool own_keys, own_times, ascending;
} output;

typedef struct {
  wasmill_clock clock;
  bool deletes;
  int64_t at;
  wasmill_bytes key, tag;
} timer_change;

struct wasmill_context {
  enum { OF_INPUT, OF_TIMERS, OF_WATERMARK } kind;
  uint16_t port;
  uint32_t count;
  const wasmill_operator_types_batch_t *input;
  wasmill_event event;
  output *ports;
  size_t ports_count;
  bool refused;
  struct {
    wasmill_operator_types_rejected_t *items;
    size_t count, max;
  } rejected;
  struct {
    timer_change *items;
    size_t count, max;
  } timers;
  size_t timers_mark;
  bool failed, retry;
  wasmill_bytes reason;
};

static void *self;
static wasmill_setup setup;
static const char *const IN[] = {"in", NULL}, *const OUT[] = {"out", NULL};

static size_t length(const char *const *names) {
  size_t count = 0;
  while (names[count] != NULL) count++;
  return count;
}

static bindings_list_string_t given(const char *const *names) {
  bindings_list_string_t list = {NULL, length(names)};
  list.ptr = wasmill_must(malloc((list.len + 1) * sizeof *list.ptr));
  for (size_t i = 0; i < list.len; i++) list.ptr[i] = wasmill_give(wasmill_text(names[i]));
  return list;
}

void wasmill_outputs(wasmill_setup *to, const char *const *names) { to->outputs = names; }

/* Opens the operator. What is wrong, empty where nothing is. */
static wasmill_bytes open_operator(bindings_list_u8_t *text, wasmill_setup *to, void **made) {
  const wasmill_operator *plugin = &wasmill_plugin;
  *to = (wasmill_setup){.outputs = plugin->outputs == NULL ? OUT : plugin->outputs};
  *made = wasmill_must(calloc(1, plugin->size + 1));
  wasmill_config config;
  wasmill_config_read(&config, (wasmill_bytes){text->ptr, text->len});
  if (config.error.len == 0 && plugin->open != NULL) plugin->open(*made, &config, to);
  if (!wasmill_config_done(&config)) return config.error;
  for (size_t i = 0; i < to->count; i++)
    for (size_t j = 0; j < i; j++)
      if (strcmp(wasmill_space_about(to->spaces[i])->name, wasmill_space_about(to->spaces[j])->name) == 0)
        return wasmill_format("config: state space `%s` is declared twice", wasmill_space_about(to->spaces[i])->name);
  return (wasmill_bytes){NULL, 0};
}

static bool failed(wasmill_operator_types_failure_t *err, bool retry, wasmill_bytes reason) {
  err->tag = retry ? WASMILL_OPERATOR_TYPES_FAILURE_RETRY : WASMILL_OPERATOR_TYPES_FAILURE_FATAL;
  err->val.fatal = wasmill_give(reason);
  wasmill_end_call();
  return false;
}

bool exports_wasmill_operator_plugin_describe(bindings_list_u8_t *config, exports_wasmill_operator_plugin_descriptor_t *ret,
                                              exports_wasmill_operator_plugin_failure_t *err) {
  wasmill_setup described;
  void *made;
  wasmill_bytes error = open_operator(config, &described, &made);
  bool bare = config->len == 0;
  free(made);
  if (config->len > 0) free(config->ptr);
  /* Without a configuration there is nothing wrong with one. */
  if (error.len > 0 && !bare) return failed(err, false, error);
  if (error.len > 0) described.count = 0;
  const wasmill_operator *plugin = &wasmill_plugin;
  unsigned columns = plugin->columns == 0 ? 7 : plugin->columns;
  *ret = (exports_wasmill_operator_plugin_descriptor_t){
      .name = wasmill_give(wasmill_text(WASMILL_PLUGIN_NAME)),
      .version = wasmill_give(wasmill_text(WASMILL_PLUGIN_VERSION)),
      .inputs = given(plugin->inputs == NULL ? IN : plugin->inputs),
      .outputs = given(described.outputs),
      .columns = (uint8_t)(columns | (described.count > 0 ? WASMILL_KEYS : 0)),
      .watermarks = plugin->watermark != NULL,
  };
  ret->spaces.len = described.count;
  ret->spaces.ptr = wasmill_must(malloc((described.count + 1) * sizeof *ret->spaces.ptr));
  for (size_t i = 0; i < described.count; i++) {
    const wasmill_space_info *info = wasmill_space_about(described.spaces[i]);
    ret->spaces.ptr[i] = (exports_wasmill_operator_plugin_space_t){
        wasmill_give(wasmill_text(info->name)),
        info->options.version,
        {info->options.expires, {(uint8_t)info->options.clock, info->options.ttl_micros}},
    };
  }
  wasmill_end_call();
  return true;
}

bool exports_wasmill_operator_plugin_open(bindings_list_u8_t *config, exports_wasmill_operator_plugin_failure_t *err) {
  wasmill_bytes error = open_operator(config, &setup, &self);
  if (config->len > 0) free(config->ptr);
  if (error.len > 0) return failed(err, false, error);
  wasmill_end_call();
  return true;
}

/* Rows. */
static void add(wasmill_context *ctx, uint16_t at, wasmill_bytes value, const wasmill_bytes *key, const int64_t *time,
                bool forwarded) {
  if (at >= ctx->ports_count) {
    wasmill_log(WASMILL_ERROR, "no output port %u; this operator declares %u", at, (unsigned)ctx->ports_count);
    abort();
  }
  output *port = &ctx->ports[at];
  size_t rows = port->origins.count;
  port->ascending &= rows == 0 || port->origins.items[rows - 1] < ctx->event.row;
  port->own_keys |= key != NULL;
  port->own_times |= time != NULL;
  port->forwarded += forwarded;
  WASMILL_PUSH(port->origins, ctx->event.row);
  WASMILL_PUSH(port->times, time == NULL ? ctx->event.time : *time);
  wasmill_column_push(&port->keys, key == NULL ? ctx->event.key : *key);
  wasmill_column_push(&port->values, value);
}

void wasmill_forward_to(wasmill_context *ctx, uint16_t port) {
  if (ctx->kind != OF_INPUT) {
    wasmill_log(WASMILL_ERROR, "only events can be forwarded: a timer or a watermark emits rows");
    abort();
  }
  add(ctx, port, ctx->event.value, NULL, NULL, true);
}

void wasmill_forward(wasmill_context *ctx) { wasmill_forward_to(ctx, 0); }
void wasmill_emit(wasmill_context *ctx, wasmill_bytes value) { add(ctx, 0, value, NULL, NULL, false); }

void wasmill_emit_row(wasmill_context *ctx, uint16_t port, wasmill_bytes value, const wasmill_bytes *key,
                      const int64_t *time) {
  add(ctx, port, value, key, time, false);
}

static void leave(wasmill_context *ctx) {
  if (!ctx->refused) return;
  ctx->refused = false;
  wasmill_state_undo(&setup);
  ctx->timers.count = ctx->timers_mark;
  for (size_t i = 0; i < ctx->ports_count; i++) {
    output *port = &ctx->ports[i];
    port->origins.count = port->times.count = port->mark;
    port->forwarded = port->mark_forwarded;
    wasmill_column_truncate(&port->keys, port->mark);
    wasmill_column_truncate(&port->values, port->mark);
  }
}

void wasmill_enter(wasmill_context *ctx, const wasmill_event *event) {
  leave(ctx);
  ctx->event = *event;
  ctx->timers_mark = ctx->timers.count;
  for (size_t i = 0; i < ctx->ports_count; i++) {
    ctx->ports[i].mark = ctx->ports[i].origins.count;
    ctx->ports[i].mark_forwarded = ctx->ports[i].forwarded;
  }
  wasmill_state_enter(&setup, event->key);
}

void wasmill_reject(wasmill_context *ctx, const char *format, ...) {
  va_list words;
  va_start(words, format);
  wasmill_bytes reason = wasmill_vformat(format, words);
  va_end(words);
  if (ctx->refused) return;
  ctx->refused = true;
  wasmill_operator_types_rejected_t one = {ctx->event.row, wasmill_give(reason)};
  WASMILL_PUSH(ctx->rejected, one);
}

void wasmill_fail(wasmill_context *ctx, bool retry, const char *format, ...) {
  va_list words;
  va_start(words, format);
  ctx->reason = wasmill_vformat(format, words);
  va_end(words);
  ctx->failed = true;
  ctx->retry = retry;
}

uint32_t wasmill_count(wasmill_context *ctx) { return ctx->count; }

wasmill_event wasmill_event_at(wasmill_context *ctx, uint32_t row) {
  const wasmill_operator_types_batch_t *input = ctx->input;
  return (wasmill_event){row, ctx->port, row < input->times.len ? input->times.ptr[row] : 0,
                         wasmill_row(&input->keys, row), wasmill_row(&input->values, row)};
}

/* The smallest form that says what leaves by a port. False where nothing does. */
static bool finish(wasmill_context *ctx, output *port, wasmill_operator_types_output_t *out) {
  size_t rows = port->origins.count;
  bool plain = ctx->kind == OF_INPUT && port->ascending && !port->own_keys && !port->own_times;
  bool taken_values = false, taken_keys = false, taken_times = false, taken_origins = false;
  if (rows > 0 && plain && port->forwarded == rows) {
    if (rows == ctx->count) {
      out->tag = WASMILL_OPERATOR_TYPES_OUTPUT_UNCHANGED;
    } else {
      size_t words = (ctx->count + 63) / 64;
      uint64_t *bits = wasmill_must(calloc(words, 8));
      for (size_t i = 0; i < rows; i++) bits[port->origins.items[i] / 64] |= (uint64_t)1 << (port->origins.items[i] % 64);
      out->tag = WASMILL_OPERATOR_TYPES_OUTPUT_KEEP;
      out->val.keep = (bindings_list_u64_t){bits, words};
    }
  } else if (rows > 0 && plain && port->forwarded == 0 && rows == ctx->count) {
    out->tag = WASMILL_OPERATOR_TYPES_OUTPUT_VALUES;
    out->val.values = wasmill_column_lend(&port->values);
    taken_values = true;
  } else if (rows > 0) {
    out->tag = WASMILL_OPERATOR_TYPES_OUTPUT_ROWS;
    wasmill_operator_types_rows_t made = {0};
    made.batch.values = wasmill_column_lend(&port->values);
    taken_values = true;
    if (port->own_keys) made.batch.keys = wasmill_column_lend(&port->keys), taken_keys = true;
    if (port->own_times)
      made.batch.times = (bindings_list_s64_t){port->times.items, rows}, taken_times = true;
    if (ctx->kind != OF_WATERMARK)
      made.origins = (bindings_list_u32_t){port->origins.items, rows}, taken_origins = true;
    out->val.rows = made;
  }
  /* The host frees lists that hold anything. */
  if (!taken_values) wasmill_column_free(&port->values);
  else if (port->values.len == 0) free(port->values.data);
  if (!taken_keys) wasmill_column_free(&port->keys);
  else if (port->keys.len == 0) free(port->keys.data);
  if (!taken_times) free(port->times.items);
  if (!taken_origins) free(port->origins.items);
  return rows > 0;
}

#ifdef WASMILL_STATEFUL
int64_t wasmill_now(wasmill_context *ctx, wasmill_clock clock) {
  (void)ctx;
  return wasmill_operator_timers_now((uint8_t)clock);
}

static void change_timer(wasmill_context *ctx, timer_change change, wasmill_bytes tag) {
  change.key = wasmill_keep(ctx->event.key);
  change.tag = wasmill_keep(tag);
  WASMILL_PUSH(ctx->timers, change);
}

void wasmill_set_timer(wasmill_context *ctx, wasmill_clock clock, int64_t at, wasmill_bytes tag) {
  change_timer(ctx, (timer_change){.clock = clock, .at = at}, tag);
}

void wasmill_delete_timer(wasmill_context *ctx, wasmill_clock clock, wasmill_bytes tag) {
  change_timer(ctx, (timer_change){.clock = clock, .deletes = true}, tag);
}

/* Each run of changes of one kind is one call of the host. */
static void send_timers(wasmill_context *ctx) {
  for (size_t start = 0, end; start < ctx->timers.count; start = end) {
    const timer_change *first = &ctx->timers.items[start];
    wasmill_column keys = {0}, tags = {0};
    struct {
      int64_t *items;
      size_t count, max;
    } times = {0};
    for (end = start; end < ctx->timers.count; end++) {
      const timer_change *one = &ctx->timers.items[end];
      if (one->clock != first->clock || one->deletes != first->deletes) break;
      wasmill_column_push(&keys, one->key);
      wasmill_column_push(&tags, one->tag);
      WASMILL_PUSH(times, one->at);
    }
    wasmill_operator_types_column_t a = wasmill_column_lend(&keys), b = wasmill_column_lend(&tags);
    bindings_list_s64_t at = {times.items, times.count};
    if (first->deletes) wasmill_operator_timers_delete_many((uint8_t)first->clock, &a, &b);
    else wasmill_operator_timers_set_many((uint8_t)first->clock, &a, &b, &at);
    wasmill_column_free(&keys);
    wasmill_column_free(&tags);
    free(times.items);
  }
}
#else
static void send_timers(wasmill_context *ctx) { (void)ctx; }
#endif

static void begin(wasmill_context *ctx) {
  ctx->ports_count = length(setup.outputs);
  ctx->ports = wasmill_must(calloc(ctx->ports_count + 1, sizeof *ctx->ports));
  for (size_t i = 0; i < ctx->ports_count; i++) ctx->ports[i].ascending = true;
}

static bool end(wasmill_context *ctx, wasmill_operator_types_outcome_t *ret, wasmill_operator_types_failure_t *err) {
  leave(ctx);
  if (!ctx->failed) {
    wasmill_state_finish(&setup);
    send_timers(ctx);
  } else {
    wasmill_state_forget(&setup);
  }
  *ret = (wasmill_operator_types_outcome_t){0};
  ret->emissions.ptr = wasmill_must(malloc((ctx->ports_count + 1) * sizeof *ret->emissions.ptr));
  for (size_t i = 0; i < ctx->ports_count; i++) {
    wasmill_operator_types_emission_t emission = {.port = (uint16_t)i};
    if (finish(ctx, &ctx->ports[i], &emission.output)) ret->emissions.ptr[ret->emissions.len++] = emission;
  }
  if (ret->emissions.len == 0) free(ret->emissions.ptr);
  ret->rejected = (wasmill_operator_types_list_rejected_t){ctx->rejected.items, ctx->rejected.count};
  free(ctx->ports);
  free(ctx->timers.items);
  if (ctx->failed) return failed(err, ctx->retry, ctx->reason);
  wasmill_end_call();
  return true;
}

static void free_column(const wasmill_operator_types_column_t *column) {
  if (column->ends.len > 0) free(column->ends.ptr);
  if (column->data.len > 0) free(column->data.ptr);
}

bool exports_wasmill_operator_operator_process(uint16_t port, wasmill_operator_types_batch_t *input,
                                               wasmill_operator_types_outcome_t *ret, wasmill_operator_types_failure_t *err) {
  size_t count = input->times.len;
  if (input->keys.ends.len > count) count = input->keys.ends.len;
  if (input->values.ends.len > count) count = input->values.ends.len;
  wasmill_context ctx = {.kind = OF_INPUT, .port = port, .count = (uint32_t)count, .input = input};
  begin(&ctx);
  wasmill_state_begin(&setup, &input->keys, count);
  if (wasmill_plugin.batch != NULL) {
    wasmill_plugin.batch(self, &ctx);
  } else {
    for (uint32_t row = 0; row < count && !ctx.failed; row++) {
      wasmill_event event = wasmill_event_at(&ctx, row);
      wasmill_enter(&ctx, &event);
      wasmill_plugin.event(self, &event, &ctx);
    }
  }
  bool done = end(&ctx, ret, err);
  if (input->times.len > 0) free(input->times.ptr);
  free_column(&input->keys);
  free_column(&input->values);
  return done;
}

bool exports_wasmill_operator_operator_flush(wasmill_operator_types_failure_t *err) {
  (void)err;
  return true;
}

#ifdef WASMILL_STATEFUL
bool exports_wasmill_operator_timed_on_timers(uint8_t clock, exports_wasmill_operator_timed_firings_t *fired,
                                              wasmill_operator_types_outcome_t *ret, wasmill_operator_types_failure_t *err) {
  wasmill_context ctx = {.kind = OF_TIMERS, .count = (uint32_t)fired->times.len};
  begin(&ctx);
  wasmill_state_begin(&setup, &fired->keys, fired->times.len);
  if (wasmill_plugin.timer == NULL) wasmill_fail(&ctx, false, "a timer is due, and the operator has no timer()");
  for (uint32_t row = 0; row < fired->times.len && !ctx.failed; row++) {
    wasmill_bytes key = wasmill_row(&fired->keys, row);
    wasmill_event event = {row, 0, fired->times.ptr[row], key, {NULL, 0}};
    wasmill_timer timer = {(wasmill_clock)clock, event.time, key, wasmill_row(&fired->tags, row)};
    wasmill_enter(&ctx, &event);
    wasmill_plugin.timer(self, &timer, &ctx);
  }
  bool done = end(&ctx, ret, err);
  if (fired->times.len > 0) free(fired->times.ptr);
  free_column(&fired->keys);
  free_column(&fired->tags);
  return done;
}

bool exports_wasmill_operator_migration_migrate(uint16_t space, uint32_t from_version,
                                                exports_wasmill_operator_migration_entries_t *entries,
                                                exports_wasmill_operator_migration_migrated_t *ret,
                                                exports_wasmill_operator_migration_failure_t *err) {
  wasmill_column values = {0};
  struct {
    uint32_t *items;
    size_t count, max;
  } dropped = {0};
  const wasmill_space_info *info = wasmill_space_about(setup.spaces[space]);
  const wasmill_space_options *options = &info->options;
  bool known = options->migrate != NULL && from_version >= options->migrates_from && from_version < options->version;
  for (uint32_t row = 0; known && row < entries->keys.ends.len; row++) {
    wasmill_bytes now = {NULL, 0};
    if (!options->migrate(from_version, wasmill_row(&entries->values, row), &now)) {
      now.len = 0;
      WASMILL_PUSH(dropped, row);
    }
    wasmill_column_push(&values, now);
  }
  free_column(&entries->keys);
  free_column(&entries->subkeys);
  free_column(&entries->values);
  if (!known)
    return failed(err, false,
                  wasmill_format("state space `%s` has version %u, and no migration from version %u", info->name,
                                 (unsigned)options->version, (unsigned)from_version));
  *ret = (exports_wasmill_operator_migration_migrated_t){wasmill_column_lend(&values), {dropped.items, dropped.count}};
  wasmill_end_call();
  return true;
}

bool exports_wasmill_operator_timed_on_watermark(int64_t watermark, wasmill_operator_types_outcome_t *ret,
                                                 wasmill_operator_types_failure_t *err) {
  wasmill_context ctx = {.kind = OF_WATERMARK, .event = {.time = watermark}};
  begin(&ctx);
  wasmill_state_forget(&setup);
  if (wasmill_plugin.watermark != NULL) wasmill_plugin.watermark(self, watermark, &ctx);
  return end(&ctx, ret, err);
}
#endif
