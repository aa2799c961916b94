/* Runs an operator without a host, for its author's tests. Compile it with the machine's compiler:
 *
 *   cc -DWASMILL_STATEFUL -DWASMILL_PLUGIN_NAME='"x"' -DWASMILL_PLUGIN_VERSION='"0"' -I sdk/c/include \
 *      -I sdk/c/bindings/stateful -I sdk/c/testing main.c test.c sdk/c/src/{common,operator,state}.c \
 *      sdk/c/testing/host.c */
#ifndef WASMILL_TEST_H
#define WASMILL_TEST_H

#include "wasmill.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Opens the operator on no state, or on the state that is there. NULL, or what is wrong. */
const char *wasmill_test_open(const char *config);
const char *wasmill_test_restart(void);
/* Takes over an entry that an older version has left in a space of values. NULL, or what is wrong. */
const char *wasmill_test_migrate(uint16_t space, uint32_t from_version, const char *key, const char *value);
/* One event, as a call of its own. */
void wasmill_test_send(const char *key, const char *value);
/* Events of one time by one port in one call: keys and values in turns, up to NULL. */
void wasmill_test_send_all(uint16_t port, int64_t time, const char *const *events);
/* The watermark rises: event timers fire, and the operator hears of it. */
void wasmill_test_watermark(int64_t time);

/* What came out so far, and why events were rejected. */
typedef struct {
  uint16_t port;
  int64_t time;
  char *key, *value;
} wasmill_test_row;
size_t wasmill_test_count(void);
const wasmill_test_row *wasmill_test_row_at(size_t place);
size_t wasmill_test_rejected_count(void);
const char *wasmill_test_rejected_at(size_t place);
/* Bytes of the state under a key and sub-key; NULL where there are none. */
const uint8_t *wasmill_test_state(uint16_t space, const char *key, const char *subkey, size_t *len);

/* Ends the program with 1 where something is not as expected. */
void wasmill_test_expect(bool holds, const char *what, const char *file, int line);
#define EXPECT(holds) wasmill_test_expect((holds), #holds, __FILE__, __LINE__)
#define EXPECT_VALUE(place, expected)                                                                        \
  wasmill_test_expect((place) < wasmill_test_count() && strcmp(wasmill_test_row_at(place)->value, expected) == 0, \
                      "value " #place " is " #expected, __FILE__, __LINE__)

#ifdef __cplusplus
}
#endif
#endif
