/* What the sources of the SDK share. */
#ifndef WASMILL_INTERNAL_H
#define WASMILL_INTERNAL_H

#include <stdlib.h>

#include "bindings.h"
#include "wasmill.h"

/* A column that grows. The memory is handed to the host, or freed. */
typedef struct {
  uint32_t *ends;
  size_t rows, rows_max;
  uint8_t *data;
  size_t len, len_max;
} wasmill_column;

void wasmill_column_push(wasmill_column *column, wasmill_bytes row);
void wasmill_column_truncate(wasmill_column *column, size_t rows);
void wasmill_column_free(wasmill_column *column);
wasmill_operator_types_column_t wasmill_column_lend(const wasmill_column *column);
wasmill_bytes wasmill_row(const wasmill_operator_types_column_t *column, size_t row);

/* Grows an array to hold one more item. */
void *wasmill_grow(void *items, size_t *max, size_t count, size_t size);
#define WASMILL_PUSH(array, item)                                                                        \
  do {                                                                                                   \
    (array).items = wasmill_grow((array).items, &(array).max, (array).count, sizeof *(array).items);     \
    (array).items[(array).count++] = (item);                                                             \
  } while (0)

/* Frees what wasmill_alloc() gave. */
void wasmill_end_call(void);
/* Bytes that live to the end of the call. */
wasmill_bytes wasmill_keep(wasmill_bytes bytes);
wasmill_bytes wasmill_vformat(const char *format, va_list words);
/* A string for the host, which frees it. */
bindings_string_t wasmill_give(wasmill_bytes bytes);
void *wasmill_must(void *memory);

struct wasmill_config {
  wasmill_bytes text;
  bool absent;
  wasmill_bytes asked[64];
  size_t asked_count;
  wasmill_bytes error; /* of the first thing that is wrong */
};
void wasmill_config_read(wasmill_config *config, wasmill_bytes text);
/* Ends open(): complains about fields that nobody asked for. Whether all is well. */
bool wasmill_config_done(wasmill_config *config);

#endif
