/* A basket per key: sub-keys are numbers, a timer empties it; and a count. */
#include "wasmill_test.h"

#include <stdlib.h>

typedef struct {
  wasmill_space *items, *seen;
  int64_t wait;
} baskets;

/* Version 1 was text, and had entries of nothing. */
static bool from_text(uint32_t from_version, wasmill_bytes old, wasmill_bytes *now) {
  (void)from_version;
  *now = wasmill_u64(strtoull((const char *)wasmill_format("%.*s", (int)old.len, (const char *)old.data).data, NULL, 10));
  return old.len > 0;
}

static void open_baskets(void *state, wasmill_config *config, wasmill_setup *setup) {
  baskets *self = state;
  int64_t ten = 10;
  self->items = wasmill_map(setup, "items", NULL);
  wasmill_space_options counts = {.version = 2, .migrates_from = 1, .migrate = from_text};
  self->seen = wasmill_value(setup, "seen", &counts);
  self->wait = wasmill_config_integer(config, "wait", &ten);
}

static void event(void *state, const wasmill_event *event, wasmill_context *ctx) {
  baskets *self = state;
  wasmill_set_u64(self->seen, wasmill_get_u64(self->seen, 0) + 1);
  int64_t number;
  if (!wasmill_json_integer(wasmill_json_field(event->value, "n"), &number)) {
    wasmill_reject(ctx, "n is no integer in %.*s", (int)event->value.len, (const char *)event->value.data);
    return;
  }
  if (number == 0) {
    wasmill_forward(ctx);
    return;
  }
  wasmill_map_set(self->items, wasmill_key_i64(number), wasmill_format("%lld", (long long)number));
  wasmill_set_timer(ctx, WASMILL_EVENT_TIME, event->time + self->wait, wasmill_text("close"));
}

static void on_timer(void *state, const wasmill_timer *timer, wasmill_context *ctx) {
  baskets *self = state;
  (void)timer;
  const wasmill_entry *all;
  size_t count = wasmill_map_entries(self->items, &all);
  wasmill_bytes text = wasmill_text("");
  for (size_t i = 0; i < count; i++) {
    text = wasmill_format("%.*s%s%.*s", (int)text.len, (const char *)text.data, i == 0 ? "" : ",", (int)all[i].value.len,
                          (const char *)all[i].value.data);
    wasmill_map_delete(self->items, all[i].subkey);
  }
  wasmill_emit(ctx, text);
}

WASMILL_OPERATOR(.size = sizeof(baskets), .open = open_baskets, .event = event, .timer = on_timer);

int main(void) {
  EXPECT(strcmp(wasmill_test_open("{\"wait\":\"x\"}"), "config: `wait`: expected an integer, found \"x\"") == 0);
  EXPECT(strcmp(wasmill_test_open("{\"wiat\":1}"), "config: `wiat`: unknown field `wiat`, expected `wait`") == 0);
  EXPECT(strcmp(wasmill_test_open("[1]"), "config: expected an object, found [1]") == 0);
  EXPECT(wasmill_test_open("{\"wait\":5}") == NULL);

  const char *const events[] = {"k", "{\"n\":3}", "k", "what?", "k", "{\"n\":-1}", "k", "{\"n\":0}", "k", "{\"n\":20}", NULL};
  wasmill_test_send_all(0, 1, events);
  EXPECT(wasmill_test_count() == 1);
  EXPECT_VALUE(0, "{\"n\":0}");
  EXPECT(wasmill_test_rejected_count() == 1);
  EXPECT(strcmp(wasmill_test_rejected_at(0), "n is no integer in what?") == 0);
  size_t len;
  const uint8_t *seen = wasmill_test_state(1, "k", "", &len);
  EXPECT(seen != NULL && len == 8 && seen[0] == 4); /* a rejected event leaves no trace */

  EXPECT(wasmill_test_restart() == NULL);
  EXPECT(wasmill_test_migrate(1, 1, "old", "41") == NULL);
  EXPECT(wasmill_test_migrate(1, 1, "none", "") == NULL);
  seen = wasmill_test_state(1, "old", "", &len);
  EXPECT(seen != NULL && len == 8 && seen[0] == 41);
  EXPECT(wasmill_test_state(1, "none", "", &len) == NULL);
  EXPECT(strcmp(wasmill_test_migrate(1, 7, "k", ""), "state space `seen` has version 2, and no migration from version 7") == 0);

  wasmill_test_watermark(5);
  EXPECT(wasmill_test_count() == 1);
  wasmill_test_watermark(6);
  EXPECT_VALUE(1, "-1,3,20");
  EXPECT(wasmill_test_row_at(1)->time == 6);
  return 0;
}
