"""Regularised best-policy identification in linear MDPs: what a run knows while it learns, and what the dimension costs.

    python benchmarks/linear_bpi.py --preset paper --jobs 8

Runs what the store does not hold yet, prints the verdicts and exponents, and writes to benchmarks/out: linear_bpi_eps,
linear_bpi_beta, linear_demonstrations (the claims' figures), and linear_bpi_curves: the width Vu - Vl, the observable
certificate, the oracle's and the exact gap along single runs. Then tables: the exponent in d; episodes by bonus, and those of
the tabular learner on the same MDPs; where the certificate is of first order; how often thinner bonuses fail; cloning alone.
"""

from __future__ import annotations

import argparse
import inspect
from functools import partial

import numpy as np
from _claims import exponents, options, table, write, write_claim

from mdpsim import evaluate, sample_counts, trajectory_kl
from mdpsim.estimate.cloning import fit_bc_linear
from mdpsim.estimate.experts import optimal_expert, soft_expert
from mdpsim.learn.demonstration_linear import policy_dimension
from mdpsim.learn.lsvi_ucb_ent import LSVIUCBEnt
from mdpsim.learn.trace import STOPPED
from mdpsim.learn.ucbvi_ent import UCBVIEnt
from mdpsim.mdp import families
from mdpsim.mdp.linear import LinearMDP
from mdpsim.plots.style import BOUND, DOUBLE, MEASURED, OTHERS, legend, new_figure, style
from mdpsim.rng import generator

CLAIMS = {"linear_bpi_eps": "lsvi-ucb-ent-rate", "linear_bpi_beta": "lsvi-ucb-ent-beta-rate",
          "linear_demonstrations": "demonstrations-linear"}
S, A, H, D = 12, 3, 3, 4
REF = families.uniform_policy(H, S, A)


def instances(seed: int, runs: int, **sizes: float | str) -> list[LinearMDP]:
    """``runs`` random linear MDPs of the claims' sizes, but for those given."""
    shape = {"S": S, "A": A, "d": D, "H": H} | sizes
    return [families.linear_simplex(**shape, rng=seed + i) for i in range(runs)]


def curves(chosen: argparse.Namespace):  # type: ignore[no-untyped-def]
    """One run a panel, beta = 0.1 and 1: S = 12, A = 3, d = 4, H = 3, 10^6 episodes, c = 1; the range bonus's certificate."""
    mdp = instances(chosen.seed, 1)[0]
    with style():
        figure = new_figure(DOUBLE, 2.9)
        panels, handles = figure.subplots(1, 2, sharey=True), {}
        for panel, beta in zip(panels, (0.1, 1.0), strict=True):
            trace, narrow = (
                LSVIUCBEnt(beta=beta, eps=1e-12, bonus=b, budget=10**6).run(mdp, REF, chosen.seed) for b in ("vertex", "range")
            )
            on = trace.episodes >= 10
            t = trace.episodes[on]
            (handles[r"width $\overline{V} - \underline{V}$"],) = panel.loglog(t, trace.widths[on], color=OTHERS[0])
            (handles["certificate $G$"],) = panel.loglog(t, trace.certificates[on], color=MEASURED)
            (handles["oracle's $G$"],) = panel.loglog(t, trace.oracles[on], color=OTHERS[2], linestyle=":", linewidth=2.0)
            (handles["exact regularised gap"],) = panel.loglog(t, np.maximum(trace.gaps[on], 1e-15), color=OTHERS[1])
            seen = narrow.episodes >= 10
            (handles["$G$, range bonus"],) = panel.loglog(
                narrow.episodes[seen], narrow.certificates[seen], color=MEASURED, linestyle=(0, (4, 1.5)), linewidth=1.0,
            )
            for power, dash, level in ((-0.5, ":", 0.5 * trace.widths[-1]), (-1.0, "--", 0.4 * trace.certificates[-1])):
                late = t[t >= 3000]
                line = level * (late / t[-1]) ** power
                (handles[f"slope ${power:g}$"],) = panel.loglog(late, line, color=BOUND, linestyle=dash, linewidth=0.9)
            panel.set(xlabel="episodes", title=rf"$\beta = {beta:g}$")
            panel.set_ylim(1e-6, 5)
        panels[0].set_ylabel("bounds on the gap, and the gap")
        legend(figure, handles)
    return figure


def dimension(seed: int, runs: int = 4) -> str:
    """G beta t at t = 10^5, beta = 1, vertex bonus, c = 1, by d, with the slope between rows.

    From a fixed first state only A features are seen at the first stage, whatever d; from a uniform one, S A.
    """
    rows, learner = [], LSVIUCBEnt(beta=1.0, eps=1e-12, bonus="vertex", budget=10**5)
    for start in ("fixed", "uniform"):
        last = None
        for d in (2, 4, 8, 16):
            traces = [learner.run(mdp, REF, seed + i) for i, mdp in enumerate(instances(seed, runs, d=d, start=start))]
            g, oracle = (float(np.mean([getattr(x, name)[-1] for x in traces])) * 1e5 for name in ("certificates", "oracles"))
            rows.append((start, d, f"{g:.0f}", f"{oracle:.0f}", f"{np.log2(g / last):.2f}" if last else "",
                         max(x.violation for x in traces) <= 1e-10))
            last = g
    return table(("first state", "d", "G beta t", "the oracle's", "exponent of d", "bounds held"), rows)


def bonuses(seed: int, runs: int = 20) -> str:
    """Mean episodes until a certificate is at most 0.05 at beta = 1, c = 1: by bonus, and UCBVI-Ent+ on the tabular form."""
    rows, mdps = [], instances(seed, runs)
    for bonus in ("range", "vertex", "covering"):
        traces = [LSVIUCBEnt(beta=1.0, eps=0.05, bonus=bonus, budget=10**7).run(m, REF, seed + i) for i, m in enumerate(mdps)]
        rows.append((f"LSVI-UCB-Ent, {bonus}", traces))
    tabular = UCBVIEnt(beta=1.0, eps=0.05, budget=10**7)
    rows.append(("UCBVI-Ent+, tabular", [tabular.run(m.to_tabular(), REF, seed + i) for i, m in enumerate(mdps)]))
    shown = [(name, f"{np.mean([x.n_episodes for x in seen]):.0f}", f"{np.mean([x.status == STOPPED for x in seen]):.2f}",
              f"{np.mean([x.gap / 0.05 for x in seen]):.1e}") for name, seen in rows]
    return table(("learner", f"mean episodes of {runs} runs", "stopped", "exact gap / eps at the end"), shown)


def order(seed: int, runs: int = 5) -> str:
    """Slopes of the certificate and the oracle's between 10^4 and 10^6 episodes (beta = 1, range bonus), by kind of features.

    In the last row one state is met with probability 10^-4 only, with features of its own: G is of first order.
    """
    rows = []
    kinds = {f"Dirichlet({o:g})": instances(seed, runs, overlap=o) for o in (10.0, 1.0, 0.1)}
    kinds["one rare state"] = [_rare(mdp) for mdp in instances(seed, runs)]
    for name, mdps in kinds.items():
        learner = LSVIUCBEnt(beta=1.0, eps=1e-12, budget=10**6)
        traces = [learner.run(mdp, REF, seed + i) for i, mdp in enumerate(mdps)]
        slopes = []
        for column in ("certificates", "oracles"):
            ends = [[getattr(x, column)[np.searchsorted(x.episodes, t)] for t in (10**4, 10**6)] for x in traces]
            early, late = np.mean(ends, axis=0)
            slopes.append(f"{np.log10(late / early) / 2:.2f}")
        rows.append((name, *slopes, f"{np.mean([x.certificates[-1] / x.oracles[-1] for x in traces]):.2f}"))
    return table(("features", "slope of G", "of the oracle's", "G over the oracle's at the end"), rows)


def _rare(mdp: LinearMDP) -> LinearMDP:
    """The same, with a feature that the last state alone has, and 10^-4 of the mass of every law on that state."""
    phi = np.concatenate([mdp.phi, np.zeros((S, A, 1))], axis=-1)
    phi[-1] = np.eye(D + 1)[-1]
    mu = np.concatenate([mdp.mu, mdp.mu[:, :1]], axis=1)
    mu[..., -1] = 0.0
    mu *= (1 - 1e-4) / mu.sum(axis=-1, keepdims=True)
    mu[..., -1] = 1e-4
    return LinearMDP(phi, mu, np.concatenate([mdp.theta, mdp.theta[:, :1]], axis=1), mdp.mu0)


def validity(seed: int, runs: int = 60) -> str:
    """Share of runs (3000 episodes, beta = 0.1) whose bounds, and whose certificate, ever failed, by the bonus scale."""
    rows = []
    for bonus in ("vertex", "range", "covering"):
        for scale in (1.0, 0.3, 0.1, 0.03, 0.01):
            learner = LSVIUCBEnt(beta=0.1, eps=1e-12, bonus=bonus, bonus_scale=scale, budget=3000)
            traces = [learner.run(mdp, REF, seed + i) for i, mdp in enumerate(instances(seed, runs))]
            failed = [x.violation > 1e-10 for x in traces], [(x.gaps > x.certificates + 1e-10).any() for x in traces]
            rows.append((bonus, scale, *(f"{np.mean(f):.2f}" for f in failed)))
    return table(("bonus", "scale c", f"share of {runs} runs whose bounds failed", "whose certificate failed"), rows)


def cloning(seed: int, runs: int = 60) -> str:
    """Log-linear cloning by itself: KL_traj (N_E + 1) / sum_h d_h, what it is allowed for the weight beta, and its loss.

    The loss is V of the expert less V of the clone. Demonstration-regularised RL is needed where that exceeds 2 eps.
    """
    rows, experts = [], {"optimal": optimal_expert}
    experts |= {f"soft, temperature {b:g}": partial(soft_expert, beta=b) for b in (0.02, 0.05, 0.2)}
    for name, expert_of in experts.items():
        for n in (4, 16, 64, 256, 1024):
            shares, losses, rng = [], [], generator(seed)
            for mdp in instances(seed, runs):
                expert = expert_of(mdp)
                clone = fit_bc_linear(sample_counts(mdp, expert, n, rng), mdp.phi).pi
                shares.append(trajectory_kl(mdp, expert, clone) * (n + 1) / policy_dimension(mdp))
                losses.append(evaluate(mdp, expert).J - evaluate(mdp, clone).J)
            rows.append((name, n, f"{np.mean(shares):.2f}", f"{np.mean(losses):.4f}"))
    return table(("expert", "N_E", "KL over the allowance", "loss"), rows)


def main() -> None:
    """Write the figures, print the exponents and tables."""
    chosen = options(__doc__)
    verdicts = {claim: write_claim(f"tiapkin2023/{claim}", chosen, name)[1] for name, claim in CLAIMS.items()}
    write(curves(chosen), chosen, "linear_bpi_curves", "linear_bpi.py")
    print("\n" + exponents(verdicts))
    for part in (dimension, bonuses, order, validity, cloning):
        print(f"\n{inspect.getdoc(part)}\n\n{part(chosen.seed)}")


if __name__ == "__main__":
    main()
