r"""How fast the language models sample, enumerate and train, against what the machine could do.

    python benchmarks/lm_throughput.py [--quick]

Two models: that of the claims (2 layers of width 64, 8 tokens, responses of 4) and one of demonstrations (4 layers of width
256, 512 tokens, responses of 32). Work: ``sample`` (token by token, with cached keys and values), ``tree`` and ``prefixes``
(every response's log-probability, by the tree or by whole prefixes), ``train`` (one step of Adam on KL-RL, of the tree) and
``reinforce`` (sampling, scoring with gradients, and the step). A sequence is one response; in the model: the share of the wall
time in its forward passes and the backward pass, the rest being losses, draws, the optimiser and Python.

Roofline: a work of F operations and B bytes takes at least max(F / peak, B / bandwidth); ``of roof`` is that over the measured
time. Peak is this machine's own product of two large matrices in that number type with that many threads (one measured in the
same run), bandwidth that of copying 64 MB. F and B are formulas of the shape, per token that is read (w width, K keys seen):

    F = layers (24 w^2 + 4 w K) + 2 w V,      three times that with a backward pass;
    B = itemsize (32 w + 2 w K) layers a token, and the parameters once a pass (with a step of Adam: 12 times in all).

B counts each activation as written once and read once; caches spare some of it, so a share above 1 is possible where B rules.
Where a CPU has no units for a number type (bfloat16), its library's large product is slower than its small ones, and no roof.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from mdpsim.lm import losses
from mdpsim.lm.device import reproducible, resolve_dtype
from mdpsim.lm.model import Config, Transformer
from mdpsim.lm.sample import enumerate_log_probs, sample_responses
from mdpsim.lm.train import Adam, reinforce_fit

CLAIMS = Config(vocabulary=8, context=5, prompts=1, layers=2, width=64, gain=1.0)
LARGER = Config(vocabulary=512, context=33, prompts=1, layers=4, width=256, gain=1.0)
LENGTHS = {CLAIMS: 4, LARGER: 32}
NAMES = {CLAIMS: "claims", LARGER: "larger"}


@dataclass
class Clock:
    """Seconds in the model, by wrapping its passes; on a GPU each wrapped pass waits for the device."""

    seconds: float = 0.0
    inside: bool = field(default=False, repr=False)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time of this block, once where blocks are nested."""
        if self.inside:
            yield
            return
        self.inside, begun = True, now()
        try:
            yield
        finally:
            self.seconds, self.inside = self.seconds + now() - begun, False

    def wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, counted."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.running():
                return call(*args, **kwargs)

        return timed


def now() -> float:
    """Seconds, after what was sent to a GPU has ended."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


@dataclass(frozen=True)
class Work:
    """A call that handles n sequences: its operations and bytes by the formulas."""

    name: str
    call: Callable[[Clock], Any]
    sequences: int
    flops: float
    bytes: float


def passes(config: Config, tokens: float, keys: float, itemsize: int, n: int = 1) -> tuple[float, float]:
    """(F, B) of n forward passes over ``tokens`` rows in all, each seeing ``keys`` on average."""
    w, depth = config.width, config.layers
    flops = tokens * (depth * (24 * w**2 + 4 * w * keys) + 2 * w * config.vocabulary)
    parameters = depth * 12 * w**2 + w * (2 * config.vocabulary + config.context)
    return flops, itemsize * (tokens * depth * (32 * w + 2 * w * keys) + n * parameters)


def works(config: Config, device: str, dtype: str, n: int) -> list[Work]:
    """What is timed of one model."""
    model, L, V = Transformer(config, 0, device=device, dtype=dtype), LENGTHS[config], config.vocabulary
    size, prompt = resolve_dtype(dtype).itemsize, torch.tensor([[V]], device=device)
    many = prompt.repeat(n, 1)
    drawn = passes(config, n * (L + 1), L / 2 + 1, size, n=L)
    parameters = size * sum(p.numel() for p in model.parameters())
    found = [Work("sample", watched(model, lambda: sample_responses(model, many, L, 0)), n, *drawn)]
    optimiser = Adam(steps=1, rate=1e-4)

    def reward(_prompts: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (y == 0).to(model.dtype).mean(dim=1)

    scored = passes(config, n * (L + 1), L / 2 + 1, size)
    both = (2 * drawn[0] + 4 * scored[0], 2 * drawn[1] + 4 * scored[1] + 12 * parameters)  # fit scores once more at its end
    found.append(Work("reinforce", watched(
        model, lambda: reinforce_fit(model, prompt, L, reward, n, 0, optimiser=optimiser)), n, *both))
    if config is not CLAIMS:
        return found
    nodes, whole = sum(V**t for t in range(L)), V ** (L - 1)
    tree, prefixes = passes(config, nodes + 1, L, size), passes(config, whole * (L + 1), L / 2 + 1, size)
    for name, cost in (("tree", tree), ("prefixes", prefixes)):
        found.append(Work(name, watched(model, enumeration(model, prompt, L, name)), V**L, *cost))
    with torch.no_grad():
        log_ref = enumerate_log_probs(model, prompt, L)
    r = torch.linspace(0.0, 1.0, V**L, dtype=model.dtype, device=device)[None]
    adam = optimiser.over(model)

    def step(clock: Clock) -> None:
        value = -losses.kl_reward(enumerate_log_probs(model, prompt, L), r, log_ref, 0.5)
        adam.zero_grad(set_to_none=True)
        with clock.running():
            value.backward()
        adam.step()

    found.append(Work("train", watched(model, step), V**L, 3 * tree[0], 3 * tree[1] + 12 * parameters))
    return found


def enumeration(model: Transformer, prompt: torch.Tensor, L: int, method: str) -> Callable[[], Any]:
    """A pass over every response, without gradients."""

    @torch.no_grad()
    def run() -> torch.Tensor:
        return enumerate_log_probs(model, prompt, L, method=method)

    return run


def watched(model: Transformer, call: Callable[..., Any]) -> Callable[[Clock], Any]:
    """A call that counts the model's passes on a clock; the backward pass of ``fit`` by torch's own entry."""

    def run(clock: Clock) -> Any:
        held = {name: getattr(model, name) for name in ("log_probs", "next_log_probs", "tree_log_probs")}
        backward = torch.Tensor.backward
        for name, method in held.items():
            object.__setattr__(model, name, clock.wrap(method))
        torch.Tensor.backward = clock.wrap(backward)  # type: ignore[method-assign]
        try:
            return call(clock) if call.__name__ == "step" else call()
        finally:
            torch.Tensor.backward = backward  # type: ignore[method-assign]
            for name in held:
                object.__delattr__(model, name)

    return run


def timed(work: Work, rounds: int) -> tuple[float, float]:
    """(seconds of a call, share of it in the model), medians over rounds after one to warm up."""
    work.call(Clock())
    seconds, shares = [], []
    for _ in range(rounds):
        clock, begun = Clock(), now()
        work.call(clock)
        seconds.append(now() - begun)
        shares.append(clock.seconds / seconds[-1])
    return statistics.median(seconds), statistics.median(shares)


def fastest(call: Callable[[], Any], rounds: int = 5) -> float:
    """Seconds of the quickest of a few calls: a limit is what the machine can do."""
    call()
    times = []
    for _ in range(rounds):
        begun = now()
        call()
        times.append(now() - begun)
    return min(times)


def limits(device: str, dtype: str, n: int) -> tuple[float, float]:
    """(operations a second of an n x n product, bytes a second of a copy) in this number type, with the threads set now."""
    kind = resolve_dtype(dtype)
    a, b = (torch.ones(n, n, dtype=kind, device=device) for _ in range(2))
    source = torch.ones(2**26 // kind.itemsize, dtype=kind, device=device)
    into = torch.empty_like(source)
    return 2 * n**3 / fastest(lambda: a @ b), 2 * 2**26 / fastest(lambda: into.copy_(source))


def table(device: str, dtype: str, threads: int, quick: bool) -> None:
    """One block of the print-out."""
    gpu = device == "cuda"
    with reproducible(threads):
        peak, bandwidth = limits(device, dtype, 8192 if gpu else 512 if quick else 1536)
        where = torch.cuda.get_device_name() if gpu else f"{threads} thread{'s' * (threads > 1)}"
        print(f"\n{device}, {dtype}, {where}: product {peak / 1e9:.0f} GFLOP/s, copy {bandwidth / 1e9:.1f} GB/s")
        heads = f"  {'model':<8}{'work':<11}{'sequences':>10}{'ms':>9}{'sequences/s':>13}{'in the model':>14}"
        print(f"{heads}{'GFLOP/s':>9}{'of roof':>9}  ruled by")
        for config in chosen(dtype, quick):
            n = (2048 if config is CLAIMS else 64) * (8 if gpu else 1) // (4 if quick else 1)
            for work in works(config, device, dtype, n):
                seconds, share = timed(work, 3 if quick else 5)
                arithmetic, traffic = work.flops / peak, work.bytes / bandwidth
                row = f"  {NAMES[config]:<8}{work.name:<11}{work.sequences:>10}{seconds * 1e3:>9.1f}"
                print(f"{row}{work.sequences / seconds:>13,.0f}{share:>14.0%}{work.flops / seconds / 1e9:>9.1f}"
                      f"{max(arithmetic, traffic) / seconds:>9.0%}  {'operations' if arithmetic > traffic else 'bytes'}")


def chosen(dtype: str, quick: bool) -> tuple[Config, ...]:
    """The models to time; the three digits of bfloat16 are of no use to a claim."""
    if dtype == "bfloat16":
        return (LARGER,)
    return (CLAIMS,) if quick else (CLAIMS, LARGER)


def main() -> None:
    """Every device, number type and number of threads that is here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the claims' model alone, smaller work (half a minute)")
    quick, begun = parser.parse_args().quick, time.perf_counter()
    load = "/".join(f"{x:.1f}" for x in os.getloadavg())
    print(f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores, load {load} at the start")
    threads = [t for t in (1, 2) if t <= (os.cpu_count() or 1)]
    for dtype in ("float64", "float32") if quick else ("float64", "float32", "bfloat16"):
        for t in threads:
            table("cpu", dtype, t, quick)
    if torch.cuda.is_available():
        for dtype in ("float64", "float32", "bfloat16"):
            table("cuda", dtype, 1, quick)
    else:
        print("\ncuda: no CUDA device here: not measured")
    print(f"\n{time.perf_counter() - begun:.0f} s in all, load {'/'.join(f'{x:.1f}' for x in os.getloadavg())} at the end")


if __name__ == "__main__":
    main()
