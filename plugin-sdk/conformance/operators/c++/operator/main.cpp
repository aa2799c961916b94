// Every case of the conformance suite that is an operator: `config.op` says which.
#include <algorithm>
#include <string>

#include "wasmill.hpp"

using wasmill::Context;
using wasmill::Event;

struct Conformance {
  static constexpr const char *const inputs[] = {"left", "right", nullptr};
  static constexpr const char *const outputs[] = {"out", "side", nullptr};

  std::string op;
  wasmill::Value<uint64_t> seen;
  wasmill::Value<std::string> last;
  wasmill::Map items, places;

  void open(wasmill::Config &config, wasmill::Setup &setup) {
    op = config.string("op");
    if (config.integer("limit", 1) < 1) config.wrong("limit", "expected at least 1");
    // What version 1 has left: counts in text, "0" for none, and items without a mark.
    uint32_t version = op == "migrate" ? 2 : 1;
    wasmill_space_options counts{.version = version, .migrates_from = 1, .migrate = [](uint32_t, wasmill_bytes old, wasmill_bytes *now) {
      uint64_t count = std::strtoull(std::string(wasmill::view(old)).c_str(), nullptr, 10);
      *now = wasmill_u64(count);
      return count > 0;
    }};
    wasmill_space_options marked{.version = version, .migrates_from = 1, .migrate = [](uint32_t, wasmill_bytes old, wasmill_bytes *now) {
      *now = wasmill_format("%.*s!", static_cast<int>(old.len), reinterpret_cast<const char *>(old.data));
      return true;
    }};
    seen = setup.value<uint64_t>("seen", &counts);
    last = setup.value<std::string>("last");
    items = setup.map("items", &marked);
    places = setup.map("places");
  }

  std::string count() {
    uint64_t count = seen.get_or(0) + 1;
    seen.set(count);
    return std::to_string(count);
  }

  void event(const Event &event, Context &ctx) {
    wasmill_count_metric("events", 1);
    std::string value(event.text());
    if (op == "filter") {
      if (value.find('x') != std::string::npos) ctx.forward();
    } else if (op == "map") {
      for (char &c : value)
        if (c >= 'a' && c <= 'z') c -= 32;
      ctx.emit(value);
    } else if (op == "flat-map") {
      for (size_t start = 0; start <= value.size();) {
        size_t end = std::min(value.find(' ', start), value.size());
        if (end > start) ctx.emit(value.substr(start, end - start));
        start = end + 1;
      }
    } else if (op == "count") {
      ctx.emit(count());
    } else if (op == "migrate") {
      ctx.emit(count());
      ctx.emit(listed());
    } else if (op == "timers") {
      if (value == "cancel") ctx.delete_timer("a");
      else ctx.set_timer(event.time + 10, value);
    } else if (op == "two-inputs") {
      if (event.port == 0) last.set(value);
      else ctx.emit(last.get_or("nothing") + "|" + value);
    } else if (op == "side") {
      if (value.size() % 2 == 0) ctx.forward();
      else ctx.emit(wasmill::Row{.value = value, .key = "odd", .time = event.time + 1, .port = 1});
    } else if (op == "reject") {
      ctx.emit(count());
      ctx.set_timer(event.time + 10, "t");
      if (value == "bad") ctx.reject("the value is bad");
    } else if (op == "map-state") {
      map_state(value, ctx);
    } else if (op == "numbers") {
      numbers(value, ctx);
    } else if (op == "text") {
      if (!wasmill_is_utf8(event.value)) return ctx.reject("not UTF-8");
      ctx.emit(std::to_string(std::count_if(value.begin(), value.end(), [](char c) { return (c & 0xc0) != 0x80; })));
    } else if (op == "bytes") {
      std::string key(event.key_text());
      std::reverse(key.begin(), key.end());
      std::reverse(value.begin(), value.end());
      ctx.emit(wasmill::Row{.value = value, .key = key});
    }
  }

  std::string listed() {
    std::string all;
    for (const wasmill_entry &entry : items.entries()) {
      if (!all.empty()) all += ',';
      all.append(wasmill::view(entry.subkey)).append("=").append(wasmill::view(entry.value));
    }
    return all;
  }

  void map_state(const std::string &text, Context &ctx) {
    size_t equals = std::min(text.find('='), text.size());
    std::string name = text.substr(0, equals);
    std::string bare = name.substr(0, name.size() - 1);
    if (name == "*") {
      ctx.emit(listed());
    } else if (name.ends_with('?')) {
      ctx.emit(items.get(bare).value_or("none"));
    } else if (name.ends_with('!')) {
      items.erase(bare);
    } else {
      items.set(name, equals < text.size() ? text.substr(equals + 1) : "");
    }
  }

  void numbers(const std::string &text, Context &ctx) {
    if (text != "*") return places.set(wasmill::view(wasmill_key_i64(std::atoll(text.c_str()))), text);
    std::string all;
    for (const wasmill_entry &entry : places.entries()) {
      if (!all.empty()) all += ',';
      all += std::to_string(wasmill_unkey_i64(entry.subkey)) + ":" + std::string(wasmill::view(entry.value));
    }
    places.clear();
    ctx.emit(all);
  }

  void timer(const wasmill_timer &timer, Context &ctx) {
    ctx.emit(std::string(wasmill::view(timer.tag)) + " at " + std::to_string(timer.time) + ", number " + count());
  }
};

WASMILL_OPERATOR_CLASS(Conformance);
