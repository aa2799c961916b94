#include "wasmill_test.h"

int main(void) {
  /* Only records go on. */
  EXPECT(wasmill_test_open("{\"field\": \"n\"}") == NULL);
  const char *const events[] = {"a", "{\"n\": 2}", "a", "{\"n\": 1}", "b", "{\"n\": 1}", "a", "{\"n\": 3}", NULL};
  wasmill_test_send_all(0, 0, events);
  EXPECT(wasmill_test_count() == 3);
  EXPECT_VALUE(2, "{\"n\": 3}");

  /* Records outlive an instance. */
  EXPECT(wasmill_test_restart() == NULL);
  wasmill_test_send("a", "{\"n\": 1}");
  EXPECT(wasmill_test_count() == 3);

  /* An event without the number is rejected. */
  wasmill_test_send("a", "{}");
  EXPECT(wasmill_test_rejected_count() == 1);
  EXPECT(strcmp(wasmill_test_rejected_at(0), "field `n` is missing, expected a number") == 0);
  return 0;
}
