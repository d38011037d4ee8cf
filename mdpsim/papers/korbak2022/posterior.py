r"""The objective is an evidence lower bound, and its maximiser is the posterior.

With Z = sum_x pi_0 exp(r/beta) and pi* = pi_0 exp(r/beta) / Z,

    J(pi) = beta log Z - beta KL(pi || pi*)      for every pi << pi_0,                                          (1)

because beta log(pi*/pi_0) = r - beta log Z. So pi*, the posterior, is the only maximiser, and J(pi*) = beta log Z. J is
affine in -KL(pi || pi*), not proportional to it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import special

from mdpsim.claims.claim import Claim, Point, Twin, per_seed, product
from mdpsim.claims.rules import Identity
from mdpsim.mdp.families import bandit
from mdpsim.papers.korbak2022.bounds import EPS, FAMILIES, PAPER, ZEROS, Vector, positive, random_instance
from mdpsim.solve.exact import evaluate, solve_soft, trajectory_kl

# --- the objective is an evidence lower bound ------------------------------------------------------------------------


@per_seed
def measure_elbo(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """|J(pi) - (beta log Z - beta KL(pi || pi*))| for a random policy pi, J by policy evaluation, log Z and pi* by the solver.

    The policy is Dirichlet(c) with c log-uniform in [0.05, 5]: from nearly deterministic to nearly uniform. The two other
    gaps replace KL(pi || pi*) by KL(pi* || pi), and beta log Z by log Z. Tolerance: 64 float64 roundings of the largest
    number on either side.
    """
    prior, rewards = random_instance(point, rng)
    beta = point["beta"]
    policy = rng.dirichlet(np.full(len(prior), np.exp(rng.uniform(np.log(0.05), np.log(5.0)))))
    if point["family"] == "zeros":
        policy = np.where(prior > 0.0, positive(policy), 0.0)
        policy = policy / policy.sum()
    mdp, pi_ref, pi = bandit(rewards), prior[None, None], policy[None, None]
    solution = solve_soft(mdp, pi_ref, beta)
    value = evaluate(mdp, pi, pi_ref=pi_ref, beta=beta)
    beta_log_z = float(solution.V[0, 0])
    forward = beta * trajectory_kl(mdp, pi, solution.pi)
    backward = beta * trajectory_kl(mdp, solution.pi, pi)
    scale = float(np.abs(rewards).max()) + abs(beta_log_z) + forward + beta * value.kl
    return {
        "gap": abs(value.J - (beta_log_z - forward)),
        "gap_reverse_kl": abs(value.J - (beta_log_z - backward)),
        "gap_without_beta": abs(value.J - (beta_log_z / beta - forward)),
        "tolerance": 64 * EPS * scale,
    }


elbo_identity = Claim(
    id="korbak2022/elbo-identity",
    statement=(
        r"For every policy $\pi \ll \pi_0$, the KL-regularised objective is an evidence lower bound: "
        r"$\mathbb{E}_\pi r - \beta\,\mathrm{KL}(\pi\,\|\,\pi_0) = \beta \log Z - \beta\,\mathrm{KL}(\pi\,\|\,\pi^*)$ with "
        r"$\pi^* = \pi_0 e^{r/\beta}/Z$."
    ),
    origin="derived",
    cites=(PAPER.at("Section 4, equation (7)"),),
    grid={
        "smoke": product(family=ZEROS, n_responses=(10,), beta=(0.1, 2.0)),
        "quick": product(family=ZEROS, n_responses=(10, 100), beta=(0.1, 0.5, 2.0)),
        "paper": product(family=ZEROS, n_responses=(2, 10, 100, 1000), beta=(0.03, 0.1, 0.5, 2.0, 30.0)),
        "full": product(family=ZEROS, n_responses=(2, 10, 100, 1000), beta=(0.03, 0.1, 0.3, 0.5, 2.0, 30.0, 1000.0)),
    },
    measure=measure_elbo,
    rule=Identity("tolerance"),
    twins=(
        Twin(
            "reverse-kl",
            r"The same with the divergence reversed, $\mathrm{KL}(\pi^*\,\|\,\pi)$.",
            r"a gap of $\beta\,|\mathrm{KL}(\pi\,\|\,\pi^*) - \mathrm{KL}(\pi^*\,\|\,\pi)|$, about $10^{12}$ tolerances",
            rule=Identity({"gap_reverse_kl": "tolerance"}),
        ),
        Twin(
            "log-z-without-beta",
            r"The same with $\log Z$ in place of $\beta \log Z$.",
            r"a gap of $|1-\beta|\,|\log Z|$, about $10^{12}$ tolerances; no $\beta$ of the grid is 1",
            rule=Identity({"gap_without_beta": "tolerance"}),
        ),
    ),
    seeds={"smoke": 20, "quick": 100, "paper": 1000, "full": 10000},
    tags=("bandit", "exact", "random-instances"),
)


# --- the optimum is the posterior ------------------------------------------------------------------------------------


@per_seed
def measure_posterior(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Distance of numerical maximisers of J from the posterior pi*.

    J is maximised twice by methods that do not know the answer: BFGS over logits and SLSQP over the simplex, both with the
    exact gradient. ``p_bfgs`` and ``p_slsqp`` are max_x |p(x) - pi*(x)|; ``shortfall`` is J(pi*) - J of the better one, and
    ``overshoot`` how far it exceeds beta log Z. The other columns are max_x |p(x) - q(x)| of the BFGS policy from the twins'
    false posteriors.
    """
    prior, rewards = random_instance(point, rng)
    beta = point["beta"]
    solution = solve_soft(bandit(rewards), prior[None, None], beta)
    posterior, beta_log_z = solution.pi[0, 0], float(solution.V[0, 0])
    by_bfgs = maximise_over_logits(prior, rewards, beta)
    by_slsqp = maximise_over_simplex(prior, rewards, beta)
    best = max(objective(p, prior, rewards, beta) for p in (by_bfgs, by_slsqp))
    return {
        "p_bfgs": float(np.abs(by_bfgs - posterior).max()),
        "p_slsqp": float(np.abs(by_slsqp - posterior).max()),
        "shortfall": max(beta_log_z - best, 0.0),
        "overshoot": max(best - beta_log_z, 0.0),
        "p_times_beta": float(np.abs(by_bfgs - special.softmax(np.log(prior) + rewards * beta)).max()),
        "p_without_beta": float(np.abs(by_bfgs - special.softmax(np.log(prior) + rewards)).max()),
        "p_uniform_prior": float(np.abs(by_bfgs - special.softmax(rewards / beta)).max()),
    }


def objective(p: Vector, prior: Vector, rewards: Vector, beta: float) -> float:
    """J(p) = E_p r - beta KL(p || pi_0)."""
    return float(p @ rewards - beta * special.rel_entr(p, prior).sum())


def maximise_over_logits(prior: Vector, rewards: Vector, beta: float) -> Vector:
    """argmax of J(softmax(theta)) by BFGS from the uniform policy, repeated from where it stopped until it moves no more.

    dJ/dtheta = p (r' - E_p r'), r' = r - beta log(p / pi_0). The line search gives up at float64's resolution of J, about
    1e-16 of its size; a restart with a fresh Hessian goes on from there. A start at pi_0 would stop at once where a response
    of prior 1e-8 is the best: its share of the gradient is 1e-8 too.
    """

    from scipy import optimize  # a quarter of a second, at the first trial and not at every `mdpsim list`

    def loss(theta: Vector) -> tuple[float, Vector]:
        log_p = theta - special.logsumexp(theta)
        p = np.exp(log_p)
        advantage = rewards - beta * (log_p - np.log(prior))
        value = float(p @ advantage)
        return -value, -p * (advantage - value)

    theta = np.zeros(len(prior))
    for _ in range(20):
        found = optimize.minimize(loss, theta, jac=True, method="BFGS", options={"gtol": 1e-11, "maxiter": 2000})
        moved = float(np.abs(special.softmax(found.x) - special.softmax(theta)).max())
        theta = found.x - found.x.max()
        if moved < 1e-9:
            break
    return special.softmax(theta)


def maximise_over_simplex(prior: Vector, rewards: Vector, beta: float) -> Vector:
    """argmax of J over the simplex by SLSQP from the uniform policy, repeated likewise; the result is renormalised.

    Probabilities stay above 1e-12, far below the tolerance: the curvature beta / p of J is unbounded at the boundary.
    """
    low = 1e-12

    from scipy import optimize

    def loss(p: Vector) -> tuple[float, Vector]:
        log_ratio = np.log(np.maximum(p, low) / prior)
        return -float(p @ (rewards - beta * log_ratio)), -(rewards - beta * (log_ratio + 1.0))

    p = np.full(len(prior), 1.0 / len(prior))
    for _ in range(20):
        found = optimize.minimize(
            loss, p, jac=True, method="SLSQP", bounds=[(low, 1.0)] * len(p),
            constraints={"type": "eq", "fun": lambda q: q.sum() - 1.0, "jac": lambda q: np.ones_like(q)},
            options={"ftol": 1e-15, "maxiter": 500},
        )
        moved = float(np.abs(found.x - p).max())
        p = np.maximum(found.x, low)
        p = p / p.sum()
        if moved < 1e-8:
            break
    return p


TOL_P, TOL_J = 1e-5, 1e-7  # what the optimisers reach: on probabilities, and (quadratically smaller) on J
_OPTIMUM = {"p_bfgs": TOL_P, "p_slsqp": TOL_P, "shortfall": TOL_J, "overshoot": 1e-12}

posterior_optimum = Claim(
    id="korbak2022/posterior-optimum",
    statement=(
        r"The maximiser of $J(\pi) = \mathbb{E}_\pi r - \beta\,\mathrm{KL}(\pi\,\|\,\pi_0)$ is the posterior "
        r"$\pi^*(x) = \pi_0(x)\,e^{r(x)/\beta}/Z$, and $J(\pi^*) = \beta \log Z$."
    ),
    origin="derived",
    cites=(PAPER.at("Section 4, equations (5) and (6)"),),
    grid={
        "smoke": product(family=FAMILIES, n_responses=(8,), beta=(0.5, 2.0)),
        "quick": product(family=FAMILIES, n_responses=(10, 30), beta=(0.2, 0.5, 2.0)),
        "paper": product(family=FAMILIES, n_responses=(3, 10, 30), beta=(0.1, 0.2, 0.5, 2.0, 5.0)),
        "full": product(family=FAMILIES, n_responses=(3, 10, 30, 60), beta=(0.1, 0.2, 0.5, 2.0, 5.0)),
    },
    measure=measure_posterior,
    rule=Identity(_OPTIMUM),
    twins=(
        Twin(
            "reward-times-beta", r"The maximiser is $\propto \pi_0 e^{\beta r}$.",
            r"exponents $\beta r$ in place of $r/\beta$; no $\beta$ of the grid is 1: at least $10^2$ tolerances",
            rule=Identity({"p_times_beta": TOL_P}),
        ),
        Twin(
            "beta-dropped", r"The maximiser is $\propto \pi_0 e^{r}$.",
            r"exponents $r$ in place of $r/\beta$; no $\beta$ of the grid is 1: at least $10^2$ tolerances",
            rule=Identity({"p_without_beta": TOL_P}),
        ),
        Twin(
            "uniform-prior", r"The maximiser is $\propto e^{r/\beta}$, whatever the prior.",
            r"a factor $K \pi_0(x)$; no prior of the grid is uniform: at least $10^3$ tolerances",
            rule=Identity({"p_uniform_prior": TOL_P}),
        ),
    ),
    seeds={"smoke": 3, "quick": 10, "paper": 100, "full": 1000},
    tags=("bandit", "exact", "random-instances"),
)
