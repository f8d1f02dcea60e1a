"""Power series with positive coefficients, in windows: nothing cancels, so products keep their relative accuracy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from resonance_theory.typing import Floats

__all__ = ["NONE", "Series", "add", "coefficient", "masses", "power", "product"]

_LEAST = 1e-32  # coefficients below this share of the largest one are left out


class Series(NamedTuple):
    """Coefficients `value` of x^start, x^(start+1), ...; an empty one is 0."""

    start: int
    value: Floats

    def at(self, index: int) -> float:
        inside = self.start <= index < self.start + self.value.size
        return float(self.value[index - self.start]) if inside else 0.0

    def part(self, low: int, high: int) -> Series:
        """Coefficients of x^low .. x^high alone."""
        first = max(low, self.start)
        return Series(first, self.value[first - self.start : max(high + 1 - self.start, 0)])

    def trimmed(self, most: int) -> Series:
        """Without coefficients beyond x^most or too small to matter."""
        value = self.part(0, most).value
        large = np.flatnonzero(value > _LEAST * value.max(initial=0.0))
        return NONE if large.size == 0 else Series(self.start + int(large[0]), value[large[0] : large[-1] + 1])


NONE = Series(0, np.zeros(0))


def product(a: Series, b: Series, most: int) -> Series:
    """a b up to x^most, by the sum of positive terms that defines it (no Fourier transform, whose errors are absolute)."""
    if a.value.size == 0 or b.value.size == 0:
        return NONE
    return Series(a.start + b.start, np.convolve(a.value, b.value)).trimmed(most)


def coefficient(a: Series, b: Series, index: int) -> float:
    """The coefficient of x^index of a b."""
    low = max(a.start, index - b.start - b.value.size + 1)
    high = min(a.start + a.value.size - 1, index - b.start)
    if low > high:
        return 0.0
    mine, other = a.part(low, high).value, b.part(index - high, index - low).value
    return float(mine @ other[::-1])


def add(a: Series, b: Series) -> Series:
    if a.value.size == 0 or b.value.size == 0:
        return b if a.value.size == 0 else a
    start, end = min(a.start, b.start), max(a.start + a.value.size, b.start + b.value.size)
    value = np.zeros(end - start)
    for part in (a, b):
        value[part.start - start : part.start - start + part.value.size] += part.value
    return Series(start, value)


def power(a: Series, exponent: int, most: int) -> Series:
    """a to a whole power >= 1, by squaring."""
    result, square = Series(0, np.ones(1)), a
    while exponent:
        if exponent & 1:
            result = product(result, square, most)
        exponent >>= 1
        if exponent:
            square = product(square, square, most)
    return result


def masses(ratio: Floats) -> Floats:
    """Masses that sum to 1, from the ratios of neighbours P(j+1)/P(j): products outwards from the largest one."""
    with np.errstate(divide="ignore"):
        mode = int(np.argmax(np.concatenate(([0.0], np.cumsum(np.log(ratio))))))
    value = np.ones(ratio.size + 1)
    value[mode + 1 :] = np.cumprod(ratio[mode:])
    value[:mode] = np.cumprod(1.0 / ratio[:mode][::-1])[::-1]
    return value / value.sum()
