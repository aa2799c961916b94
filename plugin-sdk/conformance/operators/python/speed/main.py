"""Upper-cases events with an "x" and counts them by key, batch by batch: what `xtask bench languages` measures."""

import wasmill


@wasmill.operator
class Speed:
    columns = ("keys", "values")

    def open(self, config, setup):
        self.seen = setup.value("seen", wasmill.u64)

    def batch(self, batch, ctx):
        rows, values, counts = [], [], {}
        for row, (key, value) in enumerate(zip(batch.keys, batch.values)):
            try:
                text = value.decode()
            except UnicodeDecodeError:
                ctx.reject(batch[row], "not UTF-8")
                continue
            if "x" in text:
                rows.append(row)
                values.append(text.upper().encode())
                counts[key] = counts.get(key, 0) + 1
        before = self.seen.get_all(counts, 0)
        self.seen.set_all({key: old + new for (key, new), old in zip(counts.items(), before)})
        ctx.emit_rows(rows, values)
