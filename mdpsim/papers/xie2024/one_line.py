r"""XPO is DPO with one more term: alpha = 0 is DPO with the same comparator, alpha > 0 adds alpha sum_i log pi(y~_i).

Checked against DPO done another way: the pairs of a run are kept, and at every round the least mean DPO loss over the class
is found from all of them by brute force (``fit_dpo``, log-policies and numpy), where XPO adds up scores of implicit rewards,
a round at a time. Both break ties by 1e-9 KL(pi || pi_ref). Instances are random: two contexts, four responses, 24 random
implicit rewards besides the truth and pi_ref, so that no two scores are within rounding of each other.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mdpsim.align.classes import FiniteClass, kl_rows
from mdpsim.align.dpo import dpo_losses, pairs
from mdpsim.align.rounds import NEAREST, Exploration
from mdpsim.align.xpo import XPO
from mdpsim.claims.claim import Claim, Point, Twin, per_seed, product
from mdpsim.claims.rules import Identity
from mdpsim.mdp.token import TokenMDP
from mdpsim.papers.xie2024.bounds import PAPER

X, Y, OTHERS, ROUNDS = 2, 4, 24, 32
ALPHA = 0.05  # alpha / beta where it is not 0
EPS = float(np.finfo(float).eps)


def _instance(rng: np.random.Generator) -> tuple[TokenMDP, FiniteClass, float]:
    r, beta = rng.random((X, Y)), float(np.exp(rng.uniform(np.log(0.05), np.log(0.5))))
    log_ref = np.log(np.maximum(rng.dirichlet(np.ones(Y), size=X), 1e-4))
    log_ref -= np.log(np.exp(log_ref).sum(axis=1, keepdims=True))
    rho = np.concatenate([np.zeros((1, X, Y)), r[None], rng.random((OTHERS, X, Y))])
    return TokenMDP(r, vocabulary=Y, length=1), FiniteClass.from_rewards(rho, log_ref), beta


def _dpo_scores(found: Exploration, policies: FiniteClass, beta: float, mu0: np.ndarray) -> np.ndarray:
    """[T, n] n_pairs (mean DPO loss) + 1e-9 KL(pi || pi_ref), after each round, from the kept pairs of the run."""
    context, first, second, label = found.pairs[0].T
    better, worse = np.where(label == 1, first, second), np.where(label == 1, second, first)
    log_pi = policies.log_pi(beta)
    tie = NEAREST * (kl_rows(log_pi, policies.log_ref[None]) * mu0).sum(axis=1)
    scores = []
    for t in range(1, ROUNDS + 1):
        data = pairs(np.stack([context[:t], better[:t]], axis=1), np.stack([context[:t], worse[:t]], axis=1))
        scores.append(t * dpo_losses(log_pi, policies.log_ref, data, beta=beta) + tie)
    return np.array(scores)


def _compare(point: Point, rng: np.random.Generator, alpha: float) -> dict[str, float]:
    mdp, policies, beta = _instance(rng)
    seed = int(rng.integers(2**62))

    def run(weight: float) -> Exploration:
        learner = XPO(alpha=weight * beta, beta=beta, comparator=point["comparator"])
        return learner.run(mdp, policies, ROUNDS, seed, checkpoints=np.arange(1, ROUNDS + 1), keep=True)

    plain, pushed = run(alpha), run(ALPHA)
    chosen = _dpo_scores(plain, policies, beta, mdp.mu0).argmin(axis=1)
    played = np.append(plain.chosen[0, 1:], plain.final[0])
    scores = _dpo_scores(pushed, policies, beta, mdp.mu0)[-1]
    context, _, second, _ = pushed.pairs[0].T
    term = ALPHA * beta * (policies.log_pi(beta)[:, context, second] - policies.log_ref[context, second]).sum(axis=1)

    def rest(other: np.ndarray) -> float:
        """How far the kept scores and others are from differing by a constant (a pair of equal responses adds log 2)."""
        return float(np.ptp(pushed.scores[0] - other))

    return {
        "choices": float((chosen != played).sum()), "term": rest(scores + term), "no_term": rest(scores),
        "term_tolerance": 4 * EPS * ROUNDS * float(1.0 + np.abs(scores).max() + np.abs(term).max()), "none": 0.0,
    }


@per_seed
def measure_one_line(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """A run of 32 rounds on a random instance. ``choices``: rounds in which XPO with alpha = 0 and brute-force DPO disagree.

    ``term``: how far the scores of XPO with alpha/beta = 0.05 are from DPO's loss plus alpha sum log pi/pi_ref(y~), up to a
    constant.
    """
    return _compare(point, rng, 0.0)


@per_seed
def measure_small_alpha(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The twin's false algorithm: alpha/beta = 0.05 in the place of 0."""
    return _compare(point, rng, ALPHA)


_COMPARATORS = ("reference", "history", "policy")

one_line_change = Claim(
    id="xie2024/one-line-change",
    statement=(
        r"XPO with $\alpha = 0$ takes, in every round, the policy of least DPO loss on the pairs so far, whatever the "
        r"comparator; with $\alpha > 0$ its objective differs from that loss by $\alpha \sum_i \log \pi(\tilde y_i)$, and a "
        r"constant, alone."
    ),
    origin="derived",
    cites=(PAPER.at("Algorithm 1"),),
    grid={
        "smoke": product(comparator=_COMPARATORS), "quick": product(comparator=_COMPARATORS),
        "paper": product(comparator=_COMPARATORS, replicate=(0, 1)), "full": product(comparator=_COMPARATORS, replicate=(0, 1)),
    },
    measure=measure_one_line,
    rule=Identity({"choices": "none", "term": "term_tolerance"}),
    twins=(
        Twin(
            "a-small-alpha-is-dpo", r"The same with $\alpha/\beta = 0.05$ in the place of $0$.",
            "1 or more of 32 rounds differ in some trial",
            measure=measure_small_alpha, rule=Identity({"choices": "none"}),
        ),
        Twin(
            "no-term", r"With $\alpha > 0$ the objective is DPO's loss.",
            r"$\alpha$ times a spread of log-likelihoods: $10^{9}$ tolerances",
            rule=Identity({"no_term": "term_tolerance"}),
        ),
    ),
    seeds={"smoke": 6, "quick": 12, "paper": 120, "full": 1200},
    tags=("exploration", "exact", "random-instances"),
)
