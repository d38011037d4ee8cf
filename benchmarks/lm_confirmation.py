"""Four theorems on a small language model: what the tabular theory says, and what a transformer does, in one figure.

    python benchmarks/lm_confirmation.py [--seed 0] [--out benchmarks/out]

Needs the extra [lm]. The reference is a transformer trained on the shipped text (seven frequent words and the end of a
sentence; its perplexity is printed beside the n-grams'); its responses are three tokens, so everything can be enumerated and
every dashed line is exact.

  korbak2022        entropy in training: RL goes to zero, KL-RL and GDC to the posterior's entropy (dashed)
  tiapkin2023       held-out divergence of a cloned transformer against N, beside the add-one table on the same
                    demonstrations and the sharp bound (dashed)
  xie2024           runs that have found a rare good response by round t: XPO with the theorem's alpha, and three that do not
                    explore, on instances of `xie2024/small-lm-exploration`; dashed: the same of tables in place of transformers
  balashankar2024   best-of-4 win rate against KL: the exact optima of CTRL and the identity (dashed), and transformers trained
                    on either reward, enumerated, and sampled with 99% intervals

About two minutes on one quiet core. What is left undone by the optimisers is printed, not hidden: distances to each optimum.
"""

from __future__ import annotations

import argparse
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from _claims import table

from mdpsim.align.ctrl import align_prompts, prompt_win_rates
from mdpsim.align.procedures import BestOfN
from mdpsim.align.transforms import IDENTITY, Exponential
from mdpsim.estimate.cloning import fit_bc
from mdpsim.estimate.data import Counts
from mdpsim.lm import losses
from mdpsim.lm.device import reproducible
from mdpsim.lm.model import Transformer
from mdpsim.lm.reference import Reference, train_reference
from mdpsim.lm.sample import best_of_n, response_index, sample_responses
from mdpsim.lm.train import Adam, Space, clone, maximise, prefix_counts
from mdpsim.mdp.token import TokenMDP
from mdpsim.papers.tiapkin2023.bounds import sharp_bound
from mdpsim.papers.xie2024 import small_lm as exploration
from mdpsim.plots.style import BOUND, DOUBLE, MEASURED, OTHERS, TWINS, new_figure, save, style
from mdpsim.rng import generator
from mdpsim.solve.exact import occupancy, trajectory_kl
from mdpsim.solve.sequence import tilt
from mdpsim.versions import commit, versions

WORDS, LENGTH, BETA = 7, 3, 0.2
DEMOS, REPEATS = (30, 100, 300, 1000, 3000), 4
KLS, N, DRAWS = (0.25, 0.5, 1.0), 4, 20_000
Z99 = 2.576
TRAIN = Adam(steps=400, rate=1e-3)
ARMS = {"identity": IDENTITY, "CTRL, exp t=10": Exponential(10.0)}
LEARNERS = {
    "xpo": r"XPO, the theorem's $\alpha$", "online": "online DPO", "comparator": r"$\alpha = 0$", "flipped": r"$-\alpha$",
}
RUNS = 60


class Setting(NamedTuple):
    """The reference, the space of its responses, their log-probabilities [1, Y] and a transparent reward [1, Y]."""

    reference: Reference
    space: Space
    log_ref: torch.Tensor
    r: torch.Tensor


def setting(seed: int) -> Setting:
    """A transformer trained on the text; the reward is the share of "the" among the tokens of a response to "to"."""
    reference = train_reference(WORDS, context=8, width=32, rng=seed, dtype="float64", optimiser=Adam(steps=120, rate=3e-3))
    prompt = reference.tokens.index("to")
    space = Space(prompts=torch.tensor([[prompt]]), length=LENGTH)
    with torch.no_grad():
        log_ref = space.log_probs(reference.model)
    tokens = np.indices((len(reference.tokens),) * LENGTH).reshape(LENGTH, -1)
    r = torch.from_numpy((tokens == reference.tokens.index("the")).mean(axis=0)[None])
    return Setting(reference, space, log_ref, r)


def trained(x: Setting, objective: Any, every: int = 400) -> tuple[Transformer, Any]:
    """A copy of the reference, trained, and its trace."""
    model = deepcopy(x.reference.model)
    return model, maximise(model, x.space, objective, optimiser=TRAIN, log_ref=x.log_ref, every=every)


def collapse(panel: Any, x: Setting) -> str:
    """Entropies in training, and where the theory says they end."""
    posterior = tilt(x.log_ref.exp()[0].numpy(), x.r[0].numpy(), BETA)
    law = torch.from_numpy(np.array(posterior.pi)[None])
    objectives = {
        "RL": lambda lp: losses.reward(lp, x.r), "KL-RL": lambda lp: losses.kl_reward(lp, x.r, x.log_ref, BETA),
        "GDC": lambda lp: losses.distribution(lp, law),
    }
    rows, handles, colours = [], {}, (OTHERS[0], MEASURED, OTHERS[1])
    for (name, objective), colour, dash in zip(objectives.items(), colours, ("-", "-", "-."), strict=True):
        model, trace = trained(x, objective, every=10)
        (handles[name],) = panel.plot(trace.steps, trace.seen["entropy"], dash, color=colour)
        log_pi = x.space.log_probs(model).detach()
        away = losses.divergence(log_pi, law.log()).item()
        best = x.reference.text([int(i) for i in np.unravel_index(int(log_pi.argmax()), (WORDS + 1,) * LENGTH)])
        rows.append((name, f"{trace.seen['entropy'][-1]:.4f}", f"{away:.2e}", f"{trace.seen['kl'][-1]:.3f}", best))
    ends = -(law * law.log()).sum().item()
    handles["posterior, exact"] = panel.axhline(ends, color=BOUND, linestyle="--")
    panel.axhline(0.0, color=BOUND, linestyle="--")
    panel.set(xlabel="training step", ylabel="entropy (nats)", title="korbak2022: collapse")
    panel.legend(list(handles.values()), list(handles), loc="center right")
    head = ("objective", f"entropy (posterior {ends:.4f})", "KL to the posterior", "KL to the reference", "likeliest")
    return table(head, rows)


def cloning(panel: Any, x: Setting, seed: int) -> str:
    """Divergence of clones of the reference from N demonstrations, of a transformer and of the table."""
    rng, V = generator(seed + 1), WORDS + 1
    mdp = TokenMDP(np.zeros((1, V**LENGTH)), vocabulary=V, length=LENGTH)
    expert = mdp.token_policy(x.log_ref.numpy() - np.log(x.log_ref.exp().sum(dim=1, keepdim=True).numpy()))
    kls, tables, left = (np.zeros((len(DEMOS), REPEATS)) for _ in range(3))
    for i, n in enumerate(DEMOS):
        for j in range(REPEATS):
            y = sample_responses(x.reference.model, x.space.prompts.expand(n, -1), LENGTH, rng).responses
            seen = prefix_counts(y, torch.zeros(n, dtype=torch.int64), 1, V)
            student = Transformer(x.reference.model.config, rng)
            trace = clone(student, x.space, seen, optimiser=Adam(steps=300, rate=1e-2), every=300)
            visits = np.zeros((LENGTH, mdp.S, V), dtype=np.int64)
            for h, level in enumerate(seen):
                visits[h, : V**h] = level[0].numpy()
            tabular = fit_bc(Counts(visits, n))
            least = -sum(((c + 1.0) * np.log(t)).sum() for c, t in zip(visits, tabular, strict=True)) / n
            unread = sum((mdp.S - V**h) * V * np.log(V) for h in range(LENGTH)) / n  # rows that no prefix of the stage has
            with torch.no_grad():
                log_pi = x.space.log_probs(student)
            kls[i, j], tables[i, j] = losses.divergence(x.log_ref, log_pi).item(), trajectory_kl(mdp, expert, tabular)
            left[i, j] = trace.loss[-1] - (least - unread)
    bound = [sharp_bound(occupancy(mdp, expert), V, n) for n in DEMOS]
    panel.loglog(DEMOS, tables.mean(axis=1), "s", color=TWINS[2], markersize=8, markerfacecolor="none", label="add-one table")
    error = Z99 * kls.std(axis=1, ddof=1) / np.sqrt(REPEATS)
    panel.errorbar(DEMOS, kls.mean(axis=1), error, label="transformer", color=MEASURED, marker="o", linestyle="none", capsize=2,
                   markersize=4)
    panel.loglog(DEMOS, bound, "--", color=BOUND, label="sharp bound, table")
    panel.set(xlabel="demonstrations $N$", ylabel="KL(expert ‖ clone), nats", title="tiapkin2023: cloning")
    panel.legend(loc="lower left")
    rows = [(n, f"{k.mean():.4f}", f"{t.mean():.4f}", f"{b:.4f}", f"{e.mean():.2e}")
            for n, k, t, b, e in zip(DEMOS, kls, tables, bound, left, strict=True)]
    return table(("N", "transformer", "table", "sharp bound", "excess loss left"), rows)


def exploring(panel: Any, seed: int) -> str:
    """Share of runs that had a policy near the optimum by round t: of transformers, and of the class of all tables."""
    point = next(iter(exploration.small_lm_exploration.grid["quick"]))
    keys, T = [int(k) for k in generator(seed + 3).integers(2**62, size=RUNS)], point["rounds"]
    found, tables = (exploration.explore_learners(point, keys, tuple(LEARNERS), table=table) for table in (False, True))
    rows, time = [], np.arange(1, T + 1)
    for (name, label), colour in zip(LEARNERS.items(), (MEASURED, *OTHERS), strict=False):
        first, exact = (exploration.first_below(x[name].gap, exploration.NEAR) for x in (found, tables))
        share, stated = ((f[:, None] <= time).mean(axis=0) for f in (first, exact))
        panel.step(time, share, where="post", color=colour, label=label)
        panel.step(time, stated, "--", where="post", color=colour, linewidth=1.0)
        rows.append((label, f"{share[-1]:.2f}", f"{stated[-1]:.2f}", f"{np.median(first):.0f}"))
    panel.plot([], [], "--", color=BOUND, label="tables")
    panel.set(xlabel="round", ylabel="runs that found the rare response", title="xie2024: exploration", ylim=(0.0, 1.02))
    panel.legend(loc="upper right", bbox_to_anchor=(1.0, 0.9))
    return table(("learner", "transformers that found it", "tables", "median round"), rows)


def selection(panel: Any, x: Setting, seed: int) -> str:
    """Best-of-4 win rates against KL: exact frontiers, and transformers trained at the same beta."""
    rng, pi_ref = generator(seed + 2), x.log_ref.exp().numpy()
    pi_ref = pi_ref / pi_ref.sum(axis=1, keepdims=True)
    raw = rng.normal(size=(1, pi_ref.shape[1]))  # a reward without ties
    grid, rows = np.geomspace(0.05, 1.6, 25), []
    for (name, transform), colour, marker in zip(ARMS.items(), (OTHERS[0], MEASURED), "so", strict=True):
        scores = losses.transformed_rewards(raw, transform, pi_ref=pi_ref)
        exact = [prompt_win_rates(BestOfN(N), align_prompts(scores, pi_ref, kl=float(k)).pi, raw, pi_ref)[0] for k in grid]
        panel.plot(grid, exact, "--", color=colour)
        for kl in KLS:
            beta = align_prompts(scores, pi_ref, kl=kl).beta
            s = torch.from_numpy(np.array(scores))
            model, trace = trained(x, lambda lp, s=s, beta=beta: losses.kl_reward(lp, s, x.log_ref, beta))
            with torch.no_grad():
                law = x.space.log_probs(model).exp().numpy()
            win = prompt_win_rates(BestOfN(N), law / law.sum(), raw, pi_ref)[0]
            seen, error = duel(x, model, raw, rng)
            at = float(trace.seen["kl"][-1])
            panel.errorbar(at, seen, Z99 * error, color=colour, marker=marker, markersize=4, capsize=2, linestyle="none",
                           label=name if kl == KLS[0] else None)
            (plus,) = panel.plot(at, win, "+", color=BOUND, markersize=7, zorder=5)
            rows.append((name, kl, f"{at:.4f}", f"{win:.4f}", f"{seen:.4f} ± {Z99 * error:.4f}"))
    panel.set(xlabel="KL to the reference (nats)", ylabel="best-of-4 win rate", xscale="log")
    panel.set_title("balashankar2024: best of 4")
    plus.set_label("enumerated")
    panel.plot([], [], "--", color=BOUND, label="exact optimum")
    panel.legend(loc="upper left")
    return table(("reward", "KL wanted", "KL reached", "win rate, enumerated", "win rate, sampled"), rows)


def duel(x: Setting, model: Transformer, raw: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """(mean, standard error) of best-of-4 of the model against best-of-4 of the reference, by sampling; ties count half."""
    prompts, r = x.space.prompts.expand(DRAWS, -1), torch.from_numpy(raw)[0]

    def reward(_: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return r[response_index(y, WORDS + 1)]

    one, two = (reward(prompts, best_of_n(m, prompts, LENGTH, reward, N, rng).responses) for m in (model, x.reference.model))
    wins = ((one > two).double() + 0.5 * (one == two)).numpy()
    return float(wins.mean()), float(wins.std(ddof=1) / np.sqrt(DRAWS))


def main() -> None:
    """Draw the figure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out")
    chosen = parser.parse_args()
    with reproducible():
        x = setting(chosen.seed)
        one, two, three = x.reference.ngrams
        print(f"reference: perplexity {x.reference.perplexity:.3f} on held-out sentences; n-grams of order 1, 2, 3: "
              f"{one:.3f}, {two:.3f}, {three:.3f}; uniform {x.reference.uniform:.0f}")
        with style():
            figure = new_figure(DOUBLE, 5.2)
            panels = figure.subplots(2, 2)
            for text in (collapse(panels[0, 0], x), cloning(panels[0, 1], x, chosen.seed), exploring(panels[1, 0], chosen.seed),
                         selection(panels[1, 1], x, chosen.seed)):
                print("\n" + text, flush=True)
    side = {"script": "benchmarks/lm_confirmation.py", "seed": chosen.seed, "commit": commit(), "device": "cpu",
            "dtype": "float64", "torch": versions().get("torch")}
    print(save(figure, chosen.out / "lm_confirmation", side)[1])


if __name__ == "__main__":
    main()
