/* Adds up integers by window. */
#include "wasmill.h"

typedef struct {
  uint64_t sum;
} total;

static void fold(void *self, void *accumulator, const wasmill_event *event) {
  (void)self;
  uint64_t number = 0;
  for (size_t i = 0; i < event->value.len; i++) {
    uint8_t digit = event->value.data[i];
    if (digit < '0' || digit > '9') {
      wasmill_reject_fold("no number");
      return;
    }
    number = number * 10 + (digit - '0');
  }
  if (event->value.len == 0) wasmill_reject_fold("no number");
  else ((total *)accumulator)->sum += number;
}

static void merge(void *self, void *into, const void *other) {
  (void)self;
  ((total *)into)->sum += ((const total *)other)->sum;
}

static void finish(void *self, const wasmill_pane *pane, const void *accumulator, wasmill_results *results) {
  (void)self;
  unsigned long long sum = ((const total *)accumulator)->sum;
  wasmill_result(results, wasmill_format("%lld..%lld %.*s %llu", (long long)pane->start, (long long)pane->end,
                                         (int)pane->key.len, (const char *)pane->key.data, sum));
  if (sum > 100) wasmill_result(results, wasmill_text("much"));
}

WASMILL_AGGREGATE(.accumulator = sizeof(total), .fold = fold, .merge = merge, .finish = finish);
