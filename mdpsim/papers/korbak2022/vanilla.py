r"""Distribution collapse under plain policy gradient: a power law, and what happens to ties.

The flow theta' = grad J_RL of a softmax is pi_i' = pi_i^2 (r_i - E r) - pi_i sum_k pi_k^2 (r_k - E r), theta_i' = pi_i (r_i -
E r).

An invariant. (e^{-theta_i})' = -e^{-theta_i} pi_i (r_i - E r) = (E r - r_i) / Z, Z = sum e^theta. So with theta(0) = log pi_0,
a best response * and Delta_j = r_* - r_j,

    e^{-theta_j(t)} - e^{-theta_*(t)} = 1/pi_0(j) - 1/pi_0(*) + Delta_j I(t),   I(t) = int_0^t ds / Z(s):             (4)

the same I(t) for every j, exactly, whatever the start.

Rates. Let m be the number of responses that are not best, and * one of the n' best ones that share the largest prior among the
best. sum_i theta_i' = 0, so sum_i theta_i is constant. In (4) I(t) -> oo (if it stayed bounded, so would theta and Z, but I' =
1/Z); a best response i has Delta_i = 0. So as t grows e^{-theta_j} ~ Delta_j I for the m others; a best response that started
smaller keeps a finite theta_i, for e^{-theta_i} -> 1/pi_0(i) - 1/pi_0(*) > 0; and the n' leaders, being equal, take up what
the sum is left with: n' theta_* = m log I + const + o(1). Hence Z ~ n' e^{theta_*} ~ c I^{m/n'} for a constant c, I' = 1/Z
gives c I^{1 + m/n'} ~ (1 + m/n') t, and pi_j = e^{theta_j} / Z ~ 1 / (Delta_j c I^{1 + m/n'}). So t Delta_j pi_j -> 1 / (1 +
m/n') for each of the m, whatever its gap, and summed

    t (r_* - E r) -> m / (1 + m / n');   a best response that started smaller decays like 1/Z ~ t^{-m / (n' + m)}.  (5)

With one best response this is (K - 1) / K, for any gaps and any start. The limit is universal; its speed is not: of order
log(t) / t from a uniform start, powers of t else. The claim on the limit therefore starts uniformly, and (4) covers every
start.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mdpsim.align.gradient import Softmax, flow
from mdpsim.align.objectives import Reward
from mdpsim.claims.claim import Claim, Point, Twin, per_seed, product
from mdpsim.claims.rules import Identity
from mdpsim.papers.korbak2022.bounds import PAPER, Vector

TOL_INVARIANT = 1e-7  # LSODA at rtol 1e-11 over up to twenty units of log time: 1e-9 seen, times a hundred
TOL_LIMIT = 2e-3  # K log(t) / (Delta t) with K = 8, Delta = 0.1, t = 1e7 is 1.3e-4, times ten for its constant
TOL_TIES = 0.02  # losing best responses enter q as t^{-2 m / (n' + m)}; the slowest point of the grid has 1e-9 to the power 0.5
TIMES = np.array([10.0, 1e3, 1e5, 1e7])
LATE = np.array([1e8, 1e9])


def one_best(family: str, rng: np.random.Generator) -> tuple[Vector, Vector]:
    """(prior, rewards) with one best response, at least 0.1 above the others; "four-arms" is the theory's example."""
    if family == "four-arms":
        return np.full(4, 0.25), np.array([1.0, 0.8, 0.5, 0.1])
    k = 12 if family == "twelve-arms" else 8
    rewards = np.append(1.0, rng.uniform(0.0, 0.9, k - 1))
    return (rng.dirichlet(np.full(k, 2.0)) if family == "unequal" else np.full(k, 1.0 / k)), rewards


@per_seed
def measure_softmax_pg(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The flow of J_RL at t = 10 .. 1e7: ``invariant``, the relative spread over j of I(t) in (4), the worst of the times;
    ``limit``, |t (r_* - E r) - (K - 1) / K| at the last time, where the start is uniform (0 else). The other columns put 1 in
    place of
    (K - 1) / K, Delta_j = 1 in (4), and take -log(1 - pi(*)) to be Delta t as for the natural gradient, relative to that.
    """
    prior, rewards = one_best(point["family"], rng)
    path = flow(Softmax(len(prior)), np.log(prior), Reward(rewards), TIMES, rtol=1e-11)
    gaps, t = 1.0 - rewards[1:], TIMES[-1]
    grown = np.exp(-path.theta[:, 1:]) - np.exp(-path.theta[:, :1]) - 1.0 / prior[1:] + 1.0 / prior[0]
    pi = np.exp(path.log_pi[-1])
    scaled = t * float(pi[1:] @ gaps)
    uniform, k = point["family"] != "unequal", len(prior)
    decay = -float(np.log(pi[1:].sum())) / (float(gaps.min()) * t)
    return {
        "invariant": _spread(grown / gaps), "invariant_without_gaps": _spread(grown),
        "limit": abs(scaled - (k - 1) / k) if uniform else 0.0, "limit_one": abs(scaled - 1.0),
        "exponential": abs(decay - 1.0),
    }


def _spread(x: Vector) -> float:
    """Largest relative range of the rows of x."""
    return float((np.ptp(x, axis=1) / np.abs(x).max(axis=1)).max())


_FAMILIES = ("four-arms", "uniform", "unequal")
_UNIFORM = {preset: product(family=("four-arms", "uniform")) for preset in ("smoke", "quick", "paper", "full")}

collapse_softmax_pg = Claim(
    id="korbak2022/collapse-softmax-pg",
    statement=(
        r"Without the KL term the policy gradient flow $\dot\theta = \nabla\,\mathbb{E}_{\pi_\theta} r$ of a softmax over $K$ "
        r"responses with one best response collapses as a power law: from a uniform start $t\,(r_* - \mathbb{E}_{\pi_t} r) \to "
        r"(K-1)/K$, whatever the gaps; and from every start $e^{-\theta_j} - e^{-\theta_*} = 1/\pi_0(j) - 1/\pi_0(*) + "
        r"\Delta_j I(t)$ "
        r"exactly, with one $I(t)$ for all $j$."
    ),
    origin="derived",
    cites=(PAPER.at("Section 2, equation (2)"),),
    grid={
        "smoke": product(family=_FAMILIES), "quick": product(family=_FAMILIES),
        "paper": product(family=(*_FAMILIES, "twelve-arms")), "full": product(family=(*_FAMILIES, "twelve-arms")),
    },
    measure=measure_softmax_pg,
    rule=Identity({"invariant": TOL_INVARIANT, "limit": TOL_LIMIT}),
    twins=(
        Twin(
            "limit-one", r"The same with limit $1$.", r"$1/K \ge 1/8$ against a tolerance of $2 \cdot 10^{-3}$",
            rule=Identity({"limit_one": TOL_LIMIT}), grid=_UNIFORM,
        ),
        Twin(
            "exponential-rate", r"$-\log(1-\pi_t(*)) \sim \Delta t$, as for the natural gradient.",
            r"$\log(t)/(\Delta t)$ in place of $1$: a relative gap above $0.99$ at $t = 10^7$",
            rule=Identity({"exponential": 0.5}),
        ),
        Twin(
            "no-gaps", r"The invariant without the factor $\Delta_j$.", r"a spread of $1 - \min_j \Delta_j / \max_j \Delta_j$",
            rule=Identity({"invariant_without_gaps": TOL_INVARIANT}),
        ),
    ),
    seeds={"smoke": 4, "quick": 20, "paper": 200, "full": 1000},
    tags=("bandit", "exact", "random-instances"),
)


# --- ties ------------------------------------------------------------------------------------------------------------


@per_seed
def measure_ties(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """n best responses of which ``leaders`` share the largest prior, m others, at t = 1e8 and 1e9.

    ``limit``: |t (r_* - E r) - m / (1 + m / n')|. ``slope``: that of log pi of a best response that started smaller against
    log t, less -m / (n' + m) (0 where there is none). The false columns take n' = n, and keep the proportions of the prior.
    """
    n, leaders, m = point["n_best"], point["leaders"], point["n_other"]
    share = rng.uniform(0.4, 0.7) if leaders < n else 1.0  # the others' prior, relative to the leaders'
    prior = np.concatenate([np.ones(leaders), np.full(n - leaders, share), rng.uniform(0.5, 1.0, m)])
    prior /= prior.sum()
    rewards = np.append(np.ones(n), rng.uniform(0.0, 0.8, m))
    path = flow(Softmax(n + m), np.log(prior), Reward(rewards), LATE, rtol=1e-11)
    scaled = float(LATE[-1] * (np.exp(path.log_pi[-1, n:]) @ (1.0 - rewards[n:])))
    slope, kept = 0.0, 0.0
    if leaders < n:
        slope = float(np.ptp(path.log_pi[:, n - 1])) / float(np.log(10.0)) - m / (leaders + m)
        kept = abs(float(path.log_pi[-1, n - 1] - path.log_pi[-1, 0] - np.log(share)))
    return {
        "limit": abs(scaled - m / (1 + m / leaders)), "slope": abs(slope),
        "limit_all_tied": abs(scaled - m / (1 + m / n)), "proportions": kept,
    }


_TIED = tuple(Point(n_best=n, leaders=k, n_other=m) for n, k, m in ((2, 1, 2), (2, 2, 2), (3, 1, 3), (3, 2, 4), (3, 3, 2)))
_MORE = (*_TIED, Point(n_best=4, leaders=2, n_other=3), Point(n_best=2, leaders=1, n_other=5))
_BROKEN = tuple(p for p in _TIED if p["leaders"] < p["n_best"])

collapse_ties = Claim(
    id="korbak2022/collapse-ties",
    statement=(
        r"With several best responses the policy gradient flow does not keep the prior's proportions among them: if $n'$ "
        r"share the "
        r"largest prior and $m$ responses are not best, $t\,(r_* - \mathbb{E}_{\pi_t} r) \to m/(1 + m/n')$, and a best "
        r"response that "
        r"started smaller decays as $t^{-m/(n'+m)}$."
    ),
    origin="derived",
    cites=(PAPER.at("Section 2, equation (2)"),),
    grid={"smoke": _TIED[:3], "quick": _TIED, "paper": _MORE, "full": _MORE},
    measure=measure_ties,
    rule=Identity({"limit": TOL_TIES, "slope": TOL_TIES}),
    twins=(
        Twin(
            "all-best-share", r"The limit is $m/(1 + m/n)$ with all $n$ best responses.", r"at least $0.27$, from $n' < n$",
            rule=Identity({"limit_all_tied": TOL_TIES}),
            grid={"smoke": _BROKEN[:2], "quick": _BROKEN, "paper": _BROKEN, "full": _BROKEN},
        ),
        Twin(
            "proportions-kept", r"Best responses keep the proportions of $\pi_0$, as under the natural gradient.",
            r"$\log(\pi(y)/\pi(x))$ off by $\frac{m}{n'+m} \log t > 9$",
            rule=Identity({"proportions": 0.1}),
            grid={"smoke": _BROKEN[:2], "quick": _BROKEN, "paper": _BROKEN, "full": _BROKEN},
        ),
    ),
    seeds={"smoke": 3, "quick": 10, "paper": 100, "full": 1000},
    tags=("bandit", "exact", "random-instances"),
)
