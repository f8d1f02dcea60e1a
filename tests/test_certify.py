"""Certificates prove what is true, refute what is false, and stay undecided otherwise."""

import flint
import pytest
import sympy as sp

from resonance_theory.evidence.claims import certify
from resonance_theory.evidence.outcome import Status

x, y = sp.symbols("x y")
n, k = sp.symbols("n k", integer=True, positive=True)


def test_identity():
    pascal = sp.binomial(n + 1, k + 1) - sp.binomial(n, k) - sp.binomial(n, k + 1)
    assert certify.identity(pascal).holds
    wrong = certify.identity(pascal + 1)
    assert wrong.fails
    assert wrong.data["witness"]
    assert certify.identity(n, n).holds
    assert not certify.identity(sp.Integer(0)).holds  # compares nothing
    assert certify.identity(sp.Integer(1)).fails


def test_identity_uses_the_given_points():
    # differs from 0 only at negative x, where default witnesses of a positive symbol never look
    s = sp.symbols("s", real=True)
    expression = sp.Abs(s) - s
    assert certify.identity(expression, points=[{s: sp.Integer(-2)}]).fails
    assert not certify.identity(expression).holds


def test_polynomials():
    assert certify.nonnegative_polynomial((x - 1) * (y - 2), {x: 1, y: 2}).holds
    assert certify.nonnegative_polynomial((x - 1) * (y - 2), {x: 1, y: 2}, strict=True).fails  # 0 at the corner
    assert certify.nonnegative_polynomial((x - 1) * (y - 2) + sp.Rational(1, 7), {x: 1, y: 2}, strict=True).holds
    assert certify.nonnegative_polynomial((x - 1) * (y - 2) - sp.Rational(1, 10**6), {x: 1, y: 2}).fails
    square = certify.nonnegative_polynomial((x - y) ** 2, {x: 0, y: 0})  # true, but not by this certificate
    assert square.status is Status.UNDECIDED


def test_corner_can_be_a_fraction():
    assert certify.nonnegative_polynomial(3 * x - 1, {x: "1/3"}).holds
    assert certify.nonnegative_polynomial(3 * x - 1, {x: "33/100"}).fails


def test_ladder():
    def rest(derivative):
        return certify.nonnegative_polynomial(sp.numer(sp.together(derivative)), {x: 0})

    # log(1+x) >= 2x/(2+x) on x >= 0
    assert certify.ladder(sp.log(1 + x) - 2 * x / (2 + x), x, rest, steps=1).holds
    assert certify.ladder(sp.log(1 + x) - sp.Rational(21, 10) * x / (2 + x), x, rest, steps=1).fails
    assert certify.ladder(-x - 1, x, lambda d: certify.holds("last"), steps=1).fails  # the value at 0


def test_roots():
    assert certify.roots_outside(x**2 - 2, x, 2, 3).holds
    assert certify.roots_outside(x**2 - 2, x, 1, 3).fails
    assert not certify.roots_outside((x - 1) ** 2, x, 0, 3).holds  # touches 0


def test_positive():
    def slack(u):
        return u.exp() - 1 - u - flint.arb(1) / 10 * u * u

    assert certify.positive(lambda u: slack(u) + flint.arb("1e-6"), [(0, 1)]).holds
    assert certify.positive(lambda u: slack(u) - flint.arb(1) / 2, [(0, 1)]).fails
    two = certify.positive(lambda u, v: 1 - u * v + flint.arb("0.01"), [(0, 1), (0, 1)])
    assert two.holds
    touching = certify.positive(lambda u: u * u, [("-1", "1")], most=200)
    assert touching.status is Status.UNDECIDED
    narrow = certify.positive(lambda u: (u - 2) ** 2 - flint.arb("1e-9"), [(0, 3)])
    assert narrow.fails or narrow.status is Status.UNDECIDED  # never a proof of a false bound
    assert not narrow.holds


def test_certificates_refuse_floats():
    with pytest.raises(TypeError, match="must be an exact rational"):
        certify.positive(lambda u: u, [(0.1, 1)])
