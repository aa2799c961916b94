/* What the driver of an operator asks of state and timers. */
#ifndef WASMILL_STATE_H
#define WASMILL_STATE_H

#include "internal.h"

enum { WASMILL_SPACES_MAX = 32 };

struct wasmill_setup {
  const char *const *outputs;
  wasmill_space *spaces[WASMILL_SPACES_MAX];
  size_t count;
};

typedef struct {
  const char *name;
  wasmill_space_options options;
} wasmill_space_info;

const wasmill_space_info *wasmill_space_about(const wasmill_space *space);
/* Starts a call over rows with these keys: without a key column every row has the empty key. */
void wasmill_state_begin(wasmill_setup *setup, const wasmill_operator_types_column_t *keys, size_t rows);
void wasmill_state_enter(wasmill_setup *setup, wasmill_bytes key);
void wasmill_state_undo(wasmill_setup *setup);
/* Ends a call that succeeds: writes what has changed. */
void wasmill_state_finish(wasmill_setup *setup);
/* Ends a call that fails. */
void wasmill_state_forget(wasmill_setup *setup);

#endif
