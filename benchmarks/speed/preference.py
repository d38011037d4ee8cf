"""XPO and DPO over finite classes: the proposition's runs, and policy updates a second for a class of 1000.

    python benchmarks/speed/preference.py [--quick]

The plain-numpy round adds the same two rows to the scores and takes the same argmin; it is checked to choose the same policies.
The limit is a streaming read of the scores and the two rows of a round.
"""

from __future__ import annotations

import numpy as np
from _timing import compare, options, read, require_close, save

from mdpsim.align.classes import FiniteClass
from mdpsim.align.dpo import OnlineDPO
from mdpsim.align.xpo import XPO
from mdpsim.papers.xie2024.bounds import bandit, two_arms

POLICIES, ARMS, BETA, ALPHA = 1000, 4, 0.1, 0.002


def numpy_scores(found, policies: FiniteClass) -> np.ndarray:  # type: ignore[no-untyped-def]
    """The scores after the kept rounds of one run, by vectorised numpy, an argmin a round: what a careful user would write."""
    rho, V = policies.implicit(BETA)
    rows, centred = rho[:, 0].T.copy(), (rho[:, 0] - V).T.copy()
    scores = np.zeros(policies.n)
    for _, y, z, label in found.pairs[0]:
        if y != z:
            better, worse = (y, z) if label else (z, y)
            scores += np.logaddexp(0.0, rows[worse] - rows[better])
        scores += ALPHA / BETA * centred[z]
        scores.argmin()
    return scores


def main() -> None:
    """The issue's two sizes, and one run against numpy."""
    quick = options(__doc__ or "").quick
    rounds, T = (3, 1000) if quick else (5, 10_000)
    x = two_arms("proposition", float(np.exp(1 / (8 * 0.02))), size=401)
    horizon = int(1 / (2 * x.eps))
    seeds = list(range(1000))
    table = [*compare(
        f"1000 runs of {horizon} rounds, two arms, 402 policies",
        {"online DPO": lambda: OnlineDPO(beta=x.beta).run(x.mdp, x.policies, horizon, seeds),
         "XPO": lambda: XPO(alpha=0.05 * x.beta, beta=x.beta).run(x.mdp, x.policies, horizon, seeds)},
        "online DPO", "XPO", rounds,
    )]
    rng = np.random.default_rng(0)
    r = rng.random((1, ARMS))
    rho = np.concatenate([r[None], rng.random((POLICIES - 1, 1, ARMS))])
    policies = FiniteClass.from_rewards(rho, np.log([[0.97] + 3 * [0.01]]))
    mdp, learner = bandit(r[0]), XPO(alpha=ALPHA, beta=BETA)
    one = learner.run(mdp, policies, T, 0, keep=True)
    scores = numpy_scores(one, policies)
    require_close(scores - scores.min(), one.scores[0] - one.scores[0].min(), "the scores of a run")
    arrays = np.zeros(3 * POLICIES)
    table += compare(
        f"one run of {T} rounds, {POLICIES} policies",
        {"numpy": lambda: numpy_scores(one, policies), "mdpsim": lambda: learner.run(mdp, policies, T, 0),
         "read of what a round reads": lambda: read(arrays, T)},
        "numpy", "read of what a round reads", rounds,
    )
    runs = 32
    table += compare(
        f"{runs} runs of {T} rounds, {POLICIES} policies",
        {"mdpsim": lambda: learner.run(mdp, policies, T, range(runs)),
         "read of what a round reads": lambda: read(arrays, runs * T)},
        "mdpsim", "read of what a round reads", rounds,
    )
    seconds = next(row.seconds for row in table if row.topic.startswith(f"{runs} runs") and row.variant == "mdpsim")
    print(f"\n{runs * T * POLICIES / (seconds or np.inf):.3g} policy updates a second")
    save("preference", table)


if __name__ == "__main__":
    main()
