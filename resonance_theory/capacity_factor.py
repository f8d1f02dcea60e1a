"""Slots from a capacity factor, ceil(factor * top * tokens / experts), in exact rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

from resonance_theory import _arguments as arguments

__all__ = ["share", "slots"]

LONGEST = 2**31 - 1  # tokens of a sample up to which `share` is exact; products of two such numbers fit into int64


def share(factor: float, top: int, experts: int) -> tuple[int, int]:
    """Numerator and denominator of a share of the tokens with ceil(share * t) = min(t, ceil(factor * top * t / experts)).

    The factor is the decimal that its user typed (1.05 is 21/20, not the double next to it), and the share the least
    fraction of denominator at most 2^31 - 1 that is not below factor * top / experts: none lies between, so that both
    have the same ceiling at every whole number t of tokens up to there.

    Args:
        factor: positive capacity factor.
        top: experts per token.
        experts: number of experts.

    Returns:
        Two whole numbers below 2^31.

    >>> share(1.05, 1, 384)
    (7, 2560)
    """
    exact = min(Fraction(repr(float(factor))) * top / experts, Fraction(1))
    if exact.denominator <= LONGEST:
        return exact.numerator, exact.denominator
    # Walk the continued fraction; the two last fractions hold the share between them.
    (p, q), (p1, q1), rest = (0, 1), (1, 0), exact
    while True:
        whole = rest.numerator // rest.denominator
        if q + whole * q1 > LONGEST:
            break
        (p, q), (p1, q1), rest = (p1, q1), (p + whole * p1, q + whole * q1), 1 / (rest - whole)
    more = (LONGEST - q) // q1
    above = max(Fraction(p + more * p1, q + more * q1), Fraction(p1, q1))
    return above.numerator, above.denominator


def slots(factor: float, tokens: int, experts: int, *, top: int = 1) -> int:
    """Slots of each expert for a sample of that many tokens: ceil(factor * top * tokens / experts), at most all tokens.

    Args:
        factor: positive capacity factor, taken as the decimal that was typed.
        tokens: tokens of the sample, at least 0.
        experts: number of experts, at least 1.
        top: experts per token, 1..experts.

    Returns:
        A whole number in 0..tokens.

    Raises:
        ValueError: an argument outside its range.
        TypeError: an argument that is no number.

    >>> slots(1.05, 2560, 384)
    7
    """
    factor = arguments.number("factor", factor, 0.0, open_low=True)
    tokens = arguments.whole("tokens", tokens, 0, LONGEST)
    experts = arguments.whole("experts", experts, 1)
    numerator, denominator = share(factor, arguments.whole("top", top, 1, experts, "experts"), experts)
    return -(-numerator * tokens // denominator)
