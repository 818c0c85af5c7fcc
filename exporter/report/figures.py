"""Numbers as a person reads them: few digits, the unit that fits."""

from __future__ import annotations

from collections.abc import Sequence

NONE = "–"
SMALL = 1e-3  # what is smaller is written as a power of ten


def plain(value: float | None, digits: int = 3) -> str:
    """A number in a few significant digits; powers of ten without leading zeros."""
    if value is None:
        return NONE
    written = f"{value:.{digits}g}"
    if 0.0 < abs(value) < SMALL:
        written = f"{value:.{digits - 1}e}"
    if "e" not in written:
        return written
    mantissa, _, exponent = written.partition("e")
    # Zeros at the end say nothing that a few digits do not.
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"


def time(milliseconds: float | None, digits: int = 3) -> str:
    """A duration, in us, ms or s."""
    if milliseconds is None:
        return NONE
    for unit, size in (("s", 1e3), ("ms", 1.0)):
        if abs(milliseconds) >= size:
            return f"{_fixed(milliseconds / size, digits)} {unit}"
    return f"{_fixed(milliseconds * 1e3, digits)} µs"


def tick(milliseconds: float) -> str:
    """A duration on an axis: without zeros that say nothing."""
    number, _, unit = time(milliseconds).partition(" ")
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {unit}"


def _fixed(value: float, digits: int) -> str:
    """Significant digits without an exponent, trailing zeros kept."""
    whole = len(str(int(abs(value))))
    return f"{value:,.{max(digits - whole, 0)}f}"


def times(low: float, high: float) -> str:
    """An interval of durations, in one unit."""
    first, second = time(low).split(" "), time(high).split(" ")
    return (
        f"{first[0]} – {second[0]} {second[1]}" if first[1] == second[1] else f"{' '.join(first)} – {' '.join(second)}"
    )


def size(count: float | None) -> str:
    """Bytes, in kB, MB or GB."""
    if count is None:
        return NONE
    for unit, each in (("GB", 1e9), ("MB", 1e6)):
        if count >= each:
            return f"{count / each:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"


def megabytes(value: float | None) -> str:
    """Memory, in MB."""
    return NONE if value is None else f"{value:,.0f} MB"


def whole(value: float) -> str:
    """A count on an axis."""
    return f"{value:,.0f}"


def share_tick(part: float) -> str:
    """A part of the whole on an axis."""
    return f"{100 * part:.3g}%"


def share(part: float) -> str:
    """A part of the whole, in percent."""
    return f"{part:.1%}" if part < 0.9995 else f"{part:.0%}"


def factor(value: float | None) -> str:
    """How many times something."""
    return NONE if value is None else f"{plain(value)}×"


def counted(count: int, one: str, many: str = "") -> str:
    """``1 case``, ``2 cases``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def listed(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else "none"
