"""Rows of bytes, side by side: what crosses between host and plugin."""

from itertools import accumulate


def rows(ends, data: bytes) -> list[bytes]:
    """The rows of a column."""
    start = 0
    out = []
    append = out.append
    for end in ends:
        append(data[start:end])
        start = end
    return out


def column(rows) -> tuple[list[int], bytes]:
    """Ends and bytes of a column of these rows."""
    return list(accumulate(map(len, rows))), b"".join(rows)


def bitmap(rows, count: int) -> list[int]:
    """A bitmap of ``count`` rows in which these are set."""
    words = [0] * ((count + 63) // 64)
    for row in rows:
        words[row >> 6] |= 1 << (row & 63)
    return words


def bits(words, count: int):
    """The bits of a bitmap."""
    return [words[row >> 6] >> (row & 63) & 1 for row in range(count)]
