r"""Tiapkin et al.: Demonstration-Regularized RL (ICLR 2024).

Setting: a finite-horizon MDP with stages h = 0 .. H-1, rewards in [0, 1], an expert pi_E, and N independent demonstrations
(full trajectories of pi_E). KL_traj(pi || pi') = E_pi sum_h KL(pi_h(s_h) || pi'_h(s_h)). The paper's lambda is beta here.
Cloning is add-one: pi_BC(a|s) = (N_h(s,a) + 1) / (N_h(s) + A). d_h(s) is the expert's occupancy.

Cloning, sharp. Given n = N_h(s) visits, Jensen and E[1/(Bin(n,p)+1)] <= 1/((n+1)p) give

    E[KL(pi_E(.|s) || pi_BC(.|s)) | n] <= log((n+A)/(n+1)) <= (A-1)/(n+1),                                       (1)

with equality in the first step for a deterministic expert. The same identity for n ~ Bin(N, d) gives, for any expert,

    E KL_traj(pi_E || pi_BC) <= (A-1) sum_{(h,s): d_h(s)>0} (1 - (1-d_h(s))^{N+1}) / (N+1).                      (2)

Reduction. With V_beta^pi = V^pi - beta KL_traj(pi || pi_BC), eps_E = V* - V^{pi_E} and eps_RL = V_beta^* - V_beta^{pi_RL},

    V* - V^{pi_RL} = eps_E + eps_RL + beta [KL(pi_E||pi_BC) - KL(pi_RL||pi_BC) - KL(pi_E||pi*_beta)]             (3)

exactly (trajectory KLs); dropping the two last terms is the theorem.

Demonstrations enter through their visit counts only, which are drawn forward, N_h(s,.) ~ Mult(N_h(s), pi_E) and
N_{h+1} = sum of Mult(N_h(s,a), P): exact in joint law. Each trial has its own random MDP and expert; points that differ in N
alone share them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mdpsim.arrays import FloatArray
from mdpsim.claims.claim import Claim, Paper, Point, Twin, geometric, per_seed, product
from mdpsim.claims.rules import Inequality, Mean, Rate
from mdpsim.estimate.cloning import fit_bc
from mdpsim.estimate.data import sample_counts
from mdpsim.mdp import families
from mdpsim.mdp.tabular import MDP
from mdpsim.solve.exact import evaluate, occupancy, solve_hard, solve_soft, trajectory_kl

PAPER = Paper(
    key="tiapkin2023",
    authors=(
        "Tiapkin, Daniil and Belomestny, Denis and Calandriello, Daniele and Moulines, Eric and Munos, Remi and "
        "Naumov, Alexey and Perrault, Pierre and Valko, Michal and Menard, Pierre"
    ),
    title="Demonstration-Regularized RL",
    venue="International Conference on Learning Representations (ICLR)",
    year=2024,
    arxiv="2310.17303",
)

EPS = float(np.finfo(float).eps)
S, A, H = 5, 3, 4  # size of the random instances
DELTA = 0.1  # confidence at which the paper's bound is drawn

_FAMILIES = ("dirichlet", "deterministic", "garnet")
_EXPERTS = ("deterministic", "interior")  # the first attains the sharp bound, the second half of it as N grows


def random_instance(family: str, rng: np.random.Generator) -> MDP:
    """A random MDP: "dirichlet" kernels, "deterministic" transitions, "garnet" (two next states); or the "two-arm" bandit."""
    if family == "two-arm":
        return families.bandit(np.array([1.0, 0.0]))
    if family == "dirichlet":
        return families.random_mdp(S=S, A=A, H=H, rng=rng)
    if family == "deterministic":
        return families.random_deterministic(S=S, A=A, H=H, rng=rng)
    return families.garnet(S=S, A=A, H=H, branching=2, rng=rng)


def sharp_bound(d: FloatArray, n_actions: int, n_demos: int) -> float:
    """The right side of (2), for occupancies d [H, S]; 1-(1-d)^{N+1} without cancellation."""
    reached = d[d > 0]
    with np.errstate(divide="ignore"):  # log1p(-1) = -inf: a state visited surely
        hit = -np.expm1((n_demos + 1) * np.log1p(-np.minimum(reached, 1.0)))
    return float((n_actions - 1) * hit.sum() / (n_demos + 1))


def paper_bound(mdp: MDP, n_demos: int, delta: float = DELTA) -> float:
    """Corollary 1 as transcribed: 6SAH log(2e^4 N) log(12HN^2/delta)/N + 18AH/N, with probability 1 - delta."""
    logs = np.log(2 * np.e**4 * n_demos) * np.log(12 * mdp.H * n_demos**2 / delta)
    return float(6 * mdp.S * mdp.A * mdp.H * logs / n_demos + 18 * mdp.A * mdp.H / n_demos)


# --- regularisation towards the clone costs beta KL ------------------------------------------------------------------


@per_seed
def measure_reduction(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Both sides of the reduction for a random MDP, expert, clone and policy, all solved exactly.

    The expert mixes the optimal policy with a random one (weight log-uniform in [1e-3, 1/2]); the clone is fitted to N of its
    demonstrations; pi_RL mixes the regularised optimum with a random policy (weight log-uniform in [1e-6, 1]). ``value`` is
    V* - V^{pi_RL}, ``bound`` is eps_E + eps_RL + beta KL_traj(pi_E || pi_BC); the twin's bound leaves the last term out.
    Tolerance: 64 float64 roundings of the largest number on either side.
    """
    mdp, beta = random_instance(point["family"], rng), point["beta"]
    optimum = solve_hard(mdp)
    expert = _mixed(optimum.pi, rng, 1e-3, 0.5)
    if point["family"] == "two-arm":
        expert = optimum.pi
    clone = fit_bc(sample_counts(mdp, expert, point["n_demos"], rng))
    best = solve_soft(mdp, clone, beta)
    policy = _mixed(best.pi, rng, 1e-6, 1.0)
    v_star, v_beta = float(mdp.mu0 @ optimum.V[0]), float(mdp.mu0 @ best.V[0])
    eps_expert = v_star - evaluate(mdp, expert).J
    eps_rl = v_beta - evaluate(mdp, policy, pi_ref=clone, beta=beta).J
    kl = trajectory_kl(mdp, expert, clone)
    return {
        "value": v_star - evaluate(mdp, policy).J,
        "bound": eps_expert + eps_rl + beta * kl,
        "bound_without_kl": eps_expert + eps_rl,
        "rounding": 64 * EPS * (mdp.H + eps_rl + beta * kl),
    }


def _mixed(pi: FloatArray, rng: np.random.Generator, low: float, high: float) -> FloatArray:
    """(1-w) pi + w (a random policy), w log-uniform in [low, high]."""
    weight = np.exp(rng.uniform(np.log(low), np.log(high)))
    other = families.random_policy(H=pi.shape[0], S=pi.shape[1], A=pi.shape[2], rng=rng)
    return (1 - weight) * pi + weight * other


_REDUCTION_FAMILIES = (*_FAMILIES, "two-arm")

reduction = Claim(
    id="tiapkin2023/reduction",
    statement=(
        r"If $\pi_{\mathrm{RL}}$ is $\varepsilon_{\mathrm{RL}}$-optimal for the objective regularised by $\beta$ towards "
        r"$\pi_{\mathrm{BC}}$, then $V^* - V^{\pi_{\mathrm{RL}}} \le \varepsilon_E + \varepsilon_{\mathrm{RL}} + "
        r"\beta\,\mathrm{KL}_{\mathrm{traj}}(\pi_E\,\|\,\pi_{\mathrm{BC}})$."
    ),
    origin="derived",
    cites=(PAPER.at("Theorem 3"),),
    grid={
        "smoke": product(family=_REDUCTION_FAMILIES, beta=(0.1,), n_demos=(10,)),
        "quick": product(family=_REDUCTION_FAMILIES, beta=(0.02, 0.1, 0.5), n_demos=(5, 50)),
        "paper": product(family=_REDUCTION_FAMILIES, beta=(0.005, 0.02, 0.1, 0.5, 2.0), n_demos=(2, 5, 50, 500)),
        "full": product(family=_REDUCTION_FAMILIES, beta=(0.005, 0.02, 0.1, 0.5, 2.0), n_demos=(2, 5, 50, 500, 5000)),
    },
    measure=measure_reduction,
    rule=Inequality(tol="rounding"),
    twins=(
        Twin(
            "without-kl",
            r"$V^* - V^{\pi_{\mathrm{RL}}} \le \varepsilon_E + \varepsilon_{\mathrm{RL}}$: regularisation is free.",
            r"the term $\beta\,\mathrm{KL}_{\mathrm{traj}}$: without it about 50% of the random instances break the bound",
            rule=Inequality(bound="bound_without_kl", tol="rounding"),
        ),
    ),
    seeds={"smoke": 50, "quick": 400, "paper": 4000, "full": 40000},
    tags=("exact", "random-instances"),
)


# --- cloning, sharp --------------------------------------------------------------------------------------------------


@per_seed
def measure_cloning(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """KL_traj(pi_E || pi_BC) of the add-one clone of N demonstrations, and the bounds for that very instance.

    The expert is "deterministic" (a random action in every state and stage) or "interior" (Dirichlet(1) rows). ``value`` is
    exact given the counts; ``bound`` is (2) with the instance's exact occupancies.
    """
    return _clone(point, rng, noise=0.0)


@per_seed
def measure_noisy_cloning(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The twin's false algorithm: demonstrations with 5% uniform actions mixed in, judged against the clean expert."""
    return _clone(point, rng, noise=0.05)


def _clone(point: Point, rng: np.random.Generator, noise: float) -> dict[str, float]:
    mdp, n_demos = random_instance(point["family"], rng), point["n_demos"]
    kind = families.random_deterministic_policy if point["expert"] == "deterministic" else families.random_policy
    expert = kind(H=mdp.H, S=mdp.S, A=mdp.A, rng=rng)
    shown = (1 - noise) * expert + noise / mdp.A
    clone = fit_bc(sample_counts(mdp, shown, n_demos, rng))
    sharp = sharp_bound(occupancy(mdp, expert), mdp.A, n_demos)
    return {
        "kl": trajectory_kl(mdp, expert, clone),
        "sharp_bound": sharp,
        "sharp_halved": 0.5 * sharp,
        "paper_bound": paper_bound(mdp, n_demos),
    }


_SHARP = (
    r"(A-1)\sum_{(h,s):\,d_h(s)>0} \frac{1-(1-d_h(s))^{N+1}}{N+1}"
)

bc_sharp_mean = Claim(
    id="tiapkin2023/bc-sharp-mean",
    statement=(
        r"With $N$ demonstrations of any expert, add-one behaviour cloning has "
        rf"$\mathbb{{E}}\,\mathrm{{KL}}_{{\mathrm{{traj}}}}(\pi_E\,\|\,\pi_{{\mathrm{{BC}}}}) \le {_SHARP} \le (A-1)SH/(N+1)$."
    ),
    origin="derived",
    cites=(PAPER.at("Corollary 1, sharpened"),),
    grid={
        "smoke": product(family=_FAMILIES, expert=_EXPERTS, n_demos=(30, 300)),
        "quick": product(family=_FAMILIES, expert=_EXPERTS, n_demos=(30, 100, 300, 1000)),
        "paper": product(family=_FAMILIES, expert=_EXPERTS, n_demos=(10, 30, 56, 100, 178, 300, 562, 1000)),
        "full": product(family=_FAMILIES, expert=_EXPERTS, n_demos=(3, 10, 30, 56, 100, 178, 300, 562, 1000)),
    },
    measure=measure_cloning,
    rule=Mean(bound="sharp_bound", margin=0.01, of="kl"),
    twins=(
        Twin(
            "half-the-bound",
            r"The same with half the right side, $(A-1)/2$ in place of $A-1$: the interior expert's constant for every expert.",
            r"a factor of 2: the mean over this bound tends to $2$ as $N$ grows, for a deterministic expert",
            rule=Mean(bound="sharp_halved", margin=0.01, of="kl"),
        ),
    ),
    seeds={"smoke": 100, "quick": 400, "paper": 4000, "full": 40000},
    draws=("family", "expert"),
    tags=("cloning", "random-instances"),
)

bc_rate = Claim(
    id="tiapkin2023/bc-rate",
    statement=(
        r"$\mathbb{E}\,\mathrm{KL}_{\mathrm{traj}}(\pi_E\,\|\,\pi_{\mathrm{BC}})$ of add-one behaviour cloning decays in the "
        rf"number of demonstrations $N$ as the sharp bound ${_SHARP}$ does, that is as $1/N$ up to a constant."
    ),
    origin="derived",
    cites=(PAPER.at("Corollary 1"),),
    grid={
        "smoke": product(family=_FAMILIES, expert=_EXPERTS, n_demos=geometric(100, 10_000, 3)),
        "quick": product(family=_FAMILIES, expert=_EXPERTS, n_demos=geometric(100, 30_000, 6)),
        "paper": product(family=_FAMILIES, expert=_EXPERTS, n_demos=geometric(100, 100_000, 10)),
        "full": product(family=_FAMILIES, expert=_EXPERTS, n_demos=geometric(100, 1_000_000, 13)),
    },
    measure=measure_cloning,
    rule=Rate(axis="n_demos", bound="sharp_bound", margin=0.1, of="kl"),
    twins=(
        Twin(
            "noisy-demonstrations",
            r"The same for demonstrations in which 5% of the actions are uniform, judged against the clean expert.",
            r"the divergence has a floor ($-H \log(0.95 + 0.05/A)$, deterministic expert): a slope flatter by more than 0.3",
            measure=measure_noisy_cloning,
        ),
        Twin(
            "root-n", r"The divergence decays as $N^{-1/2}$.", "a slope 0.5 away",
            rule=Rate(axis="n_demos", slope=-0.5, margin=0.1, of="kl"),
        ),
        Twin(
            "n-to-the-three-halves", r"The divergence decays as $N^{-3/2}$.", "a slope 0.5 away",
            rule=Rate(axis="n_demos", slope=-1.5, margin=0.1, of="kl"),
        ),
    ),
    seeds={"smoke": 100, "quick": 200, "paper": 2000, "full": 20000},
    draws=("family", "expert"),
    tags=("cloning", "rate", "random-instances"),
)
