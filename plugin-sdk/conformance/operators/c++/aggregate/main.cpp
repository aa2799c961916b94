// Adds up integers by window: C++ has the aggregates of wasmill.h, with functions of its own.
#include "wasmill.hpp"

namespace {

struct Total {
  uint64_t sum;
};

void fold(void *, void *accumulator, const wasmill_event *event) {
  uint64_t number = 0;
  for (char digit : wasmill::view(event->value)) {
    if (digit < '0' || digit > '9') return wasmill_reject_fold("no number");
    number = number * 10 + static_cast<uint64_t>(digit - '0');
  }
  if (event->value.len == 0) return wasmill_reject_fold("no number");
  static_cast<Total *>(accumulator)->sum += number;
}

void merge(void *, void *into, const void *other) {
  static_cast<Total *>(into)->sum += static_cast<const Total *>(other)->sum;
}

void finish(void *, const wasmill_pane *pane, const void *accumulator, wasmill_results *results) {
  uint64_t sum = static_cast<const Total *>(accumulator)->sum;
  std::string text = std::to_string(pane->start) + ".." + std::to_string(pane->end) + " " +
                     std::string(wasmill::view(pane->key)) + " " + std::to_string(sum);
  wasmill_result(results, wasmill::lend(text));
  if (sum > 100) wasmill_result(results, wasmill_text("much"));
}

}  // namespace

extern "C" WASMILL_AGGREGATE(.columns = 0, .size = 0, .accumulator = sizeof(Total), .open = nullptr, .fold = fold,
                             .merge = merge, .finish = finish);
