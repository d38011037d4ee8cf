r"""Which divergence: distributional policy gradient (GDC) minimises KL(pi* || pi), KL-regularised RL KL(pi || pi*).

The gradient. grad_theta KL(pi* || pi_theta) = -E_{pi*}[grad log pi_theta] = -E_{pi_theta}[(pi* / pi_theta) grad log pi_theta]:
samples of the policy suffice, weighted by pi* / pi_theta.

No collapse. For a softmax f(theta) = KL(pi* || pi_theta) is convex (the log-partition function) and its Hessian diag(pi) - pi
pi^T has norm at most 1/2. So gradient descent with eta <= 2 has, with theta* = log pi* and the best constant shift c,

    KL(pi* || pi_k) <= min_c |theta_0 - theta* - c|^2 / (2 eta k)      for every k,                                  (6)

(Nesterov 2018, corollary 2.1.2's argument; no constant hidden.) In the first ten steps it is 4 to 40 times the value, later
mostly orders of magnitude above it. RL on the same reward leaves every bound of this form: KL(pi* || pi_k) grows
like log k, as pi* keeps mass where RL does not.

Misspecified. Among factorised laws q, KL(p || q) is smallest at the product of p's marginals, where it is p's multi-information
sum_i H(p_i) - H(p). KL(q || p) is stationary where each factor is the mean-field update of the others.

Two symmetric bits. Let p(00) = p(11), p(01) = p(10), kappa = log(p(11) / p(01)), and m_1, m_2 the means of q. With P(agree) =
m_1 m_2 + (1 - m_1) (1 - m_2), KL(q || p) = const - H(m_1) - H(m_2) - kappa P(agree), so it is stationary where

    logit m_1 = (2 m_2 - 1) kappa,   logit m_2 = (2 m_1 - 1) kappa.                                              (7)

Let kappa >= 0 and g(m) = 1 / (1 + e^{-(2 m - 1) kappa}), which increases. m_1 = g(m_2) < m_2 would give m_2 = g(m_1) <=
g(m_2) = m_1: so m_1 = m_2 = m with logit m = (2 m - 1) kappa. g is concave above 1/2, and its slope there is kappa / 2: 1/2 is
the only solution for kappa <= 2, and beyond there is one more on each side, m and 1 - m. The Hessian at 1/2, ((4, -2 kappa),
(-2 kappa, 4)), then has the eigenvalue 4 - 2 kappa < 0: the two are the minima. kappa < 0 is the same with the second bit
renamed: (m, 1 - m) with |kappa| for kappa. So beyond |kappa| = 2 reverse KL picks a mode (11 or 00; 10 or 01), where forward
KL covers both.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import special

from mdpsim.align.gradient import Policy, Softmax, TokenSoftmax, ascend, exact_gradient
from mdpsim.align.objectives import Distribution, Reward
from mdpsim.claims.claim import Claim, Point, Twin, per_seed, product
from mdpsim.claims.rules import Identity, Inequality
from mdpsim.papers.korbak2022.bounds import FAMILIES, PAPER, ZEROS, Vector, positive, random_instance
from mdpsim.solve.projection import project_markov
from mdpsim.solve.sequence import kl, tilt

STEP, TOL_DIFFERENCE = 1e-6, 1e-7
KAPPAS = {"two-bits-near": (-1.8, 1.8), "two-bits-apart": (2.2, 3.5), "two-bits-opposed": (-3.5, -2.2)}
PRESETS = ("smoke", "quick", "paper", "full")


# --- the gradient ----------------------------------------------------------------------------------------------------


@per_seed
def measure_gdc_gradient(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Largest entry of the difference between grad KL(pi* || pi_theta), by central differences, and its formulas.

    theta is standard normal; the policy a softmax over eight responses or over a binary token tree of depth three.
    ``by_policy``: -E_pi[(pi* / pi) grad log pi] summed response by response; ``by_target``: what ``exact_gradient`` returns.
    False formulas: weights omitted, and the expectation taken over the prior with the unnormalised pi_0 e^{r / beta} / pi.
    """
    prior, rewards = random_instance(point, rng)
    target = tilt(prior, rewards, point["beta"])
    policy: Policy = Softmax(len(prior)) if point["policy"] == "softmax" else TokenSoftmax(2, 3)
    theta = rng.standard_normal(policy.size)
    log_pi = policy.log_pi(theta)
    scores = np.array([policy.pullback(theta, e) for e in np.eye(len(prior))])  # grad log pi(x), row by row
    pi, ratio = np.exp(log_pi), np.exp(target.log_pi - log_pi)
    difference = np.array([
        (kl(target.pi, np.exp(policy.log_pi(theta + e))) - kl(target.pi, np.exp(policy.log_pi(theta - e)))) / (2 * STEP)
        for e in STEP * np.eye(policy.size)
    ])
    unnormalised = np.exp(target.log_pi + target.log_Z - log_pi)
    return {
        "by_policy": _largest(difference + (pi * ratio) @ scores),
        "by_target": _largest(difference + exact_gradient(policy, theta, Distribution(target.pi))),
        "without_weights": _largest(difference + pi @ scores),
        "over_the_prior": _largest(difference + (prior * unnormalised) @ scores),
    }


def _largest(x: Vector) -> float:
    return float(np.abs(x).max())


gdc_gradient = Claim(
    id="korbak2022/gdc-gradient",
    statement=(
        r"Distributional policy gradient follows the forward divergence: $\nabla_\theta\,\mathrm{KL}(\pi^*\,\|\,\pi_\theta) = "
        r"-\mathbb{E}_{\pi_\theta}\big[\tfrac{\pi^*(x)}{\pi_\theta(x)}\,\nabla_\theta \log \pi_\theta(x)\big]$, for softmax "
        r"policies over "
        r"responses and over token trees."
    ),
    origin="derived",
    cites=(PAPER.at("Section 6"),),
    grid={
        preset: product(family=ZEROS, n_responses=(8,), policy=("softmax", "tokens"), beta=betas)
        for preset, betas in zip(PRESETS, ((0.5,), (0.5, 2.0), (0.2, 0.5, 2.0), (0.2, 0.5, 2.0, 10.0)), strict=True)
    },
    measure=measure_gdc_gradient,
    rule=Identity({"by_policy": TOL_DIFFERENCE, "by_target": TOL_DIFFERENCE}),
    twins=(
        Twin(
            "weights-omitted", r"The same without the weights $\pi^*/\pi_\theta$.",
            r"the whole gradient, as $\mathbb{E}\,\nabla\log\pi = 0$",
            rule=Identity({"without_weights": TOL_DIFFERENCE}),
        ),
        Twin(
            "samples-of-the-prior", r"$-\mathbb{E}_{\pi_0}[\pi_0 e^{r/\beta}/\pi_\theta\,\nabla \log \pi_\theta]$: samples "
            "of the prior, no $Z$.",
            r"another weight $\pi_0 Z/\pi_\theta$ on every response: above $10^4$ tolerances",
            rule=Identity({"over_the_prior": TOL_DIFFERENCE}),
        ),
    ),
    seeds={"smoke": 5, "quick": 20, "paper": 200, "full": 2000},
    tags=("bandit", "token-tree", "exact", "random-instances"),
)


# --- no collapse -----------------------------------------------------------------------------------------------------


@per_seed
def measure_no_collapse(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """KL(pi* || pi_k) after k exact steps of GDC from the prior, and the bound (6); false: ``twentieth`` of it."""
    return _after_steps(point, rng, use_reward=False)


@per_seed
def measure_collapse(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The twin's algorithm: the same numbers for as many steps of policy gradient on the reward."""
    return _after_steps(point, rng, use_reward=True)


def _after_steps(point: Point, rng: np.random.Generator, *, use_reward: bool) -> dict[str, float]:
    prior, rewards = random_instance(point, rng)
    prior = positive(prior)
    target = tilt(prior, rewards, point["beta"])
    start, steps, policy = np.log(prior), int(point["steps"]), Softmax(len(prior))
    objective = Reward(rewards) if use_reward else Distribution(target.pi)
    end = ascend(policy, start, objective, eta=point["eta"], steps=steps, every=steps).log_pi[-1]
    apart = start - target.log_pi
    bound = float(((apart - apart.mean()) ** 2).sum()) / (2.0 * point["eta"] * steps)
    return {"value": kl(target.pi, np.exp(end)), "bound": bound, "twentieth": bound / 20.0}


def _descents(eta: tuple[float, ...], steps: tuple[int, ...], n_responses: tuple[int, ...] = (10,)) -> tuple[Point, ...]:
    return product(family=FAMILIES, n_responses=n_responses, beta=(0.5, 2.0), eta=eta, steps=steps)


_ETAS = (0.5, 1.0, 2.0)
_LONG = {
    "smoke": _descents(_ETAS, (10, 100)) + _descents((1.0,), (1000,)),
    "quick": _descents(_ETAS, (10, 100, 1000)) + _descents((1.0,), (10_000,)),
    "paper": _descents(_ETAS, (1, 10, 100, 1000), (4, 10)) + _descents((1.0, 2.0), (10_000,), (4, 10)),
    "full": _descents((0.2, *_ETAS), (1, 10, 100, 1000, 10_000), (4, 10)),
}
_AFTER = {preset: product(family=("dense",), n_responses=(10,), beta=(2.0,), eta=(1.0,), steps=(1000,)) for preset in PRESETS}
_SOON = {preset: product(family=("rare",), n_responses=(10,), beta=(0.5,), eta=_ETAS, steps=(10,)) for preset in PRESETS}

gdc_no_collapse = Claim(
    id="korbak2022/gdc-no-collapse",
    statement=(
        r"Distributional policy gradient does not collapse: with exact gradients, a softmax and step size $\eta \le 2$, "
        r"$\mathrm{KL}(\pi^*\,\|\,\pi_k) \le \min_c \|\log\pi_0 - \log\pi^* - c\|^2 / (2\eta k)$ for every $k$."
    ),
    origin="derived",
    cites=(PAPER.at("Section 6"),),
    grid=_LONG,
    measure=measure_no_collapse,
    rule=Inequality(tol=1e-12),
    twins=(
        Twin(
            "reinforcement-learning", r"The same for policy gradient on $\mathbb{E}_\pi r$.",
            r"$\mathrm{KL}(\pi^*\,\|\,\pi_k)$ grows as $\log k$: above $0.1$ where the bound is below $10^{-3}$",
            measure=measure_collapse, grid=_AFTER,
        ),
        Twin(
            "twentieth-of-the-bound", r"The same with $40\,\eta k$ in place of $2\,\eta k$.",
            r"where a good response is rare the value reaches $0.2$ of the bound in ten steps: a factor of $4$",
            rule=Inequality(bound="twentieth", tol=1e-12), grid=_SOON,
        ),
    ),
    seeds={"smoke": 3, "quick": 6, "paper": 60, "full": 500},
    tags=("bandit", "exact", "random-instances"),
    rev=2,
)


# --- a class that does not contain the target ------------------------------------------------------------------------


@per_seed
def measure_projections(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Forward and reverse projection of a law on bits onto factorised laws.

    "two-bits": symmetric, kappa drawn from [-1.8, 1.8] ("near"), [2.2, 3.5] ("apart") or [-3.5, -2.2] ("opposed");
    "three-bits" (and four): two modes, 000 and 111, of random weight, over a random background. ``forward``: the smallest
    KL(p || q) less the multi-information; ``residual``: that of the mean-field equations; ``means``: distance of the reverse
    minimiser's means from the stated ones (two bits only); ``order``: by how much KL(p || q) or KL(q || p) fails to be smaller,
    by 1e-3, for its own minimiser (where two modes stand apart). False: ``means_half`` and ``means_twice`` take m = 1/2 and
    2 kappa, ``means_equal`` takes (m, m) for kappa < -2 too.
    """
    p, kappa = _two_modes(point["family"], rng)
    forward, reverse = (project_markov(p, d, restarts=20, rng=rng) for d in ("forward", "reverse"))
    bits = p.ndim
    marginals = [p.sum(axis=tuple(j for j in range(bits) if j != i)) for i in range(bits)]
    information = sum(float(special.entr(m).sum()) for m in marginals) - float(special.entr(p).sum())
    flat, f, q = p.reshape(-1), forward.pi.reshape(-1), reverse.pi.reshape(-1)
    apart = point["family"] != "two-bits-near"
    lost = max(kl(flat, f) - kl(flat, q), kl(q, flat) - kl(f, flat)) + 1e-3 if apart else 0.0
    means = [float(reverse.pi.sum(axis=tuple(j for j in range(bits) if j != i))[1]) for i in range(2)]
    if means[0] < 0.5:  # the mirror image is as good
        means = [1.0 - m for m in means]

    def off(m: float, second: float) -> float:
        return 0.0 if kappa is None else max(abs(means[0] - m), abs(means[1] - second))

    m, twice = (0.5, 0.5) if kappa is None else (_mean(abs(kappa)), _mean(2.0 * abs(kappa)))
    agree = kappa is None or kappa >= 0.0
    return {
        "forward": abs(forward.kl - information), "residual": reverse.residual,
        "means": off(m, m if agree else 1.0 - m), "order": max(lost, 0.0), "means_half": off(0.5, 0.5),
        "means_twice": off(twice, twice if agree else 1.0 - twice), "means_equal": off(m, m),
    }


def _two_modes(family: str, rng: np.random.Generator) -> tuple[Vector, float | None]:
    if family in ("three-bits", "four-bits"):
        bits = 3 if family == "three-bits" else 4
        p = 0.1 * rng.dirichlet(np.full(2**bits, 3.0))
        weight = rng.uniform(0.3, 0.6)
        p[0], p[-1] = p[0] + 0.9 * weight, p[-1] + 0.9 * (1.0 - weight)
        return p.reshape((2,) * bits), None
    low, high = KAPPAS[family]
    kappa = rng.uniform(low, high)
    p = np.exp(kappa * np.eye(2))
    return p / p.sum(), float(kappa)


def _mean(kappa: float) -> float:
    """The largest m with logit m = (2 m - 1) kappa: by bisection, from the right of 1/2."""
    low, high = 0.5 + 1e-9, 1.0 - 1e-12
    if special.logit(low) >= (2.0 * low - 1.0) * kappa:
        return 0.5
    for _ in range(80):
        m = 0.5 * (low + high)
        low, high = (m, high) if special.logit(m) < (2.0 * m - 1.0) * kappa else (low, m)
    return 0.5 * (low + high)


_BITS = (*KAPPAS, "three-bits")
_FAR_BITS = {preset: product(family=("two-bits-apart", "two-bits-opposed")) for preset in PRESETS}
_RULE = {"forward": 1e-12, "residual": 1e-12, "means": 1e-6, "order": 0.0}

forward_reverse_misspecified = Claim(
    id="korbak2022/forward-reverse-misspecified",
    statement=(
        r"Onto a class that does not contain the target the two divergences project differently. Among factorised laws $q$ "
        r"of bits, "
        r"$\mathrm{KL}(p\,\|\,q)$ is smallest at the product of the marginals of $p$, where it is the multi-information; "
        r"$\mathrm{KL}(q\,\|\,p)$ at a mean-field fixed point. For two bits with $p_{00} = p_{11}$, $p_{01} = p_{10}$ and "
        r"$\kappa = \log(p_{11}/p_{01})$ its means are $1/2$ for $|\kappa| \le 2$; beyond, $q$ sits at a single mode, with "
        r"means $(m, m)$ for $\kappa > 2$ and $(m, 1-m)$ for $\kappa < -2$, $m \ne 1/2$, $\mathrm{logit}\,m = (2m-1)|\kappa|$."
    ),
    origin="derived",
    cites=(PAPER.at("Section 6"),),
    grid={preset: product(family=_BITS if preset in PRESETS[:2] else (*_BITS, "four-bits")) for preset in PRESETS},
    measure=measure_projections,
    rule=Identity(_RULE),
    twins=(
        Twin(
            "reverse-covers-both-modes", r"$m = 1/2$ for every $\kappa$.", r"$|m - 1/2| > 0.2$ for $|\kappa| \ge 2.2$",
            rule=Identity({"means_half": 1e-6}), grid=_FAR_BITS,
        ),
        Twin(
            "one-sided-threshold", r"$m = 1/2$ for $\kappa \le 2$, and a single mode beyond.",
            r"$|m - 1/2| > 0.2$ for $\kappa \le -2.2$: the probability of agreement breaks the symmetry on either side",
            rule=Identity({"means_half": 1e-6}), grid={preset: product(family=("two-bits-opposed",)) for preset in PRESETS},
        ),
        Twin(
            "equal-means", r"The means are equal, $(m, m)$, for every $\kappa$.", r"$2m - 1 > 0.4$ for $\kappa \le -2.2$",
            rule=Identity({"means_equal": 1e-6}), grid={preset: product(family=("two-bits-opposed",)) for preset in PRESETS},
        ),
        Twin(
            "threshold-one", r"$\mathrm{logit}\,m = (2m-1)\,2|\kappa|$: symmetry breaks beyond $|\kappa| = 1$.",
            r"above $10^{-3}$ in $m$, $10^3$ tolerances", rule=Identity({"means_twice": 1e-6}), grid=_FAR_BITS,
        ),
    ),
    seeds={"smoke": 4, "quick": 20, "paper": 200, "full": 1000},
    tags=("sequences", "exact", "random-instances"),
    rev=2,
)
