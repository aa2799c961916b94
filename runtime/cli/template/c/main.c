/* Lets an event through when its number is a new record for its key. */
#include "wasmill.h"

typedef struct {
  const char *field;
  /* It belongs to the key of the event at hand. */
  wasmill_space *highest;
} records;

static void open_records(void *state, wasmill_config *config, wasmill_setup *setup) {
  records *self = state;
  self->field = wasmill_config_string(config, "field", NULL);
  self->highest = wasmill_value(setup, "highest", NULL);
}

static void event(void *state, const wasmill_event *event, wasmill_context *ctx) {
  records *self = state;
  double number;
  if (!wasmill_json_number(wasmill_json_field(event->value, self->field), &number)) {
    /* It goes to the dead letters, the rest goes on. */
    wasmill_reject(ctx, "field `%s` is missing, expected a number", self->field);
    return;
  }
  wasmill_bytes found;
  if (!wasmill_get(self->highest, &found) || number > wasmill_get_f64(self->highest, 0)) {
    wasmill_set_f64(self->highest, number);
    wasmill_forward(ctx);
  }
}

WASMILL_OPERATOR(.size = sizeof(records), .open = open_records, .event = event);
