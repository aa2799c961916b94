/* The world without state: there is nothing to begin, to undo or to write. */
#include "state.h"

const wasmill_space_info *wasmill_space_about(const wasmill_space *space) {
  (void)space;
  abort();
}
void wasmill_state_begin(wasmill_setup *setup, const wasmill_operator_types_column_t *keys, size_t rows) {
  (void)setup, (void)keys, (void)rows;
}
void wasmill_state_enter(wasmill_setup *setup, wasmill_bytes key) { (void)setup, (void)key; }
void wasmill_state_undo(wasmill_setup *setup) { (void)setup; }
void wasmill_state_finish(wasmill_setup *setup) { (void)setup; }
void wasmill_state_forget(wasmill_setup *setup) { (void)setup; }
