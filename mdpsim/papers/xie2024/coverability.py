r"""Coverability is a sum of suprema, and it bounds how often past data can fail to predict: the extrapolation coefficient.

The derivations stand in ``mdpsim.align.coverage``: Ccov = inf_mu sup_{pi, tau} d^pi(tau) / mu(tau) = sum_tau sup_pi d^pi(tau),
its closed form on a box of rewards, and SEC <= 4 Ccov D^2 / lambda + (2 / log 2) Ccov log T.

The coefficient is a supremum over sequences of policies; what is measured is the greedy sequence, a lower bound. It can
refute an upper bound and not establish one: here the bound has a proof, and greedy shows how far it is from attained.

* "needles": policies that each prefer one response of K over a nearly uniform reference. Only a policy's own visits teach
  about it; greedy takes them in turn, and the n-th visit adds about 1/n: K (1 + log(T / K)) in all, with Ccov = K. So neither
  Ccov nor log T can go.
* "wrong": one policy, Ccov = 1, sure of a response that the reference hardly gives and that is D worse than it says. Then
  delta is D almost surely, and the sum is D^2 / lambda + sum_{k < T} 1 / max(k, lambda / D^2). With lambda = D^2 / 4 that is
  4 + 1 + 1/2 + 1/3 + .. > 1.5 log T for T up to some thousands: 1.5 Ccov log T from T = 64 on, which random classes suggest, is
  false. On every class tried greedy stays below Ccov (D^2 / lambda + 1 + log T), for which we have no proof.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
from scipy import special

from mdpsim.align.coverage import box_coverability, coverability, extrapolation_bound, greedy_extrapolation
from mdpsim.arrays import FloatArray
from mdpsim.claims.claim import Claim, Point, Twin, per_seed, product
from mdpsim.claims.rules import Identity, Inequality
from mdpsim.mdp.token_families import token_tree
from mdpsim.papers.xie2024.bounds import PAPER
from mdpsim.papers.xie2024.trajectories import random_policy
from mdpsim.solve.exact import solve_soft

FEASIBLE = 1e-10  # what HiGHS is asked for
R_MAX = 1.0


def log_tilts(pi_ref: FloatArray, rho: FloatArray, beta: float) -> FloatArray:
    """[M, Y] log of pi_ref e^{rho / beta} / Z for rewards rho [M, Y]."""
    return special.log_softmax(np.log(pi_ref) + rho / beta, axis=-1)


def corners(n: int) -> FloatArray:
    """[2^n, n] all rewards that are 0 or R_MAX at every response."""
    return R_MAX * np.array(list(itertools.product((0.0, 1.0), repeat=n)))


def random_class(point: Point, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """(log_pi [M, X, Y], pi_ref [X, Y], r [X, Y], mu0 [X]): a class of policies with rewards in [0, 1] implicit in it.

    "box": the corners of the box of rewards and 20 random rewards; "prompts": 30 random rewards for each of two prompts;
    "tokens": the optima of 20 token trees with random rewards; "laws": 20 Dirichlet laws, whose implicit rewards are what they
    are; "needles": one policy a response, which has reward 1 there, over a nearly uniform reference; "wrong": one policy that
    has reward 1 at a response of probability e^{-1 / 2 beta} and 0 elsewhere, where the truth is 0 there and near 1 elsewhere.
    """
    beta, family, n = point["beta"], point["family"], point["n_responses"]
    if family == "tokens":
        tree = token_tree(vocabulary=2, length=3, rng=rng)
        ref = np.exp(tree.mdp.responses(tree.pi_ref).log_prob)
        optima = [solve_soft(token_tree(vocabulary=2, length=3, rng=rng).mdp, tree.pi_ref, beta).pi for _ in range(20)]
        return np.array([tree.mdp.responses(pi).log_prob for pi in optima]), ref, tree.mdp.r, tree.mdp.mu0
    prompts = 2 if family == "prompts" else 1
    ref = random_policy(np.empty((prompts, n)), rng)
    r = rng.uniform(0.0, R_MAX, (prompts, n))
    if family == "needles":
        near = rng.uniform(0.9, 1.1, n)
        return log_tilts(near / near.sum(), R_MAX * np.eye(n), beta)[:, None], near[None] / near.sum(), 0.1 * r, np.ones(1)
    if family == "wrong":
        rare = float(np.exp(-0.5 * R_MAX / beta))
        ref = np.append(rare, np.full(n - 1, (1.0 - rare) / (n - 1)))[None]
        truth = np.append(0.0, 1.0 - 0.01 * r[0, 1:])[None]
        return log_tilts(ref[0], R_MAX * np.eye(n)[:1], beta)[:, None], ref, truth, np.ones(1)
    if family == "laws":
        return np.log(random_policy(np.empty((20, 1, n)), rng)), ref, r, np.ones(1)
    if family == "box":
        rho = np.concatenate([corners(n), rng.uniform(0.0, R_MAX, (20, n))])
        return log_tilts(ref[0], rho, beta)[:, None], ref, r, np.ones(1)
    rho = R_MAX * rng.uniform(size=(30, prompts, n)) ** 0.3
    return log_tilts(ref, rho, beta), ref, r, rng.dirichlet(np.ones(prompts))


# --- the closed form ---------------------------------------------------------------------------------------------------


def linear_program(d: FloatArray) -> float:
    """inf_mu sup d / mu over laws mu, for d [M, N], from the definition: 1 / max{s: mu >= s d, mu in the simplex}."""
    from scipy.optimize import linprog  # slow to import: at the first call

    m, n = d.shape
    above = np.concatenate([np.tile(-np.eye(n), (m, 1)), d.reshape(-1, 1)], axis=1)  # s d - mu <= 0
    total = np.append(np.ones(n), 0.0)[None]
    options = {"primal_feasibility_tolerance": FEASIBLE, "dual_feasibility_tolerance": FEASIBLE}
    aim = np.append(np.zeros(n), -1.0)
    found = linprog(aim, A_ub=above, b_ub=np.zeros(m * n), A_eq=total, b_eq=[1.0], method="highs", options=options)
    return 1.0 / -found.fun


@per_seed
def measure_formula(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """|sum of suprema - linear program| for a random class; on boxes ``closed`` is |(2) of align.coverage - linear program|.

    False: the best ratio to the uniform law (``uniform``), the number of responses, the mean of the policies in place of
    the supremum (which sums to 1). ``tolerance``: constraints mu >= s d - f, f the program's feasibility, and s = 1 / C let
    C be off by N f C^2 for N trajectories; twice that.
    """
    logs, ref, _, mu0 = random_class(point, rng)
    d = (mu0[:, None] * np.exp(logs)).reshape(len(logs), -1)
    least = linear_program(d)
    boxed = point["family"] == "box"
    closed = box_coverability(ref, r_max=R_MAX, beta=point["beta"], mu0=mu0) if boxed else least
    return {
        "gap": abs(coverability(logs, mu0=mu0) - least), "closed": abs(closed - least),
        "tolerance": 2.0 * FEASIBLE * d.shape[1] * least**2,
        "uniform": abs(float(d.max()) * d.shape[1] - least),
        "responses": abs(ref.shape[1] - least), "average": abs(float(d.mean(axis=0).sum()) - least),
    }


_FAMILIES = ("box", "prompts", "tokens", "laws")

coverability_formula = Claim(
    id="xie2024/coverability-formula",
    statement=(
        r"Coverability is a sum of suprema: $\inf_\mu \sup_{\pi,\tau} d^\pi(\tau)/\mu(\tau) = \sum_\tau \sup_\pi d^\pi(\tau)$; "
        r"on the box of rewards $[0,R]^K$ it is $\sum_a p_a / (p_a + (1-p_a)\,e^{-R/\beta})$ with $p = \pi_{\mathrm{ref}}$."
    ),
    origin="derived",
    cites=(PAPER.at("definition of coverability"),),
    grid={
        "smoke": product(family=_FAMILIES, n_responses=(4,), beta=(0.2,)),
        "quick": product(family=_FAMILIES, n_responses=(3, 5), beta=(0.05, 0.3)),
        "paper": product(family=_FAMILIES, n_responses=(2, 3, 5), beta=(0.02, 0.05, 0.3, 2.0)),
        "full": product(family=_FAMILIES, n_responses=(2, 3, 4, 5, 6), beta=(0.02, 0.05, 0.3, 2.0)),
    },
    measure=measure_formula,
    rule=Identity({"gap": "tolerance", "closed": "tolerance"}),
    twins=(
        Twin(
            "uniform-measure", r"The infimum is attained at the uniform $\mu$: $K \max_{\pi,\tau} d^\pi(\tau)$.",
            r"0.1 to 4 above, $10^{7}$ tolerances", rule=Identity({"uniform": "tolerance"}),
        ),
        Twin(
            "number-of-responses", r"Coverability is $K$.", r"0.01 to 3 above: $10^6$ tolerances",
            rule=Identity({"responses": "tolerance"}),
        ),
        Twin(
            "mean-policy", r"$\sum_\tau$ of the mean of $d^\pi(\tau)$ over the class in place of the supremum.",
            r"1, below by at least 0.1: $10^7$ tolerances", rule=Identity({"average": "tolerance"}),
        ),
    ),
    seeds={"smoke": 3, "quick": 8, "paper": 80, "full": 500},
    tags=("exact", "finite-class", "random-instances"),
)


# --- the coefficient ---------------------------------------------------------------------------------------------------


_STEPS = (4, 16, 64, 256, 1024, 4096)


@per_seed
def measure_extrapolation(point: Point, rng: np.random.Generator) -> Mapping[str, FloatArray]:
    """Greedy lower bound of the SEC after T steps with lambda = ``scale`` D^2, and its proven upper bound.

    D is the exact largest |delta| of the class. (The paper's lambda is R_max^2 for policies with rewards in [0, R_max];
    there D is at most 2 R_max.) ``ratio`` is greedy / (Ccov log T). False: the bound with Ccov = 1 (``without_coverage``),
    the bound that does not grow with T (``constant``), 1.5 Ccov log T from T = 64 on (``logarithm``), and greedy with a
    thousandth of lambda (``small_lambda``).
    """
    logs, ref, r, mu0 = random_class(point, rng)
    steps = np.array(_STEPS)
    far = greedy_extrapolation(logs, ref, r, beta=point["beta"], mu0=mu0, steps=1, least=1.0).D
    least = point["scale"] * far**2

    def greedy(floor: float) -> FloatArray:
        found = greedy_extrapolation(logs, ref, r, beta=point["beta"], mu0=mu0, steps=_STEPS[-1], least=floor)
        return found.value[steps - 1]

    ccov, value = coverability(logs, mu0=mu0), greedy(least)
    return {
        "value": value, "bound": extrapolation_bound(ccov, D=far, least=least, steps=steps),
        "ratio": value / (ccov * np.log(steps)),
        "without_coverage": extrapolation_bound(1.0, D=far, least=least, steps=steps),
        "constant": np.full(steps.size, 4.0 * ccov / point["scale"]),
        "logarithm": np.where(steps < 64, np.inf, 1.5 * ccov * np.log(steps)),
        "small_lambda": greedy(1e-3 * least),
    }


_CLASSES = (*_FAMILIES, "needles", "wrong")
_WRONG = {preset: product(family=("wrong",), n_responses=(4,), beta=(0.02,), scale=(0.25,)) for preset in (
    "smoke", "quick", "paper", "full")}
_NEEDLES = {preset: product(family=("needles",), n_responses=(32,), beta=(0.1,), scale=(4.0,)) for preset in (
    "smoke", "quick", "paper", "full")}

sec_coverability = Claim(
    id="xie2024/sec-coverability",
    statement=(
        r"The sequential extrapolation coefficient is at most $4\,C_{\mathrm{cov}} D^2/\lambda + \frac{2}{\log 2} "
        r"C_{\mathrm{cov}} \log T$, $D$ the largest $|\delta_\pi|$; measured on the greedy sequence, a lower bound of it."
    ),
    origin="derived",
    cites=(PAPER.at("sequential extrapolation coefficient and coverability"),),
    grid={
        "smoke": product(family=_CLASSES, n_responses=(4,), beta=(0.1,), scale=(0.25,)),
        "quick": product(family=_CLASSES, n_responses=(3, 6), beta=(0.02, 0.3), scale=(0.25, 1.0)),
        "paper": product(family=_CLASSES, n_responses=(3, 6, 8), beta=(0.02, 0.1, 0.3, 1.0), scale=(0.1, 0.25, 1.0)),
        "full": product(family=_CLASSES, n_responses=(3, 6, 8), beta=(0.01, 0.02, 0.1, 0.3, 1.0), scale=(0.1, 0.25, 1.0, 4.0)),
    },
    measure=measure_extrapolation,
    rule=Inequality(tol=1e-9),
    twins=(
        Twin(
            "without-coverage", r"The same with 1 in place of $C_{\mathrm{cov}}$.",
            r"on 32 needles with $\lambda = 4 D^2$ greedy reaches 78 at $T = 4096$, 3 times $1 + (2/\log 2) \log T = 25$",
            rule=Inequality(bound="without_coverage", tol=1e-9), grid=_NEEDLES,
        ),
        Twin(
            "without-the-logarithm", r"At most $4\,C_{\mathrm{cov}} D^2/\lambda$ for every $T$.",
            r"on 32 needles with $\lambda = 4 D^2$ greedy reaches 78 at $T = 4096$, 2.4 times $C_{\mathrm{cov}} = 32$",
            rule=Inequality(bound="constant", tol=1e-9), grid=_NEEDLES,
        ),
        Twin(
            "logarithm-only", r"At most $1.5\,C_{\mathrm{cov}} \log T$ for $T \ge 64$, as random classes suggest.",
            r"8.7 at $T = 64$ for one wrong policy with $\lambda = D^2/4$, 1.4 times $1.5 \log T = 6.2$",
            rule=Inequality(bound="logarithm", tol=1e-9), grid=_WRONG,
        ),
        Twin(
            "tiny-lambda", r"The same bound with $\lambda/1000$ in the coefficient.",
            r"above the bound from $T = 4$ on, by 2 to 50 times", rule=Inequality(of="small_lambda", tol=1e-9),
        ),
    ),
    seeds={"smoke": 3, "quick": 8, "paper": 80, "full": 200},
    within={"steps": _STEPS},
    tags=("exact", "finite-class", "random-instances"),
)
