r"""The central decomposition: the regret of a policy as an optimism term and an estimation error.

With h_pi(tau) = beta log(pi / pi_ref)(tau) - r(tau), log-ratios summed along trajectories, and nu the law of trajectories
of any policy in the same dynamics,

    J(pi*) - J(pi) = E_nu[beta log pi - beta log pi*] + E_pi[h_pi] - E_nu[h_pi].                                 (1)

Proof: E_pi[h_pi] = -J(pi). The terms with pi under nu cancel but for beta log pi_ref and r: what remains of them is
-E_nu[beta log(pi* / pi_ref) - r], and by equation (3) of ``implicit_q`` beta log(pi* / pi_ref)(tau) = r(tau) - V_0(s_0) +
M(tau) with E_nu[M] = 0, so it is E_nu V_0(s_0) = J(pi*). Random transitions do no harm; but nu must have the dynamics and
the first state's law of the MDP, or E_nu M, or E_nu V_0(s_0), is off.

XPO makes the first term small by its optimism bonus, minimised over pi, with nu = pi_ref, and the others by its likelihood.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mdpsim.arrays import FloatArray
from mdpsim.claims.claim import Claim, Point, Twin, per_seed, product
from mdpsim.claims.rules import Identity
from mdpsim.mdp.families import bandit
from mdpsim.papers.xie2024.bounds import PAPER
from mdpsim.papers.xie2024.trajectories import (
    DETERMINISTIC,
    STOCHASTIC,
    list_paths,
    random_policy,
    random_problem,
    rounding,
)
from mdpsim.solve.exact import evaluate, solve_soft, trajectory_kl


@per_seed
def measure_decomposition(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Error of (1) in a random MDP, at a random policy and with a random comparator.

    ``reference`` has nu = pi_ref, ``gap`` a random policy; the left side by evaluation, the right side summed over all
    trajectories. ``divergence``: the left side against beta KL_traj(pi || pi*). False: the first term's sign turned
    (``flipped``); nu in the first term and pi_ref in the last (``mismatch``); a law of trajectories that is no policy's
    (``any_law``: Dirichlet over all of them).
    """
    if point["family"] == "bandit":
        mdp = bandit(rng.uniform(size=point["size"]))
        ref = random_policy(np.empty((1, 1, point["size"])), rng)
    else:
        mdp, ref = random_problem(point, rng)
    beta = point["beta"]
    best, paths = solve_soft(mdp, ref, beta).pi, list_paths(mdp)
    policy, other = random_policy(ref, rng), random_policy(ref, rng)
    lost = evaluate(mdp, best, pi_ref=ref, beta=beta).J - evaluate(mdp, policy, pi_ref=ref, beta=beta).J
    first = paths.total(beta * np.log(policy / best))
    h = paths.total(beta * np.log(policy / ref)) - paths.total(mdp.r)
    own, law, base = (paths.law(p) for p in (policy, other, ref))
    anything = rng.dirichlet(np.ones(len(h)))

    def error(sign: float, under: FloatArray, last: FloatArray) -> float:
        """|left side - (sign E_under[beta log pi / pi*] + E_pi h - E_last h)|."""
        return abs(float(lost - (sign * (under @ first) + own @ h - last @ h)))

    return {
        "gap": error(1.0, law, law), "reference": error(1.0, base, base),
        "divergence": abs(lost - beta * trajectory_kl(mdp, policy, best)),
        "tolerance": rounding(mdp, ref, beta),
        "flipped": error(-1.0, base, base), "mismatch": error(1.0, law, base), "any_law": error(1.0, anything, anything),
    }


_ALL = ("bandit", *DETERMINISTIC, *STOCHASTIC)
_RANDOM = {preset: product(family=STOCHASTIC, size=(3,), beta=(0.2,)) for preset in ("smoke", "quick", "paper", "full")}

decomposition = Claim(
    id="xie2024/decomposition",
    statement=(
        r"The regret of every policy splits: $J(\pi^*) - J(\pi) = \mathbb{E}_\nu[\beta \log \pi - \beta \log \pi^*] + "
        r"\mathbb{E}_\pi[h_\pi] - \mathbb{E}_\nu[h_\pi]$ with $h_\pi = \beta \log \frac{\pi}{\pi_{\mathrm{ref}}} - r$ along "
        r"trajectories, for any dynamics and any policy's law $\nu$; $\nu = \pi_{\mathrm{ref}}$ is the paper's."
    ),
    origin="derived",
    cites=(PAPER.at("central regret decomposition"),),
    grid={
        "smoke": product(family=("bandit", "tokens", "dirichlet"), size=(3,), beta=(0.2,)),
        "quick": product(family=_ALL, size=(3,), beta=(0.05, 0.2, 1.0)),
        "paper": product(family=_ALL, size=(2, 3), beta=(0.02, 0.05, 0.2, 1.0, 5.0)),
        "full": product(family=_ALL, size=(2, 3, 4), beta=(0.02, 0.05, 0.2, 1.0, 5.0)),
    },
    measure=measure_decomposition,
    rule=Identity({"gap": "tolerance", "reference": "tolerance", "divergence": "tolerance"}),
    twins=(
        Twin(
            "first-term-flipped", r"The same with $-\mathbb{E}_\nu[\beta \log \pi - \beta \log \pi^*]$.",
            r"twice the first term, 0.1 to 3: above $10^{11}$ tolerances", rule=Identity({"flipped": "tolerance"}),
        ),
        Twin(
            "two-comparators", r"The same with $\nu$ in the first term and $\pi_{\mathrm{ref}}$ in the last.",
            r"$(\mathbb{E}_\nu - \mathbb{E}_{\mathrm{ref}}) h_\pi$, 0.001 to 1: above $10^9$ tolerances",
            rule=Identity({"mismatch": "tolerance"}),
        ),
        Twin(
            "any-law", r"$\nu$ may be any law of trajectories, not only a policy's; tried with random transitions.",
            r"$\mathbb{E}_\nu M$, up to 0.2: above $10^9$ tolerances", rule=Identity({"any_law": "tolerance"}), grid=_RANDOM,
        ),
    ),
    seeds={"smoke": 10, "quick": 20, "paper": 200, "full": 1000},
    tags=("exact", "random-instances"),
)
