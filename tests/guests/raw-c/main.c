/* Counts events by key on what `wit-bindgen c` makes of world.wit: no SDK has a part in it. */
#include <stdlib.h>
#include <string.h>

#include "counter.h"

/* Lists that the host frees are on the heap. */
static counter_string_t text(const char *text) {
  counter_string_t made;
  counter_string_dup(&made, text);
  return made;
}

static counter_list_string_t one(const char *name) {
  counter_list_string_t list = {malloc(sizeof(counter_string_t)), 1};
  list.ptr[0] = text(name);
  return list;
}

bool exports_wasmill_operator_plugin_describe(counter_list_u8_t *config, exports_wasmill_operator_plugin_descriptor_t *ret,
                                              exports_wasmill_operator_plugin_failure_t *err) {
  (void)err;
  counter_list_u8_free(config);
  memset(ret, 0, sizeof *ret);
  ret->name = text("raw-counter");
  ret->version = text("1.0.0");
  ret->inputs = one("in");
  ret->outputs = one("out");
  ret->columns = EXPORTS_WASMILL_OPERATOR_PLUGIN_COLUMNS_KEYS;
  ret->spaces.ptr = calloc(1, sizeof *ret->spaces.ptr);
  ret->spaces.len = 1;
  ret->spaces.ptr[0].name = text("seen");
  ret->spaces.ptr[0].schema_version = 1;
  return true;
}

bool exports_wasmill_operator_plugin_open(counter_list_u8_t *config, exports_wasmill_operator_plugin_failure_t *err) {
  (void)err;
  counter_list_u8_free(config);
  return true;
}

/* One row at a time: short rather than fast. */
static uint64_t next(wasmill_operator_types_column_t *keys, size_t row) {
  uint32_t start = row == 0 ? 0 : keys->ends.ptr[row - 1], len = keys->ends.ptr[row] - start, none = 0, eight = 8;
  uint64_t count = 0;
  wasmill_operator_types_column_t key = {{&len, 1}, {keys->data.ptr + start, len}};
  wasmill_operator_types_column_t subkey = {{&none, 1}, {(uint8_t *)&none, 0}};
  wasmill_operator_state_tuple2_list_u64_column_t found;
  wasmill_operator_state_get_many(0, &key, &subkey, &found);
  if (found.f0.ptr[0] & 1) memcpy(&count, found.f1.data.ptr, 8);
  wasmill_operator_state_tuple2_list_u64_column_free(&found);
  count++;
  wasmill_operator_types_column_t value = {{&eight, 1}, {(uint8_t *)&count, 8}};
  wasmill_operator_state_put_many(0, &key, &subkey, &value);
  return count;
}

bool exports_wasmill_operator_operator_process(uint16_t port, wasmill_operator_types_batch_t *input,
                                               wasmill_operator_types_outcome_t *ret,
                                               wasmill_operator_types_failure_t *err) {
  (void)port, (void)err;
  size_t rows = input->keys.ends.len, len = 0;
  uint32_t *ends = malloc(rows * sizeof *ends + 1);
  uint8_t *data = malloc(rows * 20 + 1);
  for (size_t row = 0; row < rows; row++) {
    char digits[20];
    size_t many = 0;
    for (uint64_t count = next(&input->keys, row); count > 0; count /= 10) digits[many++] = (char)('0' + count % 10);
    while (many > 0) data[len++] = (uint8_t)digits[--many];
    ends[row] = (uint32_t)len;
  }
  wasmill_operator_types_batch_free(input);
  memset(ret, 0, sizeof *ret);
  ret->emissions.ptr = calloc(1, sizeof *ret->emissions.ptr);
  ret->emissions.len = 1;
  ret->emissions.ptr[0].output.tag = WASMILL_OPERATOR_TYPES_OUTPUT_VALUES;
  ret->emissions.ptr[0].output.val.values = (wasmill_operator_types_column_t){{ends, rows}, {data, len}};
  return true;
}

bool exports_wasmill_operator_operator_flush(wasmill_operator_types_failure_t *err) {
  (void)err;
  return true;
}
