#!/usr/bin/env python3
"""Writes acceptances.jsonl, the same bytes on every machine: `python3 generate.py`.

A ride is offered to the taxis near by; up to five accept it within 20 s. Most are heard within 3 s, some
only when they leave a dead spot, up to 100 s later, and a few after more than ten minutes, when nobody
waits for them any more.
"""

import json
from pathlib import Path

RIDES = 400
START = 1_767_607_200_000  # 2026-01-05T10:00:00Z


class Chance:
    """A linear congruential generator."""

    def __init__(self, seed):
        self.state = seed

    def below(self, most):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % most


def main():
    chance = Chance(7)
    heard = []
    for ride in range(RIDES):
        offered = START + ride * 4_000 + chance.below(3_000)
        taxis = set()
        for _ in range(1 + chance.below(5)):
            taxi = 100 + chance.below(60)
            if taxi in taxis:
                continue
            taxis.add(taxi)
            at = offered + chance.below(20_000)
            kind = chance.below(100)
            if kind < 80:
                delay = 200 + chance.below(2_800)
            elif kind < 97:
                delay = 5_000 + chance.below(95_000)
            else:
                delay = 600_000 + chance.below(300_000)
            row = {"ride": f"r-{ride:04}", "taxi": taxi, "at": at, "heard": at + delay}
            heard.append((at + delay, len(heard), row))
    lines = [json.dumps(row, separators=(",", ":")) for _, _, row in sorted(heard)]
    (Path(__file__).parent / "acceptances.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
