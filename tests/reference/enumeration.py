"""Inference-time procedures by enumeration of every tuple of draws, in plain Python: slow, and nothing of mdpsim."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from math import exp

Chooser = Callable[[tuple[int, ...]], dict[int, float]]


def law(pi: Sequence[float], n: int, choose: Chooser) -> list[float]:
    """Law of what a chooser returns from n independent draws."""
    out = [0.0] * len(pi)
    for draws in itertools.product(range(len(pi)), repeat=n):
        p = 1.0
        for y in draws:
            p *= pi[y]
        for y, share in choose(draws).items():
            out[y] += p * share
    return out


def evenly(draws: tuple[int, ...], kept: Callable[[int], bool]) -> dict[int, float]:
    """Each draw that is kept with the same chance."""
    chosen = [y for y in draws if kept(y)]
    return {y: float(Fraction(k, len(chosen))) for y, k in Counter(chosen).items()}


def best(score: Sequence[float]) -> Chooser:
    """The draw with the largest score, ties at random."""
    return lambda draws: evenly(draws, lambda y: score[y] == max(score[z] for z in draws))


def soft(score: Sequence[float], tau: float) -> Chooser:
    """Draw y with a chance proportional to e^{score / tau}."""
    def choose(draws: tuple[int, ...]) -> dict[int, float]:
        out: dict[int, float] = {}
        total = sum(exp(score[z] / tau) for z in draws)
        for y in draws:
            out[y] = out.get(y, 0.0) + exp(score[y] / tau) / total
        return out

    return choose


def majority(answers: Sequence[int]) -> Chooser:
    """A draw of the class that came most often, ties among classes at random."""
    def choose(draws: tuple[int, ...]) -> dict[int, float]:
        votes = Counter(answers[y] for y in draws)
        winners = [k for k, v in votes.items() if v == max(votes.values())]
        out: dict[int, float] = {}
        for y in draws:
            if answers[y] in winners:
                out[y] = out.get(y, 0.0) + 1.0 / (len(winners) * votes[answers[y]])
        return out

    return choose


def first_accepted(accepted: Sequence[bool]) -> Chooser:
    """The first draw that is accepted, the last draw if none is."""
    return lambda draws: {next((y for y in draws if accepted[y]), draws[-1]): 1.0}


def median(score: Sequence[float]) -> Chooser:
    """The median of three draws by score (draws that tie have equal scores: any of them at random)."""
    return lambda draws: evenly(draws, lambda y: score[y] == sorted(score[z] for z in draws)[1])


def win_rate(one: Sequence[float], two: Sequence[float], r: Sequence[float]) -> float:
    """P(r(y) > r(z)) + 1/2 P(=), y ~ one, z ~ two."""
    return sum(
        p * q * (1.0 if r[y] > r[z] else 0.5 if r[y] == r[z] else 0.0)
        for y, p in enumerate(one) for z, q in enumerate(two)
    )
