// Adds up integers by window.
#include "wasmill.hpp"

struct Sum {
  using Accumulator = uint64_t;

  void fold(uint64_t &sum, const wasmill::Event &event) {
    uint64_t number = 0;
    for (char digit : event.text()) {
      if (digit < '0' || digit > '9') return wasmill::reject_fold("no number");
      number = number * 10 + static_cast<uint64_t>(digit - '0');
    }
    if (event.text().empty()) return wasmill::reject_fold("no number");
    sum += number;
  }

  void merge(uint64_t &into, uint64_t other) { into += other; }

  void finish(const wasmill::Pane &pane, uint64_t sum, wasmill::Results &results) {
    results.emit(std::to_string(pane.start) + ".." + std::to_string(pane.end) + " " + std::string(pane.key_text()) +
                 " " + std::to_string(sum));
    if (sum > 100) results.emit("much");
  }
};

WASMILL_AGGREGATE_CLASS(Sum);
