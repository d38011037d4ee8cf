"""Distribution collapse, seen: training paths, the simplex, rates with their constants, projections, and a table of
divergences.

    python benchmarks/collapse.py [--out benchmarks/out]

Everything is exact (no sampling but in the table's two columns that say so). The responses are three words that go on from the
shipped text's most probable beginning under its n-gram model; the reward counts "the": what a reward model that likes a word
does to a language model without a KL term. Takes about ten seconds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from mdpsim import (
    Distribution,
    EntropyReward,
    KLReward,
    Reward,
    Softmax,
    condition,
    fit_moments,
    flow,
    importance_sample,
    kl,
    project_markov,
    rejection_sample,
    tilt,
)
from mdpsim.align.gradient import Path as Training
from mdpsim.mdp.token_families import text_tree
from mdpsim.plots.style import BOUND, DOUBLE, MEASURED, OTHERS, legend, new_figure, save, style
from mdpsim.plots.training import simplex_figure, training_figure
from mdpsim.versions import commit

BETA, SEED, DRAWS = 0.2, 0, 1000
WORDS, LENGTH = 5, 3
TIMES = np.concatenate([[0.0], np.geomspace(0.1, 1e6, 60)])


def count_the(_prompt: str, text: str) -> float:
    """How often "the" occurs, per word of a full response."""
    return text.split().count("the") / LENGTH


def sentences() -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """(texts [K], prior [K], rewards [K], where they lie among the V^L responses) of what the model can write."""
    tree = text_tree(words=WORDS, length=LENGTH, reward=count_the, prompts=1)
    law = np.exp(tree.mdp.responses(tree.pi_ref).log_prob[0])
    on = np.flatnonzero(law > 0.0)
    return [tree.mdp.text(int(y)) for y in on], law[on] / law[on].sum(), tree.mdp.r[0][on], on


def paths(prior: np.ndarray, rewards: np.ndarray, times: np.ndarray) -> dict[str, Training]:
    """The gradient flows of four objectives from the prior."""
    objectives = {
        "RL": Reward(rewards), "KL-RL": KLReward(rewards, prior, beta=BETA),
        "GDC": Distribution(tilt(prior, rewards, BETA).pi),
        "entropy bonus": EntropyReward(rewards, prior, alpha=BETA, beta=0.0),
    }
    return {name: flow(Softmax(len(prior)), np.log(prior), o, times, rtol=1e-8) for name, o in objectives.items()}


def rates_figure():  # type: ignore[no-untyped-def]
    """1 / t under the gradient and e^{-Delta tau} under the natural one, with their constants; the zero-temperature slope."""
    rewards, uniform = np.array([1.0, 0.8, 0.5, 0.1]), np.full(4, 0.25)
    times = np.geomspace(1.0, 1e7, 60)
    vanilla = flow(Softmax(4), np.zeros(4), Reward(rewards), times)
    tau, betas = np.linspace(1.0, 80.0, 60), np.geomspace(0.01, 0.5, 60)
    r, prior = np.array([1.0, 1.0, 0.75, 0.5, 0.0]), np.array([0.1, 0.1, 0.3, 0.3, 0.2])
    with style():
        figure = new_figure(DOUBLE, 2.7)
        one, two, three = figure.subplots(1, 3)
        (seen,) = one.loglog(times, np.exp(vanilla.log_pi) @ (1.0 - rewards), color=MEASURED)
        (stated,) = one.loglog(times, 0.75 / times, color=BOUND, linestyle="--")
        one.set(xlabel="time $t$", ylabel="expected reward lost", title="gradient: $(K-1)/(K t)$", ylim=(1e-8, 2))
        natural = [tilt(uniform, rewards, 1.0 / t).pi[1:].sum() for t in tau]
        two.semilogy(tau, natural, color=MEASURED)
        two.semilogy(tau, np.exp(-0.2 * tau), color=BOUND, linestyle="--")
        two.set(xlabel=r"time $\tau = \eta k$", ylabel="mass off the best", title=r"natural gradient: $C e^{-\Delta \tau}$")
        cold = [tilt(prior, r, b).pi[2:].sum() for b in betas]
        three.semilogy(1.0 / betas, cold, color=MEASURED)
        three.semilogy(1.0 / betas, 1.5 * np.exp(-0.25 / betas), color=BOUND, linestyle="--")
        three.set(xlabel=r"$1/\beta$", ylabel="mass off the best", title=r"posterior: $C e^{-\Delta/\beta}$")
        legend(figure, {"measured": seen, "stated rate and constant": stated})
    return figure


def projections_figure():  # type: ignore[no-untyped-def]
    """Forward and reverse projection of a law with two modes onto factorised laws."""
    p = np.full((2, 2, 2), 0.02)
    p[0, 0, 0], p[1, 1, 1] = 0.4, 0.48
    laws = {"target": p, "forward KL": project_markov(p, "forward").pi, "reverse KL": project_markov(p, "reverse").pi}
    with style():
        figure = new_figure(DOUBLE, 2.5)
        panel, handles = figure.subplots(), {}
        for i, ((name, law), colour) in enumerate(zip(laws.items(), (BOUND, MEASURED, OTHERS[0]), strict=True)):
            handles[name] = panel.bar(np.arange(8) + 0.27 * (i - 1), law.reshape(-1), 0.25, color=colour)
        panel.set_xticks(range(8), [f"{i:03b}" for i in range(8)])
        panel.set(xlabel="response (three bits)", ylabel="probability")
        legend(figure, handles)
    return figure


def table(texts: list[str], prior: np.ndarray, rewards: np.ndarray, where: np.ndarray) -> list[str]:
    """KL(target || method) in nats, target x method: which law, and by which divergence or sampler, are separate choices."""
    good = np.array(["alice" in t.lower() or "said" in t.lower() or "the" in t.split() for t in texts])
    lengths = np.array([[len(t.split())] for t in texts], float)
    goal = 0.5 * (prior @ lengths + lengths.max(axis=0))
    targets = {
        f"reward, beta = {BETA}": tilt(prior, rewards, BETA).pi, 'constraint: has "the"': condition(prior, good).pi,
        f"mean length {goal[0]:.2f}": fit_moments(prior, lengths, goal).pi,
    }
    lines = ["| target p | KL(p, prior) | factorised q: KL(p, q) | Markov q: KL(p, q) | factorised: KL(q, p) | rejection: "
             f"draws | SNIS: ESS of {DRAWS} |", "|---|---|---|---|---|---|---|"]
    V = WORDS + 1
    for name, target in targets.items():
        full = np.zeros(V**LENGTH)
        full[where] = target
        cube = full.reshape((V,) * LENGTH)
        positive = 0.999 * cube + 0.001 / cube.size
        ratio = np.where(target > 0.0, target / prior, 0.0)
        accept = ratio / ratio.max()
        draws = rejection_sample(prior, accept, DRAWS, SEED).draws.mean()
        with np.errstate(divide="ignore"):
            ess = importance_sample(prior, np.log(ratio), 1.0, DRAWS, SEED).ess
        forward = [project_markov(cube, "forward", order=k).kl for k in (0, 1)]
        reverse = project_markov(positive, "reverse", restarts=10).kl
        numbers = " | ".join(f"{x:.4f}" for x in (kl(target, prior), *forward, reverse))
        lines.append(f"| {name} | {numbers} | {draws:.2f} | {ess:.0f} |")
    return lines


def main() -> None:
    """Write the figures and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out")
    out = parser.parse_args().out
    texts, prior, rewards, where = sentences()
    trained = paths(prior, rewards, TIMES)
    for name, path in trained.items():
        top = path.log_pi[-1].argsort()[::-1][:3]
        print(f"{name:>14}: " + "; ".join(f"{texts[i]!r} {np.exp(path.log_pi[-1, i]):.3f}" for i in top))
    three = np.array([0.15, 0.5, 0.35]), np.array([1.0, 0.7, 0.0])
    triangle = paths(*three, np.concatenate([[0.0], np.geomspace(0.01, 1e6, 200)]))
    laws = {"prior": three[0], "posterior": tilt(*three, BETA).pi}
    figures = {
        "collapse_training": training_figure(trained, ("entropy", "top")),
        "collapse_simplex": simplex_figure(triangle, laws, ("best", "second", "worst")),
        "collapse_rates": rates_figure(), "collapse_projections": projections_figure(),
    }
    for name, figure in figures.items():
        print(save(figure, out / name, {"script": "benchmarks/collapse.py", "beta": BETA, "seed": SEED, "commit": commit()})[1])
    print("\n".join(table(texts, prior, rewards, where)))


if __name__ == "__main__":
    main()
