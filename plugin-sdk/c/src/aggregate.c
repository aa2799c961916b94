/* Runs an aggregate: pure functions over the accumulators of windows, which the host keeps. */
#include "internal.h"

struct wasmill_results {
  wasmill_column values;
  struct {
    uint32_t *items;
    size_t count, max;
  } panes;
  uint32_t pane;
};

static void *self;
static wasmill_bytes refusal;
static bool refused;

static wasmill_bytes open_aggregate(bindings_list_u8_t *text, void **made) {
  const wasmill_aggregate *plugin = &wasmill_plugin_aggregate;
  *made = wasmill_must(calloc(1, plugin->size + 1));
  wasmill_config config;
  wasmill_config_read(&config, (wasmill_bytes){text->ptr, text->len});
  if (config.error.len == 0 && plugin->open != NULL) plugin->open(*made, &config);
  return wasmill_config_done(&config) ? (wasmill_bytes){NULL, 0} : config.error;
}

static bool failed(wasmill_operator_types_failure_t *err, wasmill_bytes reason) {
  err->tag = WASMILL_OPERATOR_TYPES_FAILURE_FATAL;
  err->val.fatal = wasmill_give(reason);
  wasmill_end_call();
  return false;
}

static bindings_list_string_t one_name(const char *name) {
  bindings_list_string_t list = {wasmill_must(malloc(sizeof *list.ptr)), 1};
  list.ptr[0] = wasmill_give(wasmill_text(name));
  return list;
}

bool exports_wasmill_operator_plugin_describe(bindings_list_u8_t *config, exports_wasmill_operator_plugin_descriptor_t *ret,
                                              exports_wasmill_operator_plugin_failure_t *err) {
  void *made;
  wasmill_bytes error = open_aggregate(config, &made);
  free(made);
  bool bare = config->len == 0;
  if (!bare) free(config->ptr);
  if (error.len > 0 && !bare) return failed(err, error);
  *ret = (exports_wasmill_operator_plugin_descriptor_t){
      .name = wasmill_give(wasmill_text(WASMILL_PLUGIN_NAME)),
      .version = wasmill_give(wasmill_text(WASMILL_PLUGIN_VERSION)),
      .inputs = one_name("in"),
      .outputs = one_name("out"),
      .columns = (uint8_t)(wasmill_plugin_aggregate.columns == 0 ? 7 : wasmill_plugin_aggregate.columns),
  };
  wasmill_end_call();
  return true;
}

bool exports_wasmill_operator_plugin_open(bindings_list_u8_t *config, exports_wasmill_operator_plugin_failure_t *err) {
  wasmill_bytes error = open_aggregate(config, &self);
  if (config->len > 0) free(config->ptr);
  if (error.len > 0) return failed(err, error);
  wasmill_end_call();
  return true;
}

static void free_column(const wasmill_operator_types_column_t *column) {
  if (column->ends.len > 0) free(column->ends.ptr);
  if (column->data.len > 0) free(column->data.ptr);
}

/* An accumulator as the author sees it: a new one is all zeros. */
static bool decode(wasmill_bytes bytes, uint8_t *to) {
  size_t size = wasmill_plugin_aggregate.accumulator;
  if (bytes.len == 0) {
    memset(to, 0, size);
    return true;
  }
  if (bytes.len != size) return false;
  memcpy(to, bytes.data, size);
  return true;
}

static wasmill_bytes unreadable(size_t found) {
  return wasmill_format("an accumulator cannot be read: it is %u bytes, found %u",
                        (unsigned)wasmill_plugin_aggregate.accumulator, (unsigned)found);
}

static wasmill_operator_types_column_t encode(const uint8_t *all, size_t count) {
  wasmill_column column = {0};
  size_t size = wasmill_plugin_aggregate.accumulator;
  for (size_t i = 0; i < count; i++) wasmill_column_push(&column, (wasmill_bytes){all + i * size, size});
  return wasmill_column_lend(&column);
}

void wasmill_reject_fold(const char *format, ...) {
  va_list words;
  va_start(words, format);
  refusal = wasmill_vformat(format, words);
  va_end(words);
  refused = true;
}

bool exports_wasmill_operator_aggregate_fold(wasmill_operator_types_column_t *accumulators, bindings_list_u32_t *groups,
                                             wasmill_operator_types_batch_t *input,
                                             exports_wasmill_operator_aggregate_folded_t *ret,
                                             wasmill_operator_types_failure_t *err) {
  size_t size = wasmill_plugin_aggregate.accumulator, count = accumulators->ends.len;
  uint8_t *open = wasmill_alloc(count * size + size);
  *ret = (exports_wasmill_operator_aggregate_folded_t){0};
  struct {
    wasmill_operator_types_rejected_t *items;
    size_t count, max;
  } rejected = {0};
  wasmill_bytes error = {NULL, 0};
  for (size_t i = 0; i < count && error.len == 0; i++)
    if (!decode(wasmill_row(accumulators, i), open + i * size)) error = unreadable(wasmill_row(accumulators, i).len);
  for (size_t row = 0; row < groups->len && error.len == 0; row++) {
    wasmill_event event = {(uint32_t)row, 0, row < input->times.len ? input->times.ptr[row] : 0,
                           wasmill_row(&input->keys, row), wasmill_row(&input->values, row)};
    refused = false;
    wasmill_plugin_aggregate.fold(self, open + groups->ptr[row] * size, &event);
    if (refused) {
      wasmill_operator_types_rejected_t one = {event.row, wasmill_give(refusal)};
      WASMILL_PUSH(rejected, one);
    }
  }
  if (error.len == 0) ret->accumulators = encode(open, count);
  ret->rejected.ptr = rejected.items;
  ret->rejected.len = rejected.count;
  free_column(accumulators);
  if (groups->len > 0) free(groups->ptr);
  if (input->times.len > 0) free(input->times.ptr);
  free_column(&input->keys);
  free_column(&input->values);
  if (error.len > 0) return failed(err, error);
  wasmill_end_call();
  return true;
}

bool exports_wasmill_operator_aggregate_merge(wasmill_operator_types_column_t *accumulators, bindings_list_u32_t *groups,
                                              uint32_t count, wasmill_operator_types_column_t *ret,
                                              wasmill_operator_types_failure_t *err) {
  size_t size = wasmill_plugin_aggregate.accumulator;
  uint8_t *merged = wasmill_alloc(count * size + size), *one = wasmill_alloc(size + 1);
  bool *there = wasmill_alloc(count + 1);
  memset(merged, 0, count * size);
  memset(there, 0, count);
  wasmill_bytes error = {NULL, 0};
  for (size_t i = 0; i < groups->len && error.len == 0; i++) {
    uint8_t *into = merged + groups->ptr[i] * size;
    if (!decode(wasmill_row(accumulators, i), one)) error = unreadable(wasmill_row(accumulators, i).len);
    else if (there[groups->ptr[i]]) wasmill_plugin_aggregate.merge(self, into, one);
    else memcpy(into, one, size);
    there[groups->ptr[i]] = true;
  }
  *ret = encode(merged, error.len == 0 ? count : 0);
  free_column(accumulators);
  if (groups->len > 0) free(groups->ptr);
  if (error.len > 0) return failed(err, error);
  wasmill_end_call();
  return true;
}

void wasmill_result(wasmill_results *results, wasmill_bytes value) {
  wasmill_column_push(&results->values, value);
  WASMILL_PUSH(results->panes, results->pane);
}

bool exports_wasmill_operator_aggregate_finish(exports_wasmill_operator_aggregate_panes_t *panes,
                                               wasmill_operator_types_column_t *accumulators,
                                               exports_wasmill_operator_aggregate_results_t *ret,
                                               wasmill_operator_types_failure_t *err) {
  uint8_t *one = wasmill_alloc(wasmill_plugin_aggregate.accumulator + 1);
  wasmill_results results = {0};
  wasmill_bytes error = {NULL, 0};
  for (size_t i = 0; i < accumulators->ends.len && error.len == 0; i++) {
    wasmill_pane pane = {panes->starts.ptr[i], panes->ends.ptr[i], wasmill_row(&panes->keys, i)};
    results.pane = (uint32_t)i;
    if (decode(wasmill_row(accumulators, i), one)) wasmill_plugin_aggregate.finish(self, &pane, one, &results);
    else error = unreadable(wasmill_row(accumulators, i).len);
  }
  *ret = (exports_wasmill_operator_aggregate_results_t){wasmill_column_lend(&results.values),
                                                        {results.panes.items, results.panes.count}};
  if (panes->starts.len > 0) free(panes->starts.ptr), free(panes->ends.ptr);
  free_column(&panes->keys);
  free_column(accumulators);
  if (error.len > 0) return failed(err, error);
  wasmill_end_call();
  return true;
}
