r"""The gradient of the objective is the gradient of a divergence.

With pi_theta = softmax(theta) and r'(x) = r(x) + beta (log pi_0(x) - log pi_theta(x)), the term of the chain rule in which
log pi_theta inside r' is differentiated is -beta E[grad log pi_theta] = 0, so

    grad J(pi_theta) = E_{pi_theta}[r'(x) grad log pi_theta(x)] = -beta grad KL(pi_theta || pi*),                (1)

the second equality because J = beta log Z - beta KL(. || pi*). For the softmax, d log pi(x) / d theta_y = 1{x=y} - pi(y), so
the middle of (1) is pi (r' - E r') and the right -beta pi (L - E L) with L = log(pi / pi*).

All three are measured independently: grad J by central differences of the exact evaluation of J, the middle by its
formula, the right by the formula with pi* of the exact solver. A central difference with step h is off by the rounding of
two values of J, each at most 8 eps (the size of its terms) here, over 2 h, and by h^2 / 6 times a third derivative, 1e-12
of the same size. With h = 1e-6 and a size of 20 that is 4e-8: the tolerance is 1e-7, as stated and not scaled.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mdpsim.claims.claim import Claim, Point, Twin, per_seed, product
from mdpsim.claims.rules import Identity
from mdpsim.mdp.families import bandit
from mdpsim.papers.korbak2022.bounds import EPS, FAMILIES, PAPER, Vector, random_instance
from mdpsim.solve.exact import evaluate, solve_soft

STEP, TOL_DIFFERENCE = 1e-6, 1e-7


@per_seed
def measure_gradient(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Largest entry of the differences between grad J and its formulas, at a random policy.

    theta = log pi_0 + s g with g standard normal and s log-uniform in [0.1, 3]. ``by_score`` compares central differences of
    the evaluated J with E[r' grad log pi], ``by_divergence`` with -beta grad KL(pi || pi*); ``exact`` compares these two
    formulas with each other, within ``tolerance``: 64 float64 roundings of the largest term. The other columns put false
    formulas in place of the first.
    """
    prior, rewards = random_instance(point, rng)
    beta = point["beta"]
    scale = np.exp(rng.uniform(np.log(0.1), np.log(3.0)))
    theta = np.log(prior) + scale * rng.standard_normal(len(prior))
    log_pi = theta - special.logsumexp(theta)
    pi = np.exp(log_pi)
    log_posterior = np.log(solve_soft(bandit(rewards), prior[None, None], beta).pi[0, 0])
    by_score = _centred(pi, rewards + beta * (np.log(prior) - log_pi))
    by_divergence = -beta * _centred(pi, log_pi - log_posterior)
    difference = _difference(theta, prior, rewards, beta)
    largest = np.abs(rewards).max() + beta * (np.abs(np.log(prior)).max() + np.abs(log_pi).max() + np.abs(log_posterior).max())
    return {
        "by_score": _largest(difference - by_score),
        "by_divergence": _largest(difference - by_divergence),
        "exact": _largest(by_score - by_divergence),
        "tolerance": 64 * EPS * float(largest),
        "without_log_pi": _largest(difference - _centred(pi, rewards + beta * np.log(prior))),
        "reverse_kl": _largest(difference - beta * (np.exp(log_posterior) - pi)),
        "without_beta": _largest(difference + _centred(pi, log_pi - log_posterior)),
    }


def _centred(pi: Vector, f: Vector) -> Vector:
    """E_pi[f grad log pi] = pi (f - E_pi f) for the softmax."""
    return pi * (f - pi @ f)


def _largest(x: Vector) -> float:
    return float(np.abs(x).max())


def _difference(theta: Vector, prior: Vector, rewards: Vector, beta: float) -> NDArray[np.float64]:
    """Central differences of J(softmax(theta)), J by policy evaluation."""
    mdp, pi_ref = bandit(rewards), prior[None, None]

    def objective(shifted: Vector) -> float:
        return evaluate(mdp, special.softmax(shifted)[None, None], pi_ref=pi_ref, beta=beta).J

    steps = STEP * np.eye(len(theta))
    return np.array([(objective(theta + e) - objective(theta - e)) / (2.0 * STEP) for e in steps])


gradient_identity = Claim(
    id="korbak2022/gradient-identity",
    statement=(
        r"For the softmax policy $\pi_\theta$: $\nabla_\theta J = \mathbb{E}_{\pi_\theta}\big[\big(r + \beta \log "
        r"\tfrac{\pi_0}{\pi_\theta}\big)\,\nabla_\theta \log \pi_\theta\big] = "
        r"-\beta\,\nabla_\theta\,\mathrm{KL}(\pi_\theta\,\|\,\pi^*)$."
    ),
    origin="derived",
    cites=(PAPER.at("Section 3, equation (4), and Section 4, equation (7)"),),
    grid={
        "smoke": product(family=FAMILIES, n_responses=(10,), beta=(0.1, 2.0)),
        "quick": product(family=FAMILIES, n_responses=(3, 10, 30), beta=(0.1, 0.5, 2.0)),
        "paper": product(family=FAMILIES, n_responses=(3, 10, 30, 100), beta=(0.03, 0.1, 0.5, 2.0)),
        "full": product(family=FAMILIES, n_responses=(2, 3, 10, 30, 100), beta=(0.03, 0.1, 0.3, 0.5, 2.0)),
    },
    measure=measure_gradient,
    rule=Identity({"by_score": TOL_DIFFERENCE, "by_divergence": TOL_DIFFERENCE, "exact": "tolerance"}),
    twins=(
        Twin(
            "without-log-pi", r"The same with $r + \beta \log \pi_0$ in place of $r + \beta \log(\pi_0 / \pi_\theta)$.",
            r"an error of $\beta\,\pi\,|\log\pi - \mathbb{E} \log\pi|$: 0.01 to 0.5, that is $10^5$ tolerances or more",
            rule=Identity({"without_log_pi": TOL_DIFFERENCE}),
        ),
        Twin(
            "reverse-kl", r"$\nabla_\theta J = -\beta\,\nabla_\theta\,\mathrm{KL}(\pi^*\,\|\,\pi_\theta)$.",
            r"$\beta(\pi^* - \pi_\theta)$ in place of $\nabla J$: about $10^5$ tolerances",
            rule=Identity({"reverse_kl": TOL_DIFFERENCE}),
        ),
        Twin(
            "without-beta", r"$\nabla_\theta J = -\nabla_\theta\,\mathrm{KL}(\pi_\theta\,\|\,\pi^*)$.",
            r"a factor $1/\beta$; no $\beta$ of the grid is 1: about $10^5$ tolerances",
            rule=Identity({"without_beta": TOL_DIFFERENCE}),
        ),
    ),
    seeds={"smoke": 10, "quick": 40, "paper": 400, "full": 4000},
    tags=("bandit", "exact", "random-instances"),
)
