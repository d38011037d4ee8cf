r"""XPO: exploratory preference optimisation, DPO with one more term that pays for leaving the comparator.

Round t draws y ~ pi^t and y~ ~ the comparator, sees a label, and takes

    pi^{t+1} = argmin_pi  alpha sum_i log pi(y~_i) - sum_i log sigma(beta log pi/pi_ref(y+_i) - beta log pi/pi_ref(y-_i)).

Minimising alpha log pi(y~) takes mass off what the comparator writes: optimism. In implicit rewards the term is
(alpha/beta) (rho(y~) - V_rho): for beta fixed only alpha/beta counts. alpha = 0 is DPO with the same comparator, bit for bit.

Comparators: "reference", y~ ~ pi_ref; "history", y~_t ~ Unif(pi^1 .. pi^t), drawn at round t and kept; "policy", y~ ~ pi^t
(on-policy, which fails); or a law of responses. The theorem's weight, as transcribed:

    alpha = c beta / ((V_max + R_max) e^{2 R_max}) sqrt(log(|Pi| T / delta) log T / (T C_cov)).

Reference: Xie et al., "Exploratory Preference Optimization", ICLR 2025, arXiv 2405.21046 (Algorithm 1 and Theorem 3.1).
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.align.classes import FiniteClass, as_temperature, quiet
from mdpsim.align.rounds import BRADLEY_TERRY, Exploration, Plan, PreferenceModel, guard_pairs, play
from mdpsim.arrays import as_count, as_flag, as_real, as_simplex, fail, unknown
from mdpsim.mdp.token import TokenMDP

COMPARATORS = ("reference", "history", "policy")


def theorem_alpha(
    *, beta: float, rounds: int, n_policies: int | None = None, coverability: float, r_max: float = 1.0, v_max: float = 1.0,
    delta: float = 0.05, constant: float = 1.0, log_n_policies: float | None = None,
) -> float:
    """The alpha of Theorem 3.1, as transcribed (not checked against the paper's text), with ``constant`` for its c.

    Args:
        beta: KL weight. rounds: T >= 2. coverability: C_cov. r_max, v_max: as in the theorem. delta: in (0, 1].
        n_policies: |Pi|, any integer >= 1, or log_n_policies: its logarithm (a covering number's, say); exactly one of the two.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    where = "theorem_alpha"
    weight, T = as_temperature(where, beta), as_count(where, "rounds", rounds, low=2)
    C = as_real(where, "coverability", coverability, 1.0 - 1e-9, 1e300)
    R, V = as_real(where, "r_max", r_max, 0.0, 300.0), as_real(where, "v_max", v_max, 1e-300, 1e300)
    share = as_real(where, "delta", delta, 1e-300, 1.0)
    if (n_policies is None) == (log_n_policies is None):
        fail(where, "n_policies or log_n_policies", "be given, exactly one of the two", (n_policies, log_n_policies))
    if log_n_policies is not None:
        log_n = as_real(where, "log_n_policies", log_n_policies, 0.0, 1e300) + math.log(T) - math.log(share)
    else:
        large = isinstance(n_policies, numbers.Integral) and n_policies > 2**62
        n = int(n_policies) if large else as_count(where, "n_policies", n_policies)
        product = math.inf if large else n * T / share
        log_n = np.log(product) if product < math.inf else math.log(n) + math.log(T) - math.log(share)
    c = as_real(where, "constant", constant, 0.0, 1e12)
    return float(c * weight / ((V + R) * np.exp(2.0 * R)) * np.sqrt(log_n * np.log(T) / (T * C)))


@dataclass(frozen=True, kw_only=True)
class XPO:
    """Configuration of XPO over a finite class.

    Args:
        alpha: weight of the bonus, at least 0; or "theorem": Theorem 3.1's for the class and the rounds at hand, with R_max the
            range of the rewards, V_max the largest |beta log pi/pi_ref|, delta = 0.05 and c = 1.
        beta: KL weight, in [1e-8, 1e8].
        comparator: "reference", "history", "policy", or the law of y~, [X, Y] probabilities on pi_ref's support.
        pessimism: asks by name for alpha < 0, which draws the policy towards the comparator.
        smoothing: label smoothing in [0, 1/2]. loss: "logistic" (Bradley-Terry) or "ipo".
        ties: "reference" (the nearest pi_ref) or "random"; see ``align.rounds``.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """

    alpha: float | str
    beta: float
    comparator: str | ArrayLike = "reference"
    pessimism: bool = False
    smoothing: float = 0.0
    loss: str = "logistic"
    ties: str = "reference"

    def __post_init__(self) -> None:
        as_flag("XPO", "pessimism", self.pessimism)
        if isinstance(self.alpha, str):
            if self.alpha != "theorem":
                fail("XPO", "alpha", "be a number or 'theorem'", repr(self.alpha))
            if self.pessimism:
                fail("XPO", "alpha", "be a number < 0 with pessimism=True", repr(self.alpha))
        else:
            value = as_real("XPO", "alpha", self.alpha, -1e300, 1e300)
            if value < 0.0 and not self.pessimism:
                fail("XPO", "alpha", "be >= 0 (pessimism=True asks for a negative one)", value)
            if value >= 0.0 and self.pessimism:
                fail("XPO", "alpha", "be < 0 with pessimism=True", value)
        if not isinstance(self.comparator, str):
            law = as_simplex("XPO", "comparator", self.comparator, "X Y", (None, None))
            object.__setattr__(self, "comparator", tuple(tuple(row) for row in law.tolist()))  # which nobody can change
        elif self.comparator not in COMPARATORS:
            unknown("XPO", "comparator", self.comparator, COMPARATORS)
        self._plan(0.0)

    def _plan(self, alpha: float) -> Plan:
        second = self.comparator if isinstance(self.comparator, str) else "given"
        return Plan(where="XPO", beta=self.beta, alpha=alpha, second=second, smoothing=self.smoothing, loss=self.loss,
                    ties=self.ties)

    @quiet
    def alpha_for(self, mdp: TokenMDP, policies: FiniteClass, rounds: int) -> float:
        """The number that ``alpha`` stands for: itself, or the theorem's."""
        if not isinstance(self.alpha, str):
            return float(self.alpha)
        guard_pairs("XPO.run", mdp, policies)
        rho, V = policies.implicit(self.beta)
        written = policies.log_ref > -np.inf
        v_max = float(np.abs(np.where(written, rho - V[..., None], 0.0)).max())
        r_max = float((np.where(written, mdp.r, -np.inf).max(axis=1) - np.where(written, mdp.r, np.inf).min(axis=1)).max())
        coverability = float((np.exp(policies.log_pi(self.beta)).max(axis=0).sum(axis=1) * mdp.mu0).sum())
        return theorem_alpha(beta=self.beta, rounds=rounds, n_policies=policies.n, coverability=coverability, r_max=r_max,
                             v_max=max(v_max, 1e-300))

    def run(
        self, mdp: TokenMDP, policies: FiniteClass, rounds: int, seeds: int | Sequence[int], *,
        preference: PreferenceModel = BRADLEY_TERRY, start: int | None = None, target: float = 0.0,
        checkpoints: ArrayLike | None = None, keep: bool = False,
    ) -> Exploration:
        """Play T rounds on ``mdp`` over ``policies``, once a seed.

        Args:
            mdp: contexts (its prompts), responses and rewards; length=1 for a bandit.
            policies: a FiniteClass of the same X and Y; it carries pi_ref.
            rounds: T, 1 to 10^9. seeds: one or more integers in [0, 2^128): each run depends on its own seed alone.
            preference: the law of labels.
            start: index of pi^1 in the class; None is pi_ref.
            target: gap below which ``reached`` counts a policy as good.
            checkpoints: increasing rounds at which curves are recorded; None is log-spaced, eight a decade.
            keep: whether pairs and final scores are kept.
        Returns:
            Exploration.
        Cost: O(n) a round (2 ns a policy), after tables of n X Y and X Y^2 numbers.
        Raises:
            ValueError: naming the argument, what was wanted and what came.
        """
        plan = self._plan(self.alpha_for(mdp, policies, rounds))
        given = None if isinstance(self.comparator, str) else self.comparator
        return play(plan, mdp, policies, rounds, seeds, preference=preference, start=start, target=target,
                    checkpoints=checkpoints, given=given, keep=keep)
