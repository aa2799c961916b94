"""Says how many standard deviations a reading is off those before it, by sensor."""

import json
import statistics

import wasmill


@wasmill.operator
class Anomalies:
    def open(self, config, setup):
        self.window = config.int("window", 10)
        self.recent = setup.value("recent", wasmill.json_)

    def event(self, event, ctx):
        reading = event.json()
        recent = self.recent.get([])
        off = 0.0
        if len(recent) == self.window:
            spread = statistics.pstdev(recent) or 0.1
            off = round(abs(reading["celsius"] - statistics.fmean(recent)) / spread, 1)
        self.recent.set([*recent, reading["celsius"]][-self.window :])
        yield json.dumps({**reading, "off": off}, separators=(",", ":"))
