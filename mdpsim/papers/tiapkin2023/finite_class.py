r"""Maximum likelihood in a finite class of policies: log|F|/N, whatever the number of states.

Let pi_E be in F, p and q the laws of trajectories under pi_E and another member, D^2 = int (sqrt p - sqrt q)^2. For each member
E_p prod_{i<=N} sqrt(q/p)(tau_i) = (1 - D^2/2)^N, so by Markov and a union, with probability at least 1 - e^{-t}, all members
have sum_i log(q/p)(tau_i)/2 <= N log(1 - D^2/2) + log|F| + t. The left side is not negative for the maximiser, hence

    D^2(pi_E, pi_hat) <= 2 (log|F| + t)/N  with probability 1 - e^{-t},     E D^2 <= 2 (log|F| + 1)/N.              (17)

With p/q <= W, KL(p||q) <= c(W) D^2, where c(W) = (log W - 1 + 1/W) / (1 - W^{-1/2})^2 is the value at its smallest t = q/p =
1/W of the decreasing function (t - 1 - log t) / (1 - sqrt t)^2 (so c(1) = 2, and c(W) <= 2 + log W). So

    E KL_traj(pi_E || pi_hat) <= 2 c(W) (log|F| + 1) / N.                                                          (18)

W is at most the product over stages of the largest pi_E/pi at states that pi_E reaches. "needles" comes near: M states, member
j tilted at state j alone, at the error that N demonstrations leave in doubt (v = N KL = 2 log M): some member of the M beats
the expert with probability about 3/4, so N E KL is about 1.5 log M, against 4 (log M + 1) in (18).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mdpsim.arrays import FloatArray
from mdpsim.claims.claim import Claim, Point, Twin, per_seed, product
from mdpsim.claims.rules import Mean, Rate
from mdpsim.estimate.cloning import fit_bc_finite
from mdpsim.estimate.data import sample_counts
from mdpsim.estimate.experts import random_expert
from mdpsim.mdp.tabular import MDP
from mdpsim.papers.tiapkin2023.bounds import PAPER, A, H, S, random_instance
from mdpsim.solve.exact import occupancy, trajectory_kl


def hellinger_factor(log_ratio: float) -> float:
    """c(W) of (18) at log W >= 0: the largest KL(p||q) / D^2(p,q) among laws with p/q <= W. c(1) = 2."""
    half = 0.5 * log_ratio
    if half < 1e-3:  # series: the quotient loses digits
        return 2.0 + 2.0 * half / 3.0 + half**2 / 6.0
    return float((log_ratio + np.expm1(-log_ratio)) / np.expm1(-half) ** 2)


def log_ratio_bound(mdp: MDP, expert: FloatArray, policies: FloatArray) -> float:
    """An upper bound of log W: sum over stages of the largest log pi_E/pi over members and pairs (s, a) that pi_E plays."""
    played = (occupancy(mdp, expert)[..., None] > 0) & (expert > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        gaps = np.where(played, np.log(expert) - np.log(policies), -np.inf)
    return float(np.maximum(gaps.max(axis=(0, 2, 3)), 0.0).sum())


def finite_class_bound(mdp: MDP, expert: FloatArray, policies: FloatArray, n_demos: int) -> float:
    """The right side of (18)."""
    factor = hellinger_factor(log_ratio_bound(mdp, expert, policies))
    return 2.0 * factor * (np.log(len(policies)) + 1.0) / n_demos


def _needles(size: int, n_demos: int, rng: np.random.Generator) -> tuple[MDP, FloatArray, FloatArray]:
    """M = size states hit uniformly, two actions, two stages; member j >= 1 differs from the expert (member 0) at state j."""
    horizon = 2
    mdp = MDP(np.full((1, size, 2, size), 1.0 / size), np.zeros((1, size, 2)), np.full(size, 1.0 / size), horizon=horizon)
    expert = np.full((horizon, size, 2), 0.5)
    # N KL = 2 log M: the needle's two rows of mass 1/M each have KL = -log(1 - 4 e^2) / 2.
    tilt = 0.5 * np.sqrt(-np.expm1(-2.0 * size * 2.0 * np.log(size) / (n_demos * horizon)))
    policies = np.repeat(expert[None], size, axis=0)
    sign = rng.choice([-tilt, tilt], size=(size, horizon))
    for j in range(1, size):
        policies[j, :, j, 0] += sign[j]
        policies[j, :, j, 1] -= sign[j]
    return mdp, expert, policies


def _tilted(family: str, size: int, n_demos: int, rng: np.random.Generator) -> tuple[MDP, FloatArray, FloatArray]:
    """A random instance and interior expert; the other members are the expert times exp(noise), of size sqrt(log M / N)."""
    mdp = random_instance(family, rng)
    expert = random_expert(H=H, S=S, A=A, support=A, rng=rng, least=0.1)
    noise = rng.normal(size=(size, H, S, A)) * min(np.sqrt(2.0 * np.log(size) / n_demos), 1.0)
    noise[0] = 0.0
    policies = expert * np.exp(noise)
    return mdp, expert, policies / policies.sum(axis=-1, keepdims=True)


@per_seed
def measure_finite(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """KL_traj(pi_E || pi_hat) of maximum likelihood in a class of ``members`` policies that holds the expert.

    "needles" as above; else random MDPs with members at random around the expert. ``bound`` is (18), ``without_log`` 2 c(W)/N:
    the bound for a class whose size does not count.
    """
    n_demos, size = point["n_demos"], point["members"]
    if point["family"] == "needles":
        mdp, expert, policies = _needles(size, n_demos, rng)
    else:
        mdp, expert, policies = _tilted(point["family"], size, n_demos, rng)
    fit = fit_bc_finite(sample_counts(mdp, expert, n_demos, rng), policies)
    bound = finite_class_bound(mdp, expert, policies, n_demos)
    return {
        "kl": trajectory_kl(mdp, expert, fit.pi), "bound": bound,
        "without_log": bound / (np.log(size) + 1.0), "inverse": 1.0 / n_demos,
    }


_CLASSES = ("dirichlet", "deterministic", "needles")
_GRIDS = {  # |F|, N
    "smoke": ((64,), (10_000, 100_000)),
    "quick": ((8, 128), (10_000, 100_000)),
    "paper": ((8, 64, 256), (10_000, 100_000, 1_000_000)),
    "full": ((8, 64, 256, 512), (10_000, 100_000, 1_000_000)),
}
_RATE = {
    preset: product(family=("needles",), members=(16,), n_demos=(1000, 10_000, 100_000)) for preset in _GRIDS
}

bc_finite_class = Claim(
    id="tiapkin2023/bc-finite-class",
    statement=(
        r"For a class $F$ of policies that holds the expert, maximum likelihood has $\mathbb{E}\,\mathrm{KL}_{\mathrm{traj}}"
        r"(\pi_E\,\|\,\hat\pi) \le 2\,c(W)\,(\log|F| + 1)/N$, with $W = \prod_h \max \pi_{E,h}(a|s)/\pi_h(a|s)$ over members "
        r"$\pi$ and pairs that the expert plays (so $W$ bounds every ratio of trajectories), "
        r"$c(W) = \frac{\log W - 1 + 1/W}{(1-W^{-1/2})^2} \le 2 + \log W$."
    ),
    origin="derived",
    cites=(PAPER.at("behaviour cloning, general policy classes"),),
    grid={preset: product(family=_CLASSES, members=m, n_demos=n) for preset, (m, n) in _GRIDS.items()},
    measure=measure_finite,
    rule=Mean(bound="bound", margin=0.05, of="kl"),
    twins=(
        Twin(
            "without-the-log", r"The same with $2\,c(W)/N$: the size of the class does not count.",
            r"the needles' mean is about $1.5 \log|F|$, above 1.3 times this bound at $|F| = 64$",
            rule=Mean(bound="without_log", margin=0.05, of="kl"),
            grid={
                preset: product(family=("needles",), members=(64 if preset == "smoke" else 128,), n_demos=(100_000,))
                for preset in _GRIDS
            },
        ),
        Twin(
            "root-n", r"The divergence decays as $N^{-1/2}$.", "a slope 0.5 away, on needles scaled with $N$",
            rule=Rate(axis="n_demos", slope=-0.5, margin=0.1, of="kl"), grid=_RATE,
        ),
    ),
    seeds={"smoke": 100, "quick": 150, "paper": 1500, "full": 15_000},
    tags=("cloning", "finite-class", "random-instances"),
    rev=2,
)
