"""A routing rule: its algorithm, and the verbs that all rules share, once.

A rule says how a token finds a place among an expert's candidates (`place`) and in which order an expert takes them
(`priority`); everything else follows. A new rule is one file in this folder that makes one `Rule`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from resonance_theory import _arguments as arguments
from resonance_theory.rules import _law, _ties, select
from resonance_theory.rules._beta import Threshold
from resonance_theory.rules.rates import Rates
from resonance_theory.typing import Array, ArrayLike, Floats, Whole

__all__ = ["Bounds", "Rule"]


class Bounds(NamedTuple):
    """Lower and upper bound of a success rate."""

    lower: Floats
    upper: Floats


class OneTail(NamedTuple):
    """A law of one threshold: its logarithms, the threshold, and a guess of C from tokens, threshold and target."""

    law: Callable[[Whole, Whole, Threshold], _law.Logs]
    at: Threshold
    guess: Callable[[Whole, Floats, Floats], Floats]


class Rule:
    """One routing rule.

    Every verb takes `(tokens, capacity, rates)`: tokens s of one sample, slots C of each expert (1..s), both whole numbers
    or arrays of them, and `Rates`; all broadcast. Probabilities are accurate to 1e-12 relative for up to 10^9 tokens and
    down to 1e-300 (logarithms beyond), unless the rule's own docstring says otherwise.

    Attributes:
        name: how commands and modules call it, an identifier.
        title: how prose and figures call it.
        kinds: kinds of bounds it has.
        tokens_choose: whether tokens choose experts first; else experts choose among all tokens.
    """

    name: str = ""
    title: str = ""
    kinds: tuple[str, ...] = ()
    tokens_choose: bool = True

    # --- what a rule must say ----------------------------------------------------------------------------------------

    def place(self, tokens: Whole, capacity: Whole, rates: Rates) -> _law.Logs:
        """Log probability that the token, a candidate, finds a place, and of the complement; on the nodes."""
        raise ValueError(f"{self.title or self.name} has no exact law: its success can only be simulated")

    def priority(self, affinity: Array, rng: Any = None) -> Array | None:
        """The order in which an expert takes its candidates, highest first; None is the order of position.

        Args:
            affinity: affinities of the pairs (token, chosen expert), any shape, any array-API library.
            rng: source of randomness, for rules that need one.
        """
        raise NotImplementedError(f"{self.name} must define priority")

    def _bounds(self, tokens: Whole, capacity: Whole, rates: Rates, kind: str) -> tuple[Floats, Floats]:
        raise NotImplementedError

    # --- verbs -------------------------------------------------------------------------------------------------------

    def _sizes(self, tokens: ArrayLike, capacity: ArrayLike, rates: Rates) -> tuple[Whole, Whole]:
        if not isinstance(rates, Rates):
            raise TypeError(f"rates is a {type(rates).__name__} but must be Rates")
        s, c = _law.sizes(tokens, capacity)
        s, c = rates.expand(s), rates.expand(c)
        arguments.same_shapes(tokens=s.shape, capacity=c.shape, **rates.shapes())
        return s, c

    def _logs(self, tokens: ArrayLike, capacity: ArrayLike, rates: Rates) -> _law.Logs:
        s, c = self._sizes(tokens, capacity, rates)
        place = self.place(s, c, rates)
        return rates.average(_law.with_hit(np.asarray(rates.hit), place) if self.tokens_choose else place)

    def success(self, tokens: ArrayLike, capacity: ArrayLike, rates: Rates) -> Floats:
        """Probability in [0, 1] that the token is processed by its expert."""
        return np.exp(self._logs(tokens, capacity, rates).success)

    def failure(self, tokens: ArrayLike, capacity: ArrayLike, rates: Rates) -> Floats:
        """1 - success, without cancellation."""
        return np.exp(self._logs(tokens, capacity, rates).failure)

    def log_success(self, tokens: ArrayLike, capacity: ArrayLike, rates: Rates) -> Floats:
        """Natural logarithm of success; no underflow."""
        return self._logs(tokens, capacity, rates).success

    def log_failure(self, tokens: ArrayLike, capacity: ArrayLike, rates: Rates) -> Floats:
        """Natural logarithm of failure; no underflow, no cancellation."""
        return self._logs(tokens, capacity, rates).failure

    def _shares(self, tokens: ArrayLike, capacity: ArrayLike, rates: Rates) -> tuple[Whole, _law.Logs, Floats]:
        s, c = self._sizes(tokens, capacity, rates)
        at = rates.share
        return s, rates.counts.shares(s, c, at), at.p

    def kept(self, tokens: ArrayLike, capacity: ArrayLike, rates: Rates) -> Floats:
        """Expected tokens that one expert keeps, E min(N, C), N its candidates among s tokens. Claim: loads.

        The same for every rule in which tokens choose: only which tokens are kept differs. In [0, min(C, load s)].
        """
        s, shares, load = self._shares(tokens, capacity, rates)
        return rates.mean(s * load * np.exp(shares.success))[()]

    def drop_rate(self, tokens: ArrayLike, capacity: ArrayLike, rates: Rates) -> Floats:
        """Share of routed tokens that find no place, E (N - C)_+ / E N: what training logs call the drop rate.

        Without cancellation; the same for every rule in which tokens choose. 0 where the load is 0.
        """
        _, shares, load = self._shares(tokens, capacity, rates)
        lost, total = np.broadcast_arrays(load * np.exp(shares.failure), load)
        lost, total = rates.mean(lost), rates.mean(total)
        return np.where(total > 0, lost / np.where(total > 0, total, 1.0), 0.0)[()]

    def bounds(self, tokens: ArrayLike, capacity: ArrayLike, rates: Rates, *, kind: str = "sharp") -> Bounds:
        """Lower and upper bound of `success`; 0 and 1 where a bound says nothing.

        Args:
            tokens: as in the other verbs, up to 2^52.
            capacity: as in the other verbs.
            rates: as in the other verbs.
            kind: one of `rule.kinds`; the rule's docstring says what each is.
        """
        if not self.kinds:
            raise ValueError(f"{self.title or self.name} has no bounds")
        arguments.choice("kind", kind, self.kinds)
        s, c = self._sizes(tokens, capacity, rates)
        hit = np.asarray(rates.hit) if self.tokens_choose else 1.0
        low, high = np.broadcast_arrays(*(hit * side for side in self._bounds(s, c, rates, kind)))
        return Bounds(rates.mean(low)[()], rates.mean(high)[()])

    def least_capacity(self, target: ArrayLike, tokens: ArrayLike, rates: Rates) -> Whole:
        """Least capacity with success >= target in (0, 1]; exact and minimal, ties included.

        Claims: capacity_law_token_choice, capacity_law_resonance.

        Raises:
            ValueError: naming the best rate, where no capacity up to `tokens` reaches the target.
        """
        s = arguments.integer("tokens", tokens, 1, 2**52)
        goal = arguments.real("target", target, 0.0, 1.0, open_low=True)
        self._sizes(s, 1, rates)
        plain = self._tail_of(rates)
        if plain is None:
            fields = [self._logs(s, np.ones((), dtype=np.int64), rates).success.shape]
        else:
            fields = [s.shape, np.shape(rates.hit if self.tokens_choose else 1.0), plain.at.p.shape]
        shape = arguments.same_shapes(target=goal.shape, tokens=s.shape, rates=np.broadcast_shapes(*fields))
        ceiling = rates.hit_rate if self.tokens_choose else np.ones(())
        law, first = self._elements(s, goal, rates, shape, plain)
        return _ties.least(law, self._tie(rates), ceiling, s, shape, goal, first)

    def _elements(
        self, s: Whole, goal: Floats, rates: Rates, shape: tuple[int, ...], plain: OneTail | None
    ) -> tuple[Callable[[Whole, Whole], _law.Logs], Floats]:
        """The law of some elements of a flattened result at their own capacities, and a guess of a capacity."""
        if plain is not None:
            tail_law, at, guess = plain
            fields = [np.broadcast_to(v, shape).reshape(-1) for v in (s, rates.hit, *at)]

            def some(i: Whole, c: Whole) -> _law.Logs:
                tokens, hit, *parts = (field[i] for field in fields)
                found = tail_law(tokens, c, Threshold(*parts))
                return _law.with_hit(hit, found) if self.tokens_choose else found

            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                wanted = goal / rates.hit if self.tokens_choose else goal
                return some, guess(s, at.p, wanted)
        everywhere = np.broadcast_to(s, shape).reshape(-1).astype(np.int64)

        def all_of_them(i: Whole, c: Whole) -> _law.Logs:
            everywhere[i] = c
            found = self._logs(s, everywhere.reshape(shape), rates)
            return _law.Logs(*(np.broadcast_to(v, shape).reshape(-1)[i] for v in found))

        return all_of_them, np.full((), np.nan)

    def _tail_of(self, rates: Rates) -> OneTail | None:
        """The law as one tail at one threshold, where it is one; it lets a search leave out what it has found."""
        return None

    def _tie(self, rates: Rates) -> _ties.Exact | None:
        """How to decide exactly whether a target is attained, where floating point cannot; None: it must."""
        return None

    def route(self, affinity: Array, capacity: int, *, top: int = 1, rng: Any = None) -> select.Assignment:
        """Run the rule on affinities.

        Args:
            affinity: (tokens, experts) or (samples, tokens, experts), finite floats of any array-API library.
            capacity: tokens that an expert may keep per sample, 1..tokens.
            top: experts that each token chooses, 1..experts.
            rng: source of randomness, for rules that draw.

        Returns:
            The kept pairs, in the same library. Ties go to the earlier position, among a token's experts to the lower index.
        """
        scores = select.read(affinity, capacity, top)
        if not self.tokens_choose:
            return select.best_tokens(scores)
        expert = select.top_experts(scores)
        return select.keep(scores, expert, self.priority(select.chosen(scores, expert), rng))

    def __repr__(self) -> str:
        return f"<rule {self.name}>"
