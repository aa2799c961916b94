#!/usr/bin/env python3
"""Writes the readings of three bridges over half an hour, as they reach the collector.

    python3 generate.py > sensors.jsonl

The same bytes on every machine: the random numbers are our own (SplitMix64). Of the vehicles

  - most are reported within 1.5 s,
  - 1 in 80 is reported 70 to 200 s after it passed: its minute is over by then,
  - 1 in 40 is reported twice, up to 30 s apart,
  - 1 in 90 has an impossible reading,
and two lines are cut off in the middle.
"""

import json

VEHICLES = 2_300
START_MS = 1_772_434_800_000  # 2026-03-02T07:00:00Z
LENGTH_MS = 30 * 60_000

BRIDGES = ["north", "river", "harbour"]

# name, share, axles, length in m, weight in kg, speed in km/h
KINDS = [
    ("motorcycle", 0.05, (2, 2), (1.8, 2.4), (160, 380), (60, 120)),
    ("car", 0.62, (2, 2), (3.4, 4.9), (900, 2400), (60, 125)),
    ("van", 0.14, (2, 2), (5.2, 6.9), (1800, 3500), (60, 110)),
    ("bus", 0.03, (2, 3), (10.5, 13.5), (9000, 15000), (50, 90)),
    ("truck", 0.08, (2, 3), (7.2, 11.5), (12000, 26000), (50, 85)),
    ("lorry", 0.08, (4, 6), (13.5, 18.7), (14000, 43000), (50, 85)),
]

IMPOSSIBLE = [
    ("axles", 1),
    ("axles", 0),
    ("length_m", 0.0),
    ("length_m", 62.5),
    ("speed_kmh", -3.0),
    ("speed_kmh", 410.0),
    ("weight_kg", 12),
    ("weight_kg", 190000),
]


class Random:
    def __init__(self, seed):
        self.state = seed

    def next(self):
        mask = (1 << 64) - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    def below(self, end):
        return self.next() % end

    def whole(self, low, high):
        return low + self.below(high - low + 1)

    def tenths(self, low, high):
        return self.whole(round(low * 10), round(high * 10)) / 10

    def pick(self, items):
        return items[self.below(len(items))]


def kind(random):
    at = random.below(1000) / 1000
    for one in KINDS:
        at -= one[1]
        if at < 0:
            return one
    return KINDS[1]


def main():
    random = Random(2026)
    lines = []  # (arrival in ms, place, text)
    for number in range(VEHICLES):
        bridge = random.pick(BRIDGES)
        _, _, axles, length, weight, speed = kind(random)
        at = START_MS + random.below(LENGTH_MS)
        reading = {
            "id": f"{bridge[0]}-{number:05}",
            "bridge": bridge,
            "lane": random.whole(1, 3),
            "axles": random.whole(*axles),
            "length_m": random.tenths(*length),
            "speed_kmh": random.tenths(*speed),
            "weight_kg": random.whole(*weight),
            "at": at,
        }
        if random.below(90) == 0:
            field, value = random.pick(IMPOSSIBLE)
            reading[field] = value
        text = json.dumps(reading, separators=(",", ":"))
        late = random.below(80) == 0
        arrival = at + (random.whole(70_000, 200_000) if late else random.below(1_500))
        lines.append((arrival, len(lines), text))
        if random.below(40) == 0:
            lines.append((arrival + random.whole(50, 30_000), len(lines), text))
    lines.sort()
    for place, (_, _, text) in enumerate(lines):
        cut = place in (700, 1_900)
        print(text[:60] if cut else text)


if __name__ == "__main__":
    main()
