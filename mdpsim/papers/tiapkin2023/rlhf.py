r"""RLHF near a clone: the oracle inequality, the error of the fitted reward, and the rate of their sum, tabular and linear.

The method and the inequality stand in mdpsim/learn/rlhf.py: with err = r-hat - r and any policy pi_E,

    V^{pi_E} - V^{pi-hat} <= beta KL_traj(pi_E || pi_BC) - E_{pi_E}[err] + V*_beta(err).                            (40)

As pi-hat is soft-optimal for r-hat, (3) of the reduction for r-hat makes it an identity:

    V^{pi_E} - V^{pi-hat} = beta KL(pi_E || pi_BC) - E_{pi_E}[err] + E_{pi-hat}[err] - beta KL(pi-hat || pi_BC)
                            - beta KL(pi_E || pi-hat),                                                           (40')

of which (40) drops the last term and takes the best policy for the ones before.

The error of the fit. n pairs of independent draws from pi_BC over K arms, Bradley-Terry labels, maximum likelihood inside the
box: sqrt(n) (r-hat - r) is asymptotically normal with covariance I^+, I = 2 (diag(w 1) - w), w_ij = pi_i pi_j s'(r_i - r_j) and
s'(x) = sigma(x) sigma(-x): an unordered pair (i, j), drawn with probability 2 pi_i pi_j, has the information s' v v', v = e_i -
e_j. So

    n E Var_{pi_BC}(err) -> tr(I^+ (diag(pi) - pi pi')).                                                            (41)

The rate. With the clone fixed and every episode covered, err is of order n^{-1/2}, and V*_beta(err) - E_BC[err] is about
Var_BC(err)/(2 beta), of order 1/(n beta). So with beta = c n^{-1/2} the right side of (40) is of order n^{-1/2}, in the tabular
class and in the linear one. With a fixed beta it stays at beta KL_traj(pi_E || pi_BC).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mdpsim.arrays import FloatArray
from mdpsim.claims.claim import PRESETS, Claim, Point, Twin, per_seed, product
from mdpsim.claims.rules import Identity, Inequality, Limit, Rate
from mdpsim.estimate.cloning import fit_bc, fit_bc_linear
from mdpsim.estimate.data import sample_counts
from mdpsim.estimate.experts import epsilon_greedy_expert
from mdpsim.estimate.preferences import sample_preferences
from mdpsim.estimate.reward import fit_reward
from mdpsim.learn.rlhf import RLHF, RLHFRun
from mdpsim.mdp import families
from mdpsim.mdp.linear import LinearMDP
from mdpsim.mdp.tabular import MDP
from mdpsim.papers.tiapkin2023.bounds import EPS, PAPER
from mdpsim.solve.exact import evaluate, solve_soft, trajectory_kl

S, A, H = 4, 3, 3
N_DEMOS, GREED = 50, 0.05  # demonstrations of an expert that is optimal but for GREED uniform actions
KINDS = ("dirichlet", "deterministic", "garnet")
PREFERENCES = PAPER.at("preference-based fine-tuning")


def instance(kind: str, rng: np.random.Generator) -> MDP | LinearMDP:
    """A random MDP of S = 4, A = 3, H = 3 with rewards in [0, 1]; "linear" has S = 10, d = 3."""
    if kind == "linear":
        return families.linear_simplex(S=10, A=A, d=3, H=H, rng=rng, overlap=0.3)
    if kind == "deterministic":
        return families.random_deterministic(S=S, A=A, H=H, rng=rng)
    if kind == "garnet":
        return families.garnet(S=S, A=A, H=H, branching=2, rng=rng)
    return families.random_mdp(S=S, A=A, H=H, rng=rng)


def oracle(mdp: MDP | LinearMDP, expert: FloatArray, clone: FloatArray, fit_r: FloatArray, beta: float) -> dict[str, float]:
    """The right side of (40) for a fitted reward [H, S, A], and what it consists of; exact."""
    err = _error(mdp, fit_r)
    weight = beta * trajectory_kl(mdp, expert, clone)
    of_expert, of_clone = evaluate(err, expert).J, evaluate(err, clone).J
    soft = float(mdp.mu0 @ solve_soft(err, clone, beta).V[0])
    return {"bound": weight - of_expert + soft, "mean_error": weight - of_expert + of_clone, "spent": weight - of_expert}


def pipeline(
    kind: str, n_demos: int, learner: RLHF, rng: np.random.Generator, covered: float = 0.0
) -> tuple[MDP | LinearMDP, FloatArray, RLHFRun]:
    """(mdp, expert, run): a random MDP, an expert that is greedy but for 0.05, its demonstrations, and a run of the learner.

    ``covered`` > 0 mixes the clone with that share of the uniform policy.
    """
    mdp = instance(kind, rng)
    expert = epsilon_greedy_expert(mdp, epsilon=GREED)
    demos = sample_counts(mdp, expert, n_demos, rng)
    clone = None
    if covered:
        fitted = fit_bc_linear(demos, mdp.phi).pi if isinstance(mdp, LinearMDP) else fit_bc(demos)
        clone = (1.0 - covered) * fitted + covered / mdp.A
    return mdp, expert, learner.run(mdp, demos, rng, clone=clone)


def _error(mdp: MDP | LinearMDP, fit_r: FloatArray) -> MDP:
    """The same dynamics with the reward err = r-hat - r."""
    tabular = mdp.to_tabular() if isinstance(mdp, LinearMDP) else mdp
    return MDP(tabular.P, fit_r - np.broadcast_to(tabular.r, fit_r.shape), tabular.mu0, horizon=tabular.H)


@per_seed
def measure_oracle(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Both sides of (40): ``value`` = V^{pi_E} - V^{pi-hat}, and ``bound``, on a random MDP with 50 demonstrations.

    ``mean_error`` is the right side with V*_beta(err) replaced by E_BC[err]: as if no policy could exploit the error. ``gap``
    is the distance between the sides of (40'), ``gap_inequality`` that without its last term. Rounding: 64 float64 roundings of
    the values.
    """
    learner = RLHF(beta=point["beta"], n_pairs=(point["n_pairs"],))
    mdp, expert, run = pipeline(point["family"], N_DEMOS, learner, rng)
    sides = oracle(mdp, expert, run.clone, run.fit.r, point["beta"])
    value = evaluate(mdp, expert).J - evaluate(mdp, run.pi).J
    err = _error(mdp, run.fit.r)
    exploited = sides["spent"] + evaluate(err, run.pi, pi_ref=run.clone, beta=point["beta"]).J
    missed = point["beta"] * trajectory_kl(mdp, expert, run.pi)
    scale = H + point["beta"] * run.kls[-1] + abs(sides["bound"]) + missed
    return sides | {
        "value": value, "gap": abs(exploited - missed - value), "gap_inequality": abs(exploited - value),
        "rounding": 64 * EPS * scale,
    }


rlhf_oracle = Claim(
    id="tiapkin2023/rlhf-oracle",
    statement=(
        r"With $\delta = \hat r - r$ and any expert, RLHF towards the clone loses at most $V^{\pi_E} - V^{\hat\pi} \le "
        r"\beta\,\mathrm{KL}(\pi_E \| \pi_{BC}) - \mathbb{E}_{\pi_E}[\delta] + \max_\pi \{\mathbb{E}_\pi[\delta] - "
        r"\beta\,\mathrm{KL}(\pi \| \pi_{BC})\}$ (trajectory divergences)."
    ),
    origin="derived",
    cites=(PREFERENCES,),
    grid={
        "smoke": product(family=(*KINDS, "linear"), n_pairs=(100,), beta=(0.1,)),
        "quick": product(family=(*KINDS, "linear"), n_pairs=(30, 1000), beta=(0.03, 0.3)),
        "paper": product(family=(*KINDS, "linear"), n_pairs=(10, 100, 1000, 10_000), beta=(0.01, 0.03, 0.1, 0.3, 1.0)),
    },
    measure=measure_oracle,
    rule=Inequality(tol="rounding"),
    twins=(
        Twin(
            "an-error-that-averages-out", r"The same with $\mathbb{E}_{\pi_{BC}}[\delta]$ in the place of the maximum.",
            r"what a policy gains from the error, about $\mathrm{Var}(\delta)/(2\beta)$: with 30 pairs at $\beta = 0.03$ more "
            r"than 80% of random instances exceed this bound",
            rule=Inequality(bound="mean_error", tol="rounding"),
            grid={preset: product(family=KINDS, n_pairs=(30,), beta=(0.03,)) for preset in PRESETS if preset != "full"},
        ),
    ),
    seeds={"smoke": 60, "quick": 60, "paper": 600},
    tags=("rlhf", "random-instances"),
    rev=2,
)


rlhf_identity = Claim(
    id="tiapkin2023/rlhf-identity",
    statement=(
        r"Exactly, $V^{\pi_E} - V^{\hat\pi} = \beta\,\mathrm{KL}(\pi_E \| \pi_{BC}) - \mathbb{E}_{\pi_E}[\delta] + "
        r"\mathbb{E}_{\hat\pi}[\delta] - \beta\,\mathrm{KL}(\hat\pi \| \pi_{BC}) - \beta\,\mathrm{KL}(\pi_E \| \hat\pi)$."
    ),
    origin="derived",
    cites=(PREFERENCES,),
    grid=rlhf_oracle.grid,
    measure=measure_oracle,
    rule=Identity(tol={"gap": "rounding"}),
    twins=(
        Twin(
            "without-the-last-term", r"The same without $\beta\,\mathrm{KL}(\pi_E \| \hat\pi)$.",
            "that term: 0.02 and more with 100 pairs at $\\beta = 0.1$", rule=Identity(tol={"gap_inequality": "rounding"}),
        ),
    ),
    seeds={"smoke": 30, "quick": 30, "paper": 300},
    tags=("rlhf", "exact", "random-instances"),
    rev=2,
)


# --- the error of the fit --------------------------------------------------------------------------------------------

ARMS = 6


def predicted_error(pi: FloatArray, r: FloatArray) -> float:
    """tr(I^+ (diag(pi) - pi pi')) of (41)."""
    p = 1.0 / (1.0 + np.exp(r[None, :] - r[:, None]))
    w = pi[:, None] * pi[None, :] * p * (1.0 - p)
    information = 2.0 * (np.diag(w.sum(axis=1)) - w)
    return float(np.trace(np.linalg.pinv(information, hermitian=True) @ (np.diag(pi) - np.outer(pi, pi))))


@per_seed
def measure_reward_error(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """``ratio``: n Var_{pi_BC}(r-hat - r) over (41), for K = 6 arms of probability at least 0.05 and rewards uniform on [0, 1].

    The box [-2, 3] is far from the rewards. ``halved`` is over half of (41): each pair counted twice.
    """
    pi = 0.05 + (1.0 - 0.05 * ARMS) * rng.dirichlet(np.ones(ARMS))
    mdp, ref = families.bandit(rng.random(ARMS)), pi.reshape(1, 1, -1)
    fit = fit_reward(sample_preferences(mdp, ref, ref, point["n_pairs"], rng), low=-2.0, high=3.0)
    err = fit.r[0, 0] - mdp.r[0, 0]
    ratio = point["n_pairs"] * float(pi @ (err - pi @ err) ** 2) / predicted_error(pi, mdp.r[0, 0])
    return {"ratio": ratio, "halved": 2.0 * ratio}


rlhf_reward_error = Claim(
    id="tiapkin2023/rlhf-reward-error",
    statement=(
        r"The maximum-likelihood reward of $n$ Bradley-Terry pairs has $n\,\mathbb{E}\,\mathrm{Var}_{\pi_{BC}}(\hat r - r) \to "
        r"\mathrm{tr}(I^+ \Sigma)$, $I$ the information of a pair and $\Sigma$ the covariance of an arm's indicator, where "
        r"every arm is covered."
    ),
    origin="derived",
    cites=(PREFERENCES,),
    grid={
        "smoke": product(n_pairs=(4000,)), "quick": product(n_pairs=(4000, 16_000)),
        "paper": product(n_pairs=(4000, 16_000, 64_000)),
    },
    measure=measure_reward_error,
    rule=Limit(value=1.0, margin=0.15, of="ratio"),
    twins=(
        Twin(
            "pairs-counted-twice", r"The limit is half of that.", "a factor of 2: a ratio of 2 in place of 1",
            rule=Limit(value=1.0, margin=0.15, of="halved"),
        ),
    ),
    seeds={"smoke": 250, "quick": 400, "paper": 4000},
    tags=("rlhf", "random-instances"),
)


# --- the rate --------------------------------------------------------------------------------------------------------

PAIRS = (500, 2000, 8000)
ROOT = 6.0  # beta = ROOT n^-1/2
FIXED = 0.3


def _excess(point: Point, rng: np.random.Generator, beta: float, decay: float) -> dict[str, FloatArray]:
    learner = RLHF(beta=beta, decay=decay, n_pairs=PAIRS)
    mdp, expert, run = pipeline(point["family"], point["n_demos"], learner, rng, covered=0.5)
    sides = [oracle(mdp, expert, run.clone, fit.r, b)["bound"] for fit, b in zip(run.fits, run.betas, strict=True)]
    return {"excess": np.array(sides), "loss": run.losses}


@per_seed
def measure_excess(point: Point, rng: np.random.Generator) -> Mapping[str, FloatArray]:
    """``excess``: the right side of (40) for n pairs at beta = 6 n^{-1/2}, exact, on a random MDP; ``loss``: V* - V.

    The clone (log-linear in linear MDPs) is mixed with as much of the uniform policy.
    """
    return _excess(point, rng, ROOT, 0.5)


@per_seed
def measure_excess_fixed(point: Point, rng: np.random.Generator) -> Mapping[str, FloatArray]:
    """The twin's false algorithm: beta = 0.3 whatever n."""
    return _excess(point, rng, FIXED, 0.0)


def _rate_claim(claim_id: str, statement: str, kinds: tuple[str, ...]) -> Claim:
    return Claim(
        id=claim_id, statement=statement, origin="derived", cites=(PREFERENCES,),
        grid={
            "smoke": product(family=kinds, n_demos=(50,)), "quick": product(family=kinds, n_demos=(100,)),
            "paper": product(family=kinds, n_demos=(10, 50, 500)),
        },
        measure=measure_excess,
        rule=Rate(axis="n_pairs", slope=-0.5, margin=0.2, of="excess"),
        twins=(
            Twin(
                "the-weight-fixed", r"The same with $\beta = 0.3$ whatever $n$.", "its exponent is about -0.1: 0.4 away",
                measure=measure_excess_fixed,
            ),
            Twin(
                "as-one-over-n", r"It falls as $1/n$.", "an exponent 0.5 away",
                rule=Rate(axis="n_pairs", slope=-1.0, margin=0.2, of="excess"),
            ),
        ),
        seeds={"smoke": 40, "quick": 60, "paper": 600},
        draws=("family", "n_demos"),
        tags=("rlhf", "rate", "random-instances"),
        within={"n_pairs": PAIRS},
        rev=2,
    )


_BOUND = (
    r"what the oracle inequality allows RLHF to lose to the expert, $\beta\,\mathrm{KL}(\pi_E \| \pi_{BC}) - "
    r"\mathbb{E}_{\pi_E}[\delta] + \max_\pi \{\mathbb{E}_\pi[\delta] - \beta\,\mathrm{KL}(\pi \| \pi_{BC})\}$, falls as "
    r"$n^{-1/2}$ in the number $n$ of preferences. (Seven tenths of it or more are its first term, $n^{-1/2}$ by the choice of "
    r"$\beta$; the loss itself is not judged.)"
)

rlhf_rate = _rate_claim(
    "tiapkin2023/rlhf-rate", r"With $\beta = 6\,n^{-1/2}$ and a clone mixed with as much of the uniform policy, " + _BOUND,
    KINDS,
)

rlhf_linear = _rate_claim(
    "tiapkin2023/rlhf-linear",
    r"In linear MDPs, with a log-linear clone mixed with as much of the uniform policy, rewards fitted in the $d$ features "
    r"and $\beta = 6\,n^{-1/2}$, " + _BOUND,
    ("linear",),
)
