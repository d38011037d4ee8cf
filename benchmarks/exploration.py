"""Exploring with preferences, seen: what optimism buys, what it costs, and where it does not pay.

    python benchmarks/exploration.py [--out benchmarks/out] [--runs 200]

Figures: escape times against 1/beta; average regret against T where pi_ref does not cover the best arm, and where it is
uniform; the price of optimism with its predicted constant, and the sign of alpha; the token lock; the range of rewards;
where exploring does not pay. "DPO against the reference" is XPO with alpha = 0, the ablation of optimism; "online DPO" draws
both responses from its policy. Shades: two standard errors over runs. About a minute.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from _claims import table

from mdpsim.align.classes import RewardBox
from mdpsim.align.dpo import ComparatorDPO, IterativeDPO, OfflineDPO, OnlineDPO
from mdpsim.align.xpo import XPO
from mdpsim.claims.claim import Point
from mdpsim.papers.xie2024.bounds import bandit, rare_arms, rare_bound, two_arms
from mdpsim.papers.xie2024.coverage_invariance import passive_rounds
from mdpsim.papers.xie2024.optimism import BETA, CAPS, bad_rare_arm, one_hot, predicted_cost
from mdpsim.papers.xie2024.passive import run_comparator, run_online, run_xpo
from mdpsim.papers.xie2024.rates import learner as theorem_xpo
from mdpsim.papers.xie2024.reward_range import measure_directly, measure_through_reference, odds_of, rarity_law
from mdpsim.papers.xie2024.token_lock import C0, lock
from mdpsim.plots.style import BOUND, DOUBLE, MEASURED, OTHERS, legend, new_figure, save, style
from mdpsim.rng import key
from mdpsim.versions import commit

Panel = Any
LOOK = {  # colour, marker, dash of each learner
    "XPO": (MEASURED, "o", "-"), "XPO, history": (OTHERS[1], "s", "-"), "XPO, on-policy": (OTHERS[0], "v", "-"),
    "DPO against the reference": ("#8a8a8a", "D", "--"), "online DPO": (OTHERS[2], "^", "--"),
    "iterative DPO": (OTHERS[3], "<", ":"), "offline DPO": ("#56B4E9", ">", ":"),
}


def draw(panel: Panel, name: str, x: Any, values: list[np.ndarray]) -> Any:
    """A learner's mean over runs at each x, with two standard errors."""
    colour, marker, dash = LOOK[name]
    mean = np.array([v.mean() for v in values])
    error = np.array([2 * v.std() / np.sqrt(len(v)) for v in values])
    panel.fill_between(x, np.maximum(mean - error, 1e-9), mean + error, color=colour, alpha=0.15, linewidth=0)
    (line,) = panel.plot(x, mean, color=colour, marker=marker, linestyle=dash)
    return line


def escape_figure(runs: int) -> tuple[Any, list[tuple]]:
    """Rounds until the policy first moves (passive) and until it is near-optimal, against 1/beta, eps = e^{-1/(8 beta)}."""
    inverse = np.array([20.0, 30.0, 40.0, 50.0, 60.0])
    seen: dict[str, list[np.ndarray]] = {"DPO against the reference": [], "online DPO": [], "XPO": []}
    near: dict[str, list[np.ndarray]] = {name: [] for name in seen}
    for x in inverse:
        arms = two_arms("proposition", float(np.exp(x / 8)), size=401)
        for name, run in zip(seen, (run_comparator, run_online, run_xpo), strict=True):
            found = run(arms, 400 if name == "XPO" else int(8 / arms.eps), range(3 * runs))
            seen[name].append(found.left.astype(float))
            near[name].append(found.reached.astype(float))
    with style():
        figure = new_figure(DOUBLE, 2.8)
        (left, right), handles = figure.subplots(1, 2), {}
        for name, values in seen.items():
            handles[name] = draw(left, name, inverse, values)
        (handles[r"$1 + 1/(2\varepsilon(1-\varepsilon))$"],) = left.plot(
            inverse, [passive_rounds(Point(inv_eps=float(np.exp(x / 8)))) for x in inverse], color=BOUND, linestyle="--"
        )
        left.set(yscale="log", xlabel=r"$1/\beta$", ylabel="mean round of the first other policy")
        for name, values in near.items():
            colour, marker, dash = LOOK[name]
            right.plot(inverse, [np.median(v) for v in values], color=colour, marker=marker, linestyle=dash)
        right.set(yscale="log", xlabel=r"$1/\beta$", ylabel="median round of the first gap below 1/8")
        legend(figure, handles)
    return figure, [(f"{x:g}", *(f"{np.median(near[n][i]):g}" for n in near)) for i, x in enumerate(inverse)]


def arms_of(uniform: bool) -> Any:
    """The regime of the rate claims; or K = 4, beta = 0.05 and a uniform reference."""
    if not uniform:
        return rare_arms("three-arms")
    x = rare_arms("four-arms")
    return x._replace(policies=RewardBox().grid(np.log(np.full((1, 4), 0.25)), 5), beta=0.05)


def regret_figure(runs: int) -> tuple[Any, list[tuple]]:
    """Average regret against T for seven learners; for offline DPO, which plays pi_ref, the gap of its fit to T pairs."""
    rounds, rows = [64, 256, 1024, 4096, 16384], []
    with style():
        figure = new_figure(DOUBLE, 3.2)
        panels, handles = figure.subplots(1, 2), {}
        for panel, uniform in zip(panels, (False, True), strict=True):
            x = arms_of(uniform)
            values: dict[str, list[np.ndarray]] = {name: [] for name in LOOK}
            for T in rounds:
                for name, comparator in (("XPO", "reference"), ("XPO, history", "history"), ("XPO, on-policy", "policy")):
                    found = theorem_xpo(x, T, comparator).run(x.mdp, x.policies, T, range(runs), checkpoints=[T])
                    values[name].append(found.average[:, 0])
            passive = {
                "DPO against the reference": ComparatorDPO(beta=x.beta), "online DPO": OnlineDPO(beta=x.beta),
                "iterative DPO": IterativeDPO(beta=x.beta, batch=64), "offline DPO": OfflineDPO(beta=x.beta),
            }
            for name, method in passive.items():
                found = method.run(x.mdp, x.policies, rounds[-1], range(runs), checkpoints=rounds)
                values[name] = list((found.gap if name == "offline DPO" else found.average).T)
            for name, seen in values.items():
                handles[name] = draw(panel, name, rounds, seen)
            if not uniform:
                bound = np.array([rare_bound(Point(family="three-arms", rounds=T)) for T in rounds])
                scale = values["XPO"][-1].mean() / bound[-1]
                (handles["rate of Theorem 3.1"],) = panel.plot(rounds, scale * bound, color=BOUND, linestyle="--")
            panel.set(xscale="log", yscale="log", xlabel="rounds $T$")
            panel.set(title=r"uniform $\pi_{\mathrm{ref}}$, $K = 4$, $\beta = 0.05$" if uniform else
                      r"$\pi_{\mathrm{ref}}(a^*) = 10^{-6}$, $K = 3$, $\beta = 0.02$", ylim=(1e-3, 1.0))
            where = "uniform" if uniform else "rare"
            rows += [(where, name, *(f"{v.mean():.4f}" for v in seen)) for name, seen in values.items()]
        panels[0].set_ylabel("average regret")
        legend(figure, handles)
    return figure, rows


def price_figure(runs: int) -> tuple[Any, list[tuple]]:
    """Left: the price of a constant alpha against its prediction. Right: average regret against alpha of either sign."""
    optimism, rows = np.array([0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8]), []
    signed = np.array([-0.1, -0.03, -0.01, -0.003, 0.0, 0.003, 0.01, 0.03, 0.1, 0.3])
    with style():
        figure = new_figure(DOUBLE, 2.8)
        (left, right), handles = figure.subplots(1, 2), {}
        for (family, cap), colour, marker in zip(CAPS.items(), (MEASURED, *OTHERS), "os^", strict=False):
            mdp, policies = bad_rare_arm(cap)
            found = [
                XPO(alpha=a * BETA, beta=BETA).run(mdp, policies, 4096, range(runs), checkpoints=[4096]).average[:, 0].mean()
                for a in optimism
            ]
            stated = [predicted_cost(Point(family=family, optimism=float(a))) for a in optimism]
            (handles[f"measured, $U = {cap:g}$"],) = left.loglog(optimism, found, marker, color=colour)
            (handles["predicted"],) = left.loglog(optimism, stated, color=BOUND, linestyle="--")
            rows += [(family, f"{a:g}", f"{f:.4f}", f"{s:.4f}") for a, f, s in zip(optimism, found, stated, strict=True)]
        left.set(xlabel=r"$\alpha/\beta$", ylabel="average regret, $T = 4096$", title="the rare arm is the worse")
        for name, x in (("rare best arm", rare_arms("three-arms")), ("uniform reference", arms_of(True))):
            values = [
                XPO(alpha=a * x.beta, beta=x.beta, pessimism=a < 0).run(
                    x.mdp, x.policies, 4096, range(runs), checkpoints=[4096])
                for a in signed
            ]
            colour, marker = (MEASURED, "o") if name == "rare best arm" else (OTHERS[1], "s")
            (handles[name],) = right.plot(signed, [v.average[:, 0].mean() for v in values], color=colour, marker=marker)
        right.axvline(0.0, color=BOUND, linestyle=":")
        right.set_xscale("symlog", linthresh=0.003)
        right.set_xticks([-0.1, -0.01, 0.0, 0.01, 0.1], ["-0.1", "-0.01", "0", "0.01", "0.1"])
        right.set(xlabel=r"$\alpha/\beta$ (0: DPO against the reference)", yscale="log", xlim=(-0.15, 0.5), title="either sign")
        legend(figure, handles)
    return figure, rows


def lock_figure(runs: int) -> tuple[Any, list[tuple]]:
    """Gap of the iterate against rounds per hypothesis; the price is paid first."""
    lengths, rows = (3, 4, 5), []
    with style():
        figure = new_figure(DOUBLE, 2.6)
        panels, handles = figure.subplots(1, 3, sharey=True), {}
        for panel, H in zip(panels, lengths, strict=True):
            x, T = lock(H), 256 * 2**H
            learners = {
                "XPO": XPO(alpha=C0 * x.beta / np.sqrt(T), beta=x.beta), "online DPO": OnlineDPO(beta=x.beta),
                "DPO against the reference": ComparatorDPO(beta=x.beta),
            }
            for name, method in learners.items():
                found = method.run(x.mdp, x.policies, T, range(runs), start=0)
                handles[name] = draw(panel, name, found.checkpoints, list(found.gap.T))
                rows.append((H, name, f"{found.average[:, -1].mean():.4f}", f"{found.gap[:, -1].mean():.4f}"))
            panel.set(xscale="log", xlabel="rounds", title=f"$H = {H}$, $\\pi_{{\\mathrm{{ref}}}} = 0.05^{H}$")
        panels[0].set_ylabel("gap of $\\pi^t$")
        legend(figure, handles)
    return figure, rows


def range_figure(runs: int) -> tuple[Any, list[tuple]]:
    """Comparisons needed to rank R against R - 1/2 through a reward of 0; average regret of XPO on three arms (0, R-1/2, R)."""
    ranges, rows = np.arange(1.0, 7.0), []
    points = [Point(family="half", odds=odds) for odds in odds_of(*ranges)]
    seeds = [key("range", i) for i in range(4 * runs)]
    through = np.array([measure_through_reference(p, seeds)["samples"].mean() for p in points])
    direct = np.array([measure_directly(p, seeds)["samples"].mean() for p in points])
    law = np.array([rarity_law(p) for p in points])
    with style():
        figure = new_figure(DOUBLE, 2.8)
        (left, right), handles = figure.subplots(1, 2), {}
        (handles["through a reward of 0"],) = left.semilogy(ranges, through, "P-", color=OTHERS[3])
        (handles["directly"],) = left.semilogy(ranges, direct, "X-", color=OTHERS[0])
        (handles["stated law"],) = left.semilogy(ranges, law, "--", color=BOUND)
        left.set(xlabel=r"$R_{\max}$", ylabel="comparisons an arm")
        for name in ("XPO", "XPO, history"):
            best = [least_regret(R, "reference" if name == "XPO" else "history", max(runs // 8, 8)) for R in ranges]
            handles[name] = draw(right, name, ranges, best)
            rows.append((name, *(f"{v.mean():.4f}" for v in best)))
        right.set(xlabel=r"$R_{\max}$", ylabel=r"average regret, $T = 10^4$", ylim=(0, None))
        legend(figure, handles)
    return figure, [("comparisons", *(f"{v:.0f}" for v in through)), *rows]


def least_regret(R: float, comparator: str, runs: int) -> np.ndarray:
    """Average regrets at the best of four alpha/beta = c0 / sqrt(T)."""
    log_ref, T = np.log([[1.0 - 2e-3, 1e-3, 1e-3]]), 10_000
    policies = RewardBox(r_max=R).grid(log_ref, int(2 * R) + 1)
    found = [
        XPO(alpha=c0 * 0.05 / np.sqrt(T), beta=0.05, comparator=comparator).run(
            bandit(np.array([0.0, R - 0.5, R])), policies, T, range(runs), checkpoints=[T]).average[:, 0]
        for c0 in (0.03, 0.1, 0.3, 1.0)
    ]
    return min(found, key=lambda v: v.mean())


def cost_figure(runs: int) -> tuple[Any, list[tuple]]:
    """Left: box classes against how rarely pi_ref plays the best of K = 4 arms, beta = 0.05, T = 1024. Right: the one-hot
    class."""
    eps, T, rows = np.array([0.25, 0.1, 0.03, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6]), 1024, []
    values: dict[str, list[np.ndarray]] = {"XPO": [], "DPO against the reference": [], "online DPO": [], "offline DPO": []}
    never = []
    for e in eps:
        policies = RewardBox().grid(np.log([[1.0 - 3.0 * e, e, e, e]]), 5)
        mdp, beta = bandit(np.array([0.5, 0.25, 0.25, 1.0])), 0.05
        never.append(float(policies.gaps(mdp, beta)[0]))
        learners = {"XPO": XPO(alpha="theorem", beta=beta), "DPO against the reference": ComparatorDPO(beta=beta),
                    "online DPO": OnlineDPO(beta=beta), "offline DPO": OfflineDPO(beta=beta)}
        for name, method in learners.items():
            found = method.run(mdp, policies, T, range(runs // 2), checkpoints=[T])
            values[name].append((found.gap if name == "offline DPO" else found.average)[:, 0])
    optimism = np.array([0.0, 0.01, 0.03, 0.1, 0.3, 1.0])
    with style():
        figure = new_figure(DOUBLE, 2.8)
        (left, right), handles = figure.subplots(1, 2), {}
        for name, seen in values.items():
            handles[name] = draw(left, name, eps, seen)
        (handles[r"gap of $\pi_{\mathrm{ref}}$"],) = left.plot(eps, never, color=BOUND, linestyle="--")
        left.set(xscale="log", yscale="log", xlabel=r"$\pi_{\mathrm{ref}}(a^*)$", ylabel="average regret, $T = 1024$")
        left.set_ylim(1e-3, 1.0)
        for arms, marker, colour in ((32, "o", MEASURED), (64, "s", OTHERS[0]), (128, "^", OTHERS[1])):
            x = one_hot(arms)
            found = [
                XPO(alpha=a * x.beta, beta=x.beta).run(x.mdp, x.policies, 60, range(10 * runs), checkpoints=[60]).average[:, 0]
                for a in optimism
            ]
            gain = [f - found[0] for f in found]
            error = [2 * g.std() / np.sqrt(len(g)) for g in gain]
            right.errorbar(np.arange(6), [g.mean() for g in gain], error, color=colour, marker=marker, label=f"$K = {arms}$")
            rows.append((f"one-hot, K = {arms}", *(f"{f.mean():.4f}" for f in found)))
        right.axhline(0.0, color=BOUND, linestyle=":")
        right.set_xticks(np.arange(6), [f"{a:g}" for a in optimism])
        right.set(xlabel=r"$\alpha/\beta$", ylabel=r"average regret less that of $\alpha = 0$")
        right.legend()
        legend(figure, handles)
    rows += [(name, *(f"{v.mean():.4f}" for v in seen)) for name, seen in values.items()]
    return figure, [*rows, ("gap of the reference", *(f"{g:.4f}" for g in never))]


FIGURES = {
    "exploration_escape": escape_figure, "exploration_regret": regret_figure, "exploration_price": price_figure,
    "exploration_lock": lock_figure, "exploration_range": range_figure, "exploration_cost": cost_figure,
}


def main() -> None:
    """Write the figures and print their numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--only", choices=list(FIGURES), nargs="*", default=list(FIGURES))
    chosen = parser.parse_args()
    for name in chosen.only:
        figure, rows = FIGURES[name](chosen.runs)
        side = {"script": "benchmarks/exploration.py", "runs": chosen.runs, "commit": commit()}
        print(save(figure, chosen.out / name, side)[1])
        print(table([name, *(str(i) for i in range(1, max(len(r) for r in rows)))], rows))


if __name__ == "__main__":
    main()
