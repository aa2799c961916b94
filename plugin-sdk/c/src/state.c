/* State by the key of the event at hand. A call fetches the values of its keys together, keeps them
 * for the call, and writes what has changed together at its end. Nothing is kept between calls: an
 * instance can be replaced at any of them. */
#include "state.h"

typedef struct {
  wasmill_bytes key, subkey, value;
  bool there, dirty;
  uint32_t hash;
} cell;

typedef struct {
  uint32_t place;
  cell old;
} change;

struct wasmill_space {
  wasmill_space_info info;
  wasmill_setup *setup;
  uint16_t number;
  bool is_map;
  struct {
    cell *items;
    size_t count, max;
  } cells;
  /* Open addressing: place + 1, 0 is free; a power of two, at most half full. */
  uint32_t *table;
  size_t table_size;
  struct {
    change *items;
    size_t count, max;
  } journal;
  struct {
    wasmill_bytes *items;
    size_t count, max;
  } complete;
};

enum { PAGE = 1024 };
static wasmill_bytes current;
static bool in_row;

const wasmill_space_info *wasmill_space_about(const wasmill_space *space) { return &space->info; }

static wasmill_space *declare(wasmill_setup *setup, const char *name, const wasmill_space_options *options, bool map) {
  if (setup->count == WASMILL_SPACES_MAX) abort();
  wasmill_space *space = wasmill_must(calloc(1, sizeof *space));
  space->info = (wasmill_space_info){name, options == NULL ? (wasmill_space_options){0} : *options};
  if (space->info.options.version == 0) space->info.options.version = 1;
  space->setup = setup;
  space->number = (uint16_t)setup->count;
  space->is_map = map;
  setup->spaces[setup->count++] = space;
  return space;
}

wasmill_space *wasmill_value(wasmill_setup *setup, const char *name, const wasmill_space_options *options) {
  return declare(setup, name, options, false);
}

wasmill_space *wasmill_map(wasmill_setup *setup, const char *name, const wasmill_space_options *options) {
  return declare(setup, name, options, true);
}

/* FNV-1a over both parts, the length of the first between them. */
static uint32_t hash_of(wasmill_bytes key, wasmill_bytes subkey) {
  uint32_t hash = 2166136261u;
  for (size_t i = 0; i < key.len; i++) hash = (hash ^ key.data[i]) * 16777619u;
  hash = (hash ^ (uint32_t)key.len) * 16777619u;
  for (size_t i = 0; i < subkey.len; i++) hash = (hash ^ subkey.data[i]) * 16777619u;
  return hash ^ hash >> 15;
}

static void rehash(wasmill_space *space) {
  space->table_size = space->table_size == 0 ? 64 : space->table_size * 2;
  free(space->table);
  space->table = wasmill_must(calloc(space->table_size, sizeof(uint32_t)));
  for (size_t i = 0; i < space->cells.count; i++) {
    size_t at = space->cells.items[i].hash & (space->table_size - 1);
    while (space->table[at] != 0) at = (at + 1) & (space->table_size - 1);
    space->table[at] = (uint32_t)i + 1;
  }
}

/* The cell of a place; `*fresh` where there was none: what it holds is not known yet. */
static cell *find(wasmill_space *space, wasmill_bytes key, wasmill_bytes subkey, bool *fresh) {
  if (space->cells.count * 2 >= space->table_size) rehash(space);
  uint32_t hash = hash_of(key, subkey);
  size_t at = hash & (space->table_size - 1);
  for (; space->table[at] != 0; at = (at + 1) & (space->table_size - 1)) {
    cell *one = &space->cells.items[space->table[at] - 1];
    if (one->hash == hash && wasmill_equal(one->key, key) && wasmill_equal(one->subkey, subkey)) {
      *fresh = false;
      return one;
    }
  }
  cell made = {wasmill_keep(key), wasmill_keep(subkey), {NULL, 0}, false, false, hash};
  WASMILL_PUSH(space->cells, made);
  space->table[at] = (uint32_t)space->cells.count;
  *fresh = true;
  return &space->cells.items[space->cells.count - 1];
}

/* Looks up the cells from `first` on. */
static void fetch(wasmill_space *space, size_t first) {
  size_t rows = space->cells.count - first;
  if (rows == 0) return;
  wasmill_column keys = {0}, subkeys = {0};
  for (size_t i = first; i < space->cells.count; i++) {
    wasmill_column_push(&keys, space->cells.items[i].key);
    wasmill_column_push(&subkeys, space->cells.items[i].subkey);
  }
  wasmill_operator_types_column_t lent = wasmill_column_lend(&keys), lent_subkeys = wasmill_column_lend(&subkeys);
  wasmill_operator_state_tuple2_list_u64_column_t found;
  wasmill_operator_state_get_many(space->number, &lent, &lent_subkeys, &found);
  for (size_t i = 0; i < rows; i++) {
    cell *one = &space->cells.items[first + i];
    one->there = found.f0.ptr[i / 64] >> (i % 64) & 1;
    if (one->there) one->value = wasmill_keep(wasmill_row(&found.f1, i));
  }
  free(found.f0.ptr);
  if (found.f1.ends.len > 0) free(found.f1.ends.ptr);
  if (found.f1.data.len > 0) free(found.f1.data.ptr);
  wasmill_column_free(&keys);
  wasmill_column_free(&subkeys);
}

static const wasmill_bytes none = {(const uint8_t *)"", 0};

void wasmill_state_begin(wasmill_setup *setup, const wasmill_operator_types_column_t *keys, size_t rows) {
  wasmill_state_forget(setup);
  for (size_t s = 0; s < setup->count; s++) {
    if (setup->spaces[s]->is_map) continue;
    bool fresh;
    for (size_t row = 0; row < rows; row++) find(setup->spaces[s], wasmill_row(keys, row), none, &fresh);
    fetch(setup->spaces[s], 0);
  }
}

void wasmill_state_enter(wasmill_setup *setup, wasmill_bytes key) {
  current = key;
  in_row = true;
  for (size_t s = 0; s < setup->count; s++) setup->spaces[s]->journal.count = 0;
}

void wasmill_state_undo(wasmill_setup *setup) {
  for (size_t s = 0; s < setup->count; s++) {
    wasmill_space *space = setup->spaces[s];
    while (space->journal.count > 0) {
      change *last = &space->journal.items[--space->journal.count];
      space->cells.items[last->place] = last->old;
    }
  }
}

void wasmill_state_finish(wasmill_setup *setup) {
  for (size_t s = 0; s < setup->count; s++) {
    wasmill_space *space = setup->spaces[s];
    wasmill_column keys = {0}, subkeys = {0}, values = {0}, gone = {0}, gone_subkeys = {0};
    for (size_t i = 0; i < space->cells.count; i++) {
      cell *one = &space->cells.items[i];
      if (!one->dirty) continue;
      wasmill_column_push(one->there ? &keys : &gone, one->key);
      wasmill_column_push(one->there ? &subkeys : &gone_subkeys, one->subkey);
      if (one->there) wasmill_column_push(&values, one->value);
    }
    wasmill_operator_types_column_t a = wasmill_column_lend(&keys), b = wasmill_column_lend(&subkeys),
                                    c = wasmill_column_lend(&values), d = wasmill_column_lend(&gone),
                                    e = wasmill_column_lend(&gone_subkeys);
    if (keys.rows > 0) wasmill_operator_state_put_many(space->number, &a, &b, &c);
    if (gone.rows > 0) wasmill_operator_state_delete_many(space->number, &d, &e);
    wasmill_column *columns[] = {&keys, &subkeys, &values, &gone, &gone_subkeys};
    for (size_t i = 0; i < 5; i++) wasmill_column_free(columns[i]);
  }
  wasmill_state_forget(setup);
}

void wasmill_state_forget(wasmill_setup *setup) {
  in_row = false;
  for (size_t s = 0; s < setup->count; s++) {
    wasmill_space *space = setup->spaces[s];
    space->cells.count = space->journal.count = space->complete.count = 0;
    if (space->table_size > 0) memset(space->table, 0, space->table_size * sizeof(uint32_t));
  }
}

static void must_have_key(const wasmill_space *space, bool map) {
  if (in_row && space->is_map == map) return;
  wasmill_log(WASMILL_ERROR, "state space `%s`: %s", space->info.name,
              in_row ? "wasmill_get, wasmill_set and wasmill_delete are for values, wasmill_map_… for maps"
                     : "state belongs to the key of an event or a timer, and there is none here");
  abort();
}

static bool is_complete(const wasmill_space *space, wasmill_bytes key) {
  for (size_t i = 0; i < space->complete.count; i++)
    if (wasmill_equal(space->complete.items[i], key)) return true;
  return false;
}

static cell *at(wasmill_space *space, wasmill_bytes subkey, bool map) {
  must_have_key(space, map);
  bool fresh;
  cell *one = find(space, current, subkey, &fresh);
  if (fresh && !is_complete(space, current)) {
    fetch(space, space->cells.count - 1);
    one = &space->cells.items[space->cells.count - 1];
  }
  return one;
}

static void put(wasmill_space *space, wasmill_bytes subkey, bool map, bool there, wasmill_bytes value) {
  cell *one = at(space, subkey, map);
  change old = {(uint32_t)(one - space->cells.items), *one};
  WASMILL_PUSH(space->journal, old);
  one->there = there;
  one->dirty = true;
  one->value = there ? wasmill_keep(value) : (wasmill_bytes){NULL, 0};
}

bool wasmill_get(wasmill_space *value, wasmill_bytes *found) {
  cell *one = at(value, none, false);
  if (one->there) *found = one->value;
  return one->there;
}

void wasmill_set(wasmill_space *value, wasmill_bytes bytes) { put(value, none, false, true, bytes); }
void wasmill_delete(wasmill_space *value) { put(value, none, false, false, none); }

bool wasmill_map_get(wasmill_space *map, wasmill_bytes subkey, wasmill_bytes *found) {
  cell *one = at(map, subkey, true);
  if (one->there) *found = one->value;
  return one->there;
}

void wasmill_map_set(wasmill_space *map, wasmill_bytes subkey, wasmill_bytes bytes) { put(map, subkey, true, true, bytes); }
void wasmill_map_delete(wasmill_space *map, wasmill_bytes subkey) { put(map, subkey, true, false, none); }

static void scan(wasmill_space *space) {
  wasmill_bytes start = none;
  for (;;) {
    bindings_list_u8_t key = {(uint8_t *)current.data, current.len}, from = {(uint8_t *)start.data, start.len};
    wasmill_operator_state_tuple2_column_column_t found;
    wasmill_operator_state_scan(space->number, &key, &from, PAGE, &found);
    size_t rows = found.f0.ends.len;
    for (size_t i = 0; i < rows; i++) {
      bool fresh;
      cell *one = find(space, current, wasmill_row(&found.f0, i), &fresh);
      /* What is in memory is as new or newer. */
      if (fresh) {
        one->there = true;
        one->value = wasmill_keep(wasmill_row(&found.f1, i));
      }
    }
    if (rows == PAGE) {
      wasmill_bytes last = wasmill_row(&found.f0, rows - 1);
      uint8_t *next = wasmill_alloc(last.len + 1);
      memcpy(next, last.data, last.len);
      next[last.len] = 0;
      start = (wasmill_bytes){next, last.len + 1};
    }
    wasmill_operator_types_column_t columns[] = {found.f0, found.f1};
    for (size_t i = 0; i < 2; i++) {
      if (columns[i].ends.len > 0) free(columns[i].ends.ptr);
      if (columns[i].data.len > 0) free(columns[i].data.ptr);
    }
    if (rows < PAGE) break;
  }
  wasmill_bytes key = wasmill_keep(current);
  WASMILL_PUSH(space->complete, key);
}

static int by_subkey(const void *one, const void *other) {
  const wasmill_bytes *a = &((const wasmill_entry *)one)->subkey, *b = &((const wasmill_entry *)other)->subkey;
  int order = memcmp(a->data, b->data, a->len < b->len ? a->len : b->len);
  return order != 0 ? order : (a->len > b->len) - (a->len < b->len);
}

size_t wasmill_map_entries(wasmill_space *map, const wasmill_entry **entries) {
  must_have_key(map, true);
  if (!is_complete(map, current)) scan(map);
  wasmill_entry *own = wasmill_alloc(map->cells.count * sizeof *own);
  size_t count = 0;
  for (size_t i = 0; i < map->cells.count; i++) {
    cell *one = &map->cells.items[i];
    if (one->there && wasmill_equal(one->key, current)) own[count++] = (wasmill_entry){one->subkey, one->value};
  }
  qsort(own, count, sizeof *own, by_subkey);
  *entries = own;
  return count;
}

static uint64_t little(wasmill_bytes bytes, const wasmill_space *space) {
  if (bytes.len != 8) {
    wasmill_log(WASMILL_ERROR, "an entry of state space `%s` cannot be read: 8 bytes are expected, found %u",
                space->info.name, (unsigned)bytes.len);
    abort();
  }
  uint64_t number = 0;
  for (int i = 7; i >= 0; i--) number = number << 8 | bytes.data[i];
  return number;
}

uint64_t wasmill_get_u64(wasmill_space *value, uint64_t fallback) {
  wasmill_bytes found;
  return wasmill_get(value, &found) ? little(found, value) : fallback;
}

wasmill_bytes wasmill_u64(uint64_t number) {
  uint8_t *bytes = wasmill_alloc(8);
  for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)(number >> (8 * i));
  return (wasmill_bytes){bytes, 8};
}

void wasmill_set_u64(wasmill_space *value, uint64_t number) { wasmill_set(value, wasmill_u64(number)); }

double wasmill_get_f64(wasmill_space *value, double fallback) {
  wasmill_bytes found;
  if (!wasmill_get(value, &found)) return fallback;
  uint64_t bits = little(found, value);
  double number;
  memcpy(&number, &bits, 8);
  return number;
}

void wasmill_set_f64(wasmill_space *value, double number) {
  uint64_t bits;
  memcpy(&bits, &number, 8);
  wasmill_set_u64(value, bits);
}

wasmill_bytes wasmill_key_i64(int64_t number) {
  uint64_t bits = (uint64_t)number ^ (uint64_t)1 << 63;
  uint8_t *bytes = wasmill_alloc(8);
  for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)(bits >> (56 - 8 * i));
  return (wasmill_bytes){bytes, 8};
}

int64_t wasmill_unkey_i64(wasmill_bytes subkey) {
  uint64_t bits = 0;
  for (size_t i = 0; i < subkey.len && i < 8; i++) bits = bits << 8 | subkey.data[i];
  return (int64_t)(bits ^ (uint64_t)1 << 63);
}
