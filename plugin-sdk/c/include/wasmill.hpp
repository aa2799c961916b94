// Write Wasmill operators in C++20: RAII and types over wasmill.h.
//
// An operator is a struct with event(), and whichever of open(), batch(), timer() and watermark() it
// needs; WASMILL_OPERATOR_CLASS makes it the plugin. An aggregate is a struct with a type Accumulator,
// fold(), merge() and finish(), and open() if it needs it; WASMILL_AGGREGATE_CLASS makes it the plugin. Exceptions are off: Context::reject() rejects.
#pragma once

#include <cstdlib>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "wasmill.h"

namespace wasmill {

inline wasmill_bytes lend(std::string_view text) {
  return {reinterpret_cast<const uint8_t *>(text.data()), text.size()};
}
inline std::string_view view(wasmill_bytes bytes) {
  return {reinterpret_cast<const char *>(bytes.data), bytes.len};
}

struct Event : wasmill_event {
  std::string_view key_text() const { return view(key); }
  std::string_view text() const { return view(value); }
  wasmill_json field(const char *name) const { return wasmill_json_field(value, name); }
  std::optional<double> number(const char *name) const {
    double number;
    return wasmill_json_number(field(name), &number) ? std::optional(number) : std::nullopt;
  }
};

struct Row {
  std::string_view value;
  std::optional<std::string_view> key = {};
  std::optional<int64_t> time = {};
  uint16_t port = 0;
};

class Context {
 public:
  explicit Context(wasmill_context *raw) : raw_(raw) {}
  void forward(uint16_t port = 0) { wasmill_forward_to(raw_, port); }
  void emit(std::string_view value) { wasmill_emit(raw_, lend(value)); }
  void emit(const Row &row) {
    wasmill_bytes key = lend(row.key.value_or(""));
    int64_t time = row.time.value_or(0);
    wasmill_emit_row(raw_, row.port, lend(row.value), row.key ? &key : nullptr, row.time ? &time : nullptr);
  }
  // Rejects the event at hand. Return afterwards.
  void reject(std::string_view reason) {
    wasmill_reject(raw_, "%.*s", static_cast<int>(reason.size()), reason.data());
  }
  void set_timer(int64_t at, std::string_view tag = "", wasmill_clock clock = WASMILL_EVENT_TIME) {
    wasmill_set_timer(raw_, clock, at, lend(tag));
  }
  void delete_timer(std::string_view tag = "", wasmill_clock clock = WASMILL_EVENT_TIME) {
    wasmill_delete_timer(raw_, clock, lend(tag));
  }
  int64_t now(wasmill_clock clock = WASMILL_EVENT_TIME) const { return wasmill_now(raw_, clock); }
  uint32_t count() const { return wasmill_count(raw_); }
  Event at(uint32_t row) const { return Event{wasmill_event_at(raw_, row)}; }
  void enter(const Event &event) { wasmill_enter(raw_, &event); }
  wasmill_context *raw() const { return raw_; }

 private:
  wasmill_context *raw_;
};

// How a type becomes bytes: the same in every language.
template <typename T>
struct Codec;
template <>
struct Codec<uint64_t> {
  static uint64_t get(wasmill_space *space, uint64_t fallback) { return wasmill_get_u64(space, fallback); }
  static void set(wasmill_space *space, uint64_t value) { wasmill_set_u64(space, value); }
};
template <>
struct Codec<double> {
  static double get(wasmill_space *space, double fallback) { return wasmill_get_f64(space, fallback); }
  static void set(wasmill_space *space, double value) { wasmill_set_f64(space, value); }
};
template <>
struct Codec<std::string> {
  static std::string get(wasmill_space *space, std::string fallback) {
    wasmill_bytes found;
    return wasmill_get(space, &found) ? std::string(view(found)) : fallback;
  }
  static void set(wasmill_space *space, const std::string &value) { wasmill_set(space, lend(value)); }
};

// One value per event key.
template <typename T>
class Value {
 public:
  Value() = default;
  explicit Value(wasmill_space *space) : space_(space) {}
  std::optional<T> get() const {
    wasmill_bytes found;
    if (!wasmill_get(space_, &found)) return std::nullopt;
    return Codec<T>::get(space_, T{});
  }
  T get_or(T fallback) const { return Codec<T>::get(space_, fallback); }
  void set(const T &value) { Codec<T>::set(space_, value); }
  void erase() { wasmill_delete(space_); }

 private:
  wasmill_space *space_ = nullptr;
};

// A map per event key, of bytes; keys of integers through wasmill_key_i64.
class Map {
 public:
  Map() = default;
  explicit Map(wasmill_space *space) : space_(space) {}
  std::optional<std::string_view> get(std::string_view key) const {
    wasmill_bytes found;
    if (!wasmill_map_get(space_, lend(key), &found)) return std::nullopt;
    return view(found);
  }
  void set(std::string_view key, std::string_view value) { wasmill_map_set(space_, lend(key), lend(value)); }
  void erase(std::string_view key) { wasmill_map_delete(space_, lend(key)); }
  std::span<const wasmill_entry> entries() const {
    const wasmill_entry *all;
    size_t count = wasmill_map_entries(space_, &all);
    return {all, count};
  }
  void clear() {
    for (const wasmill_entry &entry : entries()) wasmill_map_delete(space_, entry.subkey);
  }

 private:
  wasmill_space *space_ = nullptr;
};

class Config {
 public:
  explicit Config(wasmill_config *raw) : raw_(raw) {}
  std::string string(const char *name) { return wasmill_config_string(raw_, name, nullptr); }
  std::string string(const char *name, const char *fallback) { return wasmill_config_string(raw_, name, fallback); }
  int64_t integer(const char *name) { return wasmill_config_integer(raw_, name, nullptr); }
  int64_t integer(const char *name, int64_t fallback) { return wasmill_config_integer(raw_, name, &fallback); }
  double number(const char *name) { return wasmill_config_number(raw_, name, nullptr); }
  bool boolean(const char *name, bool fallback) { return wasmill_config_bool(raw_, name, fallback); }
  void wrong(const char *name, const char *message) { wasmill_config_wrong(raw_, name, message); }

 private:
  wasmill_config *raw_;
};

class Setup {
 public:
  explicit Setup(wasmill_setup *raw) : raw_(raw) {}
  template <typename T>
  Value<T> value(const char *name, const wasmill_space_options *options = nullptr) {
    return Value<T>(wasmill_value(raw_, name, options));
  }
  Map map(const char *name, const wasmill_space_options *options = nullptr) {
    return Map(wasmill_map(raw_, name, options));
  }
  wasmill_setup *raw() const { return raw_; }

 private:
  wasmill_setup *raw_;
};

template <typename T>
constexpr wasmill_operator operator_of() {
  wasmill_operator made{};
  made.size = sizeof(T);
  made.open = [](void *self, wasmill_config *config, wasmill_setup *setup) {
    T *made = new (self) T();
    if constexpr (requires(Config c, Setup s) { made->open(c, s); }) {
      Config c(config);
      Setup s(setup);
      made->open(c, s);
    }
  };
  if constexpr (requires(T t, Event e, Context c) { t.event(e, c); }) {
    made.event = [](void *self, const wasmill_event *event, wasmill_context *ctx) {
      Context c(ctx);
      static_cast<T *>(self)->event(Event{*event}, c);
    };
  }
  if constexpr (requires(T t, Context c) { t.batch(c); }) {
    made.batch = [](void *self, wasmill_context *ctx) {
      Context c(ctx);
      static_cast<T *>(self)->batch(c);
    };
  }
  if constexpr (requires(T t, wasmill_timer e, Context c) { t.timer(e, c); }) {
    made.timer = [](void *self, const wasmill_timer *timer, wasmill_context *ctx) {
      Context c(ctx);
      static_cast<T *>(self)->timer(*timer, c);
    };
  }
  if constexpr (requires(T t, int64_t w, Context c) { t.watermark(w, c); }) {
    made.watermark = [](void *self, int64_t watermark, wasmill_context *ctx) {
      Context c(ctx);
      static_cast<T *>(self)->watermark(watermark, c);
    };
  }
  if constexpr (requires { T::inputs; }) made.inputs = T::inputs;
  if constexpr (requires { T::outputs; }) made.outputs = T::outputs;
  return made;
}

// A window that fires, for one key: [start, end).
struct Pane : wasmill_pane {
  std::string_view key_text() const { return view(key); }
};

class Results {
 public:
  explicit Results(wasmill_results *raw) : raw_(raw) {}
  void emit(std::string_view value) { wasmill_result(raw_, lend(value)); }

 private:
  wasmill_results *raw_;
};

// In fold(): rejects the event. The accumulator may not have been changed. Return afterwards.
inline void reject_fold(std::string_view reason) {
  wasmill_reject_fold("%.*s", static_cast<int>(reason.size()), reason.data());
}

template <typename T>
constexpr wasmill_aggregate aggregate_of() {
  using Accumulator = typename T::Accumulator;
  static_assert(std::is_trivially_copyable_v<Accumulator>, "the host keeps the bytes of an accumulator");
  wasmill_aggregate made{};
  made.size = sizeof(T);
  made.accumulator = sizeof(Accumulator);
  made.open = [](void *self, wasmill_config *config) {
    [[maybe_unused]] T *made = new (self) T();
    if constexpr (requires(Config c) { made->open(c); }) {
      Config c(config);
      made->open(c);
    } else {
      (void)config;
    }
  };
  made.fold = [](void *self, void *accumulator, const wasmill_event *event) {
    static_cast<T *>(self)->fold(*static_cast<Accumulator *>(accumulator), Event{*event});
  };
  made.merge = [](void *self, void *into, const void *other) {
    static_cast<T *>(self)->merge(*static_cast<Accumulator *>(into), *static_cast<const Accumulator *>(other));
  };
  made.finish = [](void *self, const wasmill_pane *pane, const void *accumulator, wasmill_results *results) {
    Results out(results);
    static_cast<T *>(self)->finish(Pane{*pane}, *static_cast<const Accumulator *>(accumulator), out);
  };
  return made;
}

}  // namespace wasmill

#define WASMILL_OPERATOR_CLASS(type) \
  extern "C" const wasmill_operator wasmill_plugin = wasmill::operator_of<type>()
#define WASMILL_AGGREGATE_CLASS(type) \
  extern "C" const wasmill_aggregate wasmill_plugin_aggregate = wasmill::aggregate_of<type>()
