"""Proofs for all parameters: identities, polynomial certificates, ladders and ball arithmetic.

SymPy derives and reduces; python-flint certifies (exact rationals, and balls that enclose every rounding error).
Each function returns an `Outcome`: holds (proved), fails (with a witness at which the assertion is false) or
undecided. Failure to prove is never reported as a refutation, and the reverse.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, TypeAlias

import flint
import sympy as sp

from resonance_theory.evidence.outcome import Outcome, every, fails, holds, undecided

__all__ = ["exact", "identity", "ladder", "nonnegative_polynomial", "positive", "roots_outside", "value"]

Rational: TypeAlias = int | str | Fraction | sp.Basic


def exact(value: Rational) -> flint.fmpq:
    """A rational as flint's exact `fmpq`. Floats are refused: a certificate's parameters are exact."""
    if isinstance(value, float):
        raise TypeError(f"value = {value!r} must be an exact rational: an int, a Fraction, or text such as '1/3'")
    ratio = Fraction(str(value)) if isinstance(value, str | sp.Basic) else Fraction(value)
    return flint.fmpq(ratio.numerator, ratio.denominator)


def _random_points(expression: sp.Expr, count: int = 6) -> Iterable[dict[sp.Symbol, Any]]:
    """Small values that respect each symbol's own assumptions, for witnesses only: they never prove anything."""
    generator = random.Random(20240601)
    symbols = sorted(expression.free_symbols, key=str)
    for _ in range(count):
        point: dict[sp.Symbol, Any] = {}
        for symbol in symbols:
            value: sp.Expr = sp.Integer(generator.randint(2, 9))
            if not symbol.is_integer:
                value = value / 11
            if symbol.is_negative:
                value = -value
            point[symbol] = value
        yield point


def identity(
    left: sp.Expr | int,
    right: sp.Expr | int | None = None,
    *,
    points: Iterable[Mapping[sp.Symbol, Any]] | None = None,
    unit: sp.Expr | None = None,
    name: str = "difference",
) -> Outcome:
    """Both sides are identically equal in their symbols (SymPy reduces their difference to 0 exactly).

    Give the sides apart, each by its own route. One argument alone is a difference to be reduced to 0. Where both sides
    are already the number 0, nothing is compared with anything, and the outcome is undecided; `value` is for zeros.

    `points` are places to look for a witness when it does not reduce, for symbols whose range their assumptions
    do not express (k <= m, say). `unit` is a positive common factor (a binomial mass, say): each term is divided by it
    and reduced on its own, which turns shifted masses into rational functions.
    """
    original = sp.sympify(left) - (0 if right is None else sp.sympify(right))
    if left == 0 and (right is None or right == 0):
        return undecided(f"{name} is 0 on both sides before anything is reduced: nothing is compared")
    reducers: list[Callable[[sp.Expr], sp.Expr]] = [
        sp.expand,
        lambda e: sp.cancel(sp.together(sp.expand(e))),
        sp.combsimp,
        lambda e: sp.gammasimp(sp.expand_func(e.rewrite(sp.gamma))),
        sp.simplify,
    ]
    if original == 0:
        return holds(f"{name} is 0 identically")
    for point in list(points) if points is not None else _random_points(original):
        value = sp.N(original.subs(dict(point)), 40)
        if value.is_number and value.is_finite and abs(value) > sp.Float("1e-25"):
            shown = ", ".join(f"{k}={v}" for k, v in point.items())
            at = f" at {shown}" if shown else ""
            return fails(f"{name} is {sp.N(value, 8)}{at}, not 0", witness=shown)
    if unit is not None:

        def termwise(e: sp.Expr) -> sp.Expr:
            terms = (sp.simplify(term / unit).rewrite(sp.gamma) for term in sp.Add.make_args(sp.expand(e)))
            return sp.simplify(sum(sp.gammasimp(sp.powsimp(term)) for term in terms))

        reducers.insert(0, termwise)
    for reduce in reducers:
        if reduce(original) == 0:
            return holds(f"{name} is 0 identically")
    return undecided(f"{name} was not reduced to 0, and no point showed it to differ")


def value(
    function: sp.Expr, at: Mapping[sp.Symbol, Any], result: sp.Expr | int, *, name: str = "value", **options: Any
) -> Outcome:
    """The function, which depends on the symbols of `at`, takes the value `result` there, for all its other symbols."""
    if not set(at) <= sp.sympify(function).free_symbols:
        return undecided(f"{name}: the function does not depend on {', '.join(map(str, at))}: nothing is compared")
    reached = sp.simplify(sp.sympify(function).subs(dict(at)))
    if reached == 0 and result == 0:
        return holds(f"{name} is 0")
    return identity(reached, result, name=name, **options)


def nonnegative_polynomial(
    expression: sp.Expr, corner: Mapping[sp.Symbol, Rational], *, strict: bool = False, name: str = "slack"
) -> Outcome:
    """The polynomial is >= 0 (> 0 if strict) wherever every symbol is at least its corner value.

    After the shift symbol = corner + t, t >= 0, every coefficient is non-negative (and the constant one positive if
    strict): a certificate that can be read. Polynomials without that property are undecided unless a point refutes.
    """
    symbols = list(corner)
    values = [Fraction(str(v)) for v in corner.values()]
    shifted = sp.Poly(sp.expand(expression.subs({s: s + sp.Rational(v) for s, v in zip(symbols, values)})), *symbols)
    context = flint.fmpq_mpoly_ctx.get([str(s) for s in symbols], "lex")
    terms = {tuple(map(int, powers)): exact(coefficient) for powers, coefficient in shifted.terms()}
    polynomial = flint.fmpq_mpoly(terms, context)
    constant = terms.get((0,) * len(symbols), flint.fmpq(0))
    if all(c >= 0 for c in polynomial.coeffs()) and (constant > 0 or not strict):
        at = ", ".join(f"{s}={v}" for s, v in zip(symbols, values))
        return holds(
            f"{name} at corner {at} has {len(polynomial.coeffs())} coefficients, none negative",
            polynomial=str(polynomial),
        )
    generator = random.Random(7)
    for trial in range(400):
        step = Fraction(10) ** generator.randint(-3, 3)
        point = [flint.fmpq(0) if trial == 0 else exact(step * generator.randint(0, 9)) for _ in symbols]
        value = polynomial(*point)
        if value < 0 or (strict and value == 0):
            at = ", ".join(f"{s}={exact(v) + p}" for s, v, p in zip(symbols, values, point))
            return fails(f"{name} is {float(Fraction(int(value.p), int(value.q))):.6g} at {at}", witness=at)
    return undecided(f"{name} has a negative coefficient after the shift, and no point refutes it")


def ladder(
    expression: sp.Expr, symbol: sp.Symbol, last: Callable[[sp.Expr], Outcome], *, steps: int, name: str = "function"
) -> Outcome:
    """expression >= 0 for symbol >= 0, because it and its first `steps - 1` derivatives are >= 0 at 0 and the
    derivative of order `steps` is certified non-negative by `last`."""
    outcomes = []
    current = sp.sympify(expression)
    for order in range(steps):
        value = sp.simplify(sp.limit(current, symbol, 0, "+"))
        sign = value.is_nonnegative
        label = f"{name}: derivative {order} at 0 is {value}"
        outcomes.append(holds(label) if sign else fails(label) if sign is False else undecided(label))
        current = sp.together(sp.diff(current, symbol))
    outcomes.append(last(current))
    return every(outcomes)


def roots_outside(
    polynomial: sp.Expr, symbol: sp.Symbol, low: Rational, high: Rational, *, name: str = "polynomial"
) -> Outcome:
    """A univariate rational polynomial is > 0 on the closed interval [low, high] (Sturm's theorem, exact)."""
    p = sp.Poly(polynomial, symbol, domain="QQ")
    a, b = sp.Rational(str(low)), sp.Rational(str(high))
    count = p.count_roots(a, b)
    middle = p.eval((a + b) / 2)
    if count == 0 and middle > 0:
        return holds(f"{name} has no root in [{low}, {high}] (Sturm) and is positive inside")
    for i in range(65):
        x = a + (b - a) * sp.Rational(i, 64)
        if p.eval(x) <= 0:
            return fails(f"{name} is {sp.N(p.eval(x), 8)} at {symbol}={x}", witness=str(x))
    return undecided(f"{name} has {count} roots in [{low}, {high}]")


def positive(
    function: Callable[..., flint.arb],
    box: Sequence[tuple[Rational, Rational]],
    *,
    name: str = "slack",
    most: int = 100_000,
    digits: int = 40,
) -> Outcome:
    """function > 0 on the whole closed box, by ball arithmetic and bisection of the widest side.

    `function` receives one `arb` ball per side and must return an enclosure of its range over those balls; it
    may return a non-finite ball (undecided there, split further). `box` sides are exact rationals; bring an
    unbounded range to a bounded one by substitution first (C = 48/u). A point of the box whose value is
    certainly negative refutes. After `most` boxes the answer is undecided.
    """
    saved = flint.ctx.dps
    flint.ctx.dps = digits
    try:
        sides = [(exact(a), exact(b)) for a, b in box]
        widths = [b - a if b > a else flint.fmpq(1) for a, b in sides]
        todo = [sides]
        done, least = 0, None
        while todo:
            if done + len(todo) > most:
                return undecided(f"{name}: not decided after {most} boxes", boxes=done)
            current = todo.pop()
            value = function(*(flint.arb(a).union(flint.arb(b)) for a, b in current))
            if value > 0:
                done += 1
                lower = float(value.mid() - value.rad())
                least = lower if least is None else min(least, lower)
                continue
            middle = [(a + b) / 2 for a, b in current]
            for point in [middle, [a for a, _ in current], [b for _, b in current]]:
                at_point = function(*(flint.arb(p) for p in point))
                if at_point < 0:
                    shown = ", ".join(f"{Fraction(int(p.p), int(p.q))}" for p in point)
                    return fails(f"{name} is {float(at_point.mid()):.6g} at ({shown})", witness=shown)
            widest = max(range(len(current)), key=lambda i: (current[i][1] - current[i][0]) / widths[i])
            a, b = current[widest]
            if a == b:
                return undecided(f"{name}: not decided at the point {current}", boxes=done)
            for half in ((a, middle[widest]), (middle[widest], b)):
                todo.append([*current[:widest], half, *current[widest + 1 :]])
        return holds(f"{name} > 0 on the box, {done} balls, least lower limit {least:.3g}", boxes=done)
    finally:
        flint.ctx.dps = saved
