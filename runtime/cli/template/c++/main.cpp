// Lets an event through when its number is a new record for its key.
#include "wasmill.hpp"

struct Records {
  std::string field;
  // It belongs to the key of the event at hand.
  wasmill::Value<double> highest;

  void open(wasmill::Config &config, wasmill::Setup &setup) {
    field = config.string("field");
    highest = setup.value<double>("highest");
  }

  void event(const wasmill::Event &event, wasmill::Context &ctx) {
    std::optional<double> number = event.number(field.c_str());
    if (!number) {
      // It goes to the dead letters, the rest goes on.
      ctx.reject("field `" + field + "` is missing, expected a number");
      return;
    }
    std::optional<double> before = highest.get();
    if (!before || *number > *before) {
      highest.set(*number);
      ctx.forward();
    }
  }
};

WASMILL_OPERATOR_CLASS(Records);
