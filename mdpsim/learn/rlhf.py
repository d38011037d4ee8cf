r"""RLHF: demonstrations, then preferences between episodes of the clone, then the KL-regularised optimum of the fitted reward.

    clone pi_BC of the demonstrations;   n pairs of episodes of pi_BC, labelled by Bradley-Terry;
    r-hat = maximum likelihood on a box;   pi-hat = argmax over pi of V_{r-hat}^pi - beta KL_traj(pi || pi_BC)

No pessimism enters: the KL term alone keeps pi-hat where the pairs were. With err = r-hat - r, for any policy pi_E

    V^{pi_E} - V^{pi-hat} <= beta KL_traj(pi_E || pi_BC) - E_{pi_E}[err] + V*_{beta}(err),                          (oracle)

V*_beta(err) = max over pi of E_pi[err] - beta KL_traj(pi || pi_BC), the soft value of the reward err (for one stage, beta log
E_BC e^{err/beta}): pi-hat is optimal for r-hat, so V_{r-hat}^{pi_E} - beta KL_traj(pi_E || pi_BC) <= V_{r-hat}^{pi-hat} - beta
KL_traj(pi-hat || pi_BC); put V_{r-hat} = V + E[err] on both sides. What adds the same to every episode from a state cancels
between the last two terms. beta = 0 is the hard optimum of r-hat on the clone's support, and overfits where it seldom goes.

The pessimistic baseline has no KL term: mdpsim/learn/pessimism.py.
Reference: Tiapkin et al., "Demonstration-Regularized RL", ICLR 2024 (its section on preferences; its lambda is beta here).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.arrays import FloatArray, IntArray, as_beta, as_count, as_real, fail, frozen
from mdpsim.estimate.cloning import fit_bc, fit_bc_linear
from mdpsim.estimate.data import Counts, Trajectories
from mdpsim.estimate.preferences import Link, sample_preferences
from mdpsim.estimate.reward import RewardFit, check_box, differences, fit_rows
from mdpsim.learn.pessimism import pessimistic_policy
from mdpsim.learn.ucbvi_ent import UCBVIEnt
from mdpsim.mdp.forms import form
from mdpsim.mdp.linear import LinearMDP
from mdpsim.mdp.policies import as_policy
from mdpsim.mdp.tabular import MDP
from mdpsim.records import record
from mdpsim.rng import as_generator
from mdpsim.solve.exact import evaluate, solve_hard, solve_soft


@record
class RLHFRun(NamedTuple):
    """A run of RLHF: what it ends with, and its curve over the number of preferences.

    Args:
        pi: [H, S, A] the policy returned, from all pairs.
        clone: [H, S, A] the policy that the pairs were drawn from.
        fits: [K] the rewards fitted.
        n_pairs: [K] increasing; the other columns are of the method run on so many pairs, the first of one stream.
        betas: [K] weight of the KL term.
        losses: [K] V* - V of the policy, exact.
        kls: [K] KL_traj(policy || clone).
        certificates: [K] of a planner that explores, or the duality gap of the pessimist; 0 where planning is exact.
        episodes: [K] episodes played by a planner that explores; 0 where P is known.
        cloning_loss: V* - V of the clone.
    """

    pi: FloatArray
    clone: FloatArray
    fits: tuple[RewardFit, ...]
    n_pairs: IntArray
    betas: FloatArray
    losses: FloatArray
    kls: FloatArray
    certificates: FloatArray
    episodes: IntArray
    cloning_loss: float

    @property
    def fit(self) -> RewardFit:
        """The reward fitted to all pairs."""
        return self.fits[-1]


@record
class Plan(NamedTuple):
    """A policy [H, S, A] for a fitted reward, what is known of it (0: it is exact), and the episodes played for it."""

    pi: FloatArray
    certificate: float
    n_episodes: int


@dataclass(frozen=True, kw_only=True)
class RLHF:
    """Configuration of RLHF.

    Args:
        beta: weight of the KL term, in [0, inf): 0 is no regularisation.
        decay: the weight at n pairs is beta n^-decay, decay in [0, 2]; 0 keeps beta.
        n_pairs: numbers of pairs at which the method is run, increasing; the last is all that is drawn.
        low, high, ridge: the box of the rewards and the ridge, as in fit_reward.
        planner: None plans exactly on the known P; a UCBVIEnt explores an unknown P with r-hat as its known reward (its beta is
            replaced by the weight here, so beta > 0; the box must lie in [0, 1]).
        pessimism: None, or the radius >= 0 of the pessimistic baseline (beta must be 0 and P known).
        link: None is Bradley-Terry; another preference model as in sample_preferences.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """

    beta: float
    n_pairs: tuple[int, ...]
    decay: float = 0.0
    low: float = 0.0
    high: float = 1.0
    ridge: float = 1e-9
    planner: UCBVIEnt | None = None
    pessimism: float | None = None
    link: Link | None = None

    def __post_init__(self) -> None:
        if not np.isfinite(as_beta("RLHF", self.beta)):
            fail("RLHF", "beta", "be finite", repr(self.beta))
        as_real("RLHF", "decay", self.decay, 0.0, 2.0)
        if not isinstance(self.n_pairs, tuple) or not self.n_pairs:
            fail("RLHF", "n_pairs", "be a tuple of one or more numbers of pairs", repr(self.n_pairs))
        for n in self.n_pairs:
            as_count("RLHF", "n_pairs", n)
        if list(self.n_pairs) != sorted(set(self.n_pairs)):
            fail("RLHF", "n_pairs", "increase", repr(self.n_pairs))
        check_box("RLHF", self.low, self.high, self.ridge)
        if self.link is not None and not callable(self.link):
            fail("RLHF", "link", "be None or a function of the differences of returns", repr(self.link))
        if self.pessimism is not None:
            as_real("RLHF", "pessimism", self.pessimism, 0.0, 1e6)
            if self.beta != 0.0 or self.planner is not None:
                fail("RLHF", "pessimism", "come with beta = 0 and no planner", f"{self.beta} and {self.planner!r}")
        if self.planner is not None:
            if not isinstance(self.planner, UCBVIEnt):
                fail("RLHF", "planner", "be None or a UCBVIEnt", type(self.planner).__name__)
            if self.low < 0.0 or self.high > 1.0:
                fail("RLHF", "low, high", "lie in [0, 1] where a planner explores", (self.low, self.high))
            if self.planner.reward != "known":
                fail("RLHF", "planner", "take the fitted reward as known", f"reward = {self.planner.reward!r}")
            for n in (self.n_pairs[0], self.n_pairs[-1]):
                replace(self.planner, beta=float(self.beta) * float(n) ** -self.decay)

    def run(
        self, mdp: MDP | LinearMDP, demos: Trajectories | Counts, rng: np.random.Generator | int, *,
        clone: ArrayLike | None = None,
    ) -> RLHFRun:
        """Clone ``demos``, draw preferences of the clone's episodes in ``mdp``, fit and plan at every number of pairs.

        Args:
            mdp: an MDP, or a LinearMDP (rewards are then linear in its features, and the clone log-linear in them).
            demos: demonstrations of the expert.
            rng: Generator or seed: of the pairs, and of the planner if there is one.
            clone: [H, S, A], or [S, A] for every stage: a policy to use in place of the clone of ``demos``.
        Returns:
            RLHFRun.
        Raises:
            ValueError: naming the argument, what was wanted and what came.
        """
        if not isinstance(mdp, MDP | LinearMDP):
            fail("RLHF.run", "mdp", "be an MDP or a LinearMDP", type(mdp).__name__)
        if self.planner is not None and not isinstance(mdp, MDP):
            fail("RLHF.run", "mdp", "be an MDP where a planner explores", type(mdp).__name__)
        form("RLHF.run", mdp)  # a fitted reward would forget what is forbidden
        phi = mdp.phi if isinstance(mdp, LinearMDP) else None
        start = self._clone(mdp, demos, phi) if clone is None else as_policy("RLHF.run", "clone", clone, _shape(mdp))
        generator = as_generator("RLHF.run", rng)
        prefs = sample_preferences(mdp, start, start, self.n_pairs[-1], generator, link=self.link)
        rows, fits, plans, values = differences(prefs, phi), [], [], []
        betas = self.beta * np.array(self.n_pairs, float) ** -self.decay
        for n, beta in zip(self.n_pairs, betas, strict=True):
            before = fits[-1].theta if fits else None
            fits.append(fit_rows(rows.head(n), phi, _shape(mdp), self.low, self.high, self.ridge, before))
            plans.append(self.plan(mdp, start, fits[-1], float(beta), generator))
            values.append(evaluate(mdp, plans[-1].pi, pi_ref=start))
        best = float(mdp.mu0 @ solve_hard(mdp).V[0])
        return RLHFRun(
            pi=plans[-1].pi, clone=start, fits=tuple(fits), n_pairs=frozen(np.array(self.n_pairs)), betas=frozen(betas),
            losses=frozen(np.array([best - v.J for v in values])), kls=frozen(np.array([v.kl for v in values])),
            certificates=frozen(np.array([p.certificate for p in plans])),
            episodes=frozen(np.array([p.n_episodes for p in plans])), cloning_loss=best - evaluate(mdp, start).J,
        )

    def _clone(self, mdp: MDP | LinearMDP, demos: Trajectories | Counts, phi: FloatArray | None) -> FloatArray:
        if not isinstance(demos, Trajectories | Counts):
            fail("RLHF.run", "demos", "be Trajectories or Counts", type(demos).__name__)
        if _shape(mdp) != (demos.H, demos.S, demos.A):
            fail("RLHF.run", "demos", f"be of H, S, A = {_shape(mdp)}", (demos.H, demos.S, demos.A))
        return fit_bc(demos) if phi is None else fit_bc_linear(demos, phi).pi

    def plan(
        self, mdp: MDP | LinearMDP, clone: FloatArray, fit: RewardFit, beta: float, rng: np.random.Generator | int = 0
    ) -> Plan:
        """The policy for a fitted reward: regularised towards ``clone`` with weight beta, or the pessimist's.

        Args:
            mdp: its dynamics; its own rewards are not read.
            clone: [H, S, A], or [S, A] for every stage.
            fit: as fit_reward returns it for preferences in ``mdp``.
            beta: weight; only ``run`` applies ``decay``.
            rng: of a planner that explores.
        Raises:
            ValueError: naming the argument, what was wanted and what came.
        """
        form("RLHF.plan", mdp)
        clone, weight = as_policy("RLHF.plan", "clone", clone, _shape(mdp)), as_beta("RLHF.plan", beta)
        if not isinstance(fit, RewardFit) or fit.r.shape != _shape(mdp):
            fail("RLHF.plan", "fit", f"be a RewardFit of H, S, A = {_shape(mdp)}", getattr(fit, "r", fit))
        if self.planner is not None:
            trace = replace(self.planner, beta=weight).run(with_rewards(mdp, fit), clone, rng)  # type: ignore[arg-type]
            return Plan(trace.pi, trace.certificate, trace.n_episodes)
        if self.pessimism is None:
            return Plan(solve_soft(with_rewards(mdp, fit), clone, weight).pi, 0.0, 0)
        prior = 0.25 * (self.high - self.low) ** 2  # variance of a coordinate of which nothing is known
        return Plan(*pessimistic_policy(mdp, clone, fit, radius=self.pessimism, prior=prior), 0)


def _shape(mdp: MDP | LinearMDP) -> tuple[int, int, int]:
    return (mdp.H, mdp.S, mdp.A)


def with_rewards(mdp: MDP | LinearMDP, fit: RewardFit) -> MDP | LinearMDP:
    """The same dynamics with the fitted rewards."""
    if isinstance(mdp, LinearMDP):
        return LinearMDP(mdp.phi, mdp.mu, fit.theta, mdp.mu0, horizon=mdp.H)
    return MDP(mdp.P, fit.r, mdp.mu0, horizon=mdp.H)
