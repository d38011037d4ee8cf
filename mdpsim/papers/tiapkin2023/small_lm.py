r"""A language model that clones: its held-out divergence from a random transformer falls as the sharp tabular bound does.

The expert is a random transformer over responses of L of V tokens to one prompt, an episodic problem whose states are the
prefixes: d(s) is the probability that the expert writes prefix s. The student has the expert's shape and its own random
weights, and minimises

    -(1/N) (sum over demonstrations log pi(y_i) + sum over prefixes s and tokens a of log pi(a | s)),            (1)

the add-one likelihood. Over all policies its minimiser is the add-one table, whose divergence obeys (2) of
:mod:`mdpsim.papers.tiapkin2023.bounds`: E KL_traj <= (V-1) sum_{s: d(s)>0} (1 - (1-d(s))^{N+1}) / (N+1). Both divergences are
exact: all V^L responses are enumerated. That a transformer, which shares parameters and is trained for a number of steps,
follows that rate is observed, not derived.

Optimisation error. (1) of a student less its least value, per demonstration, is

    excess = (1/N) sum_s (N(s) + V) KL(table(. | s) || student(. | s)),

so that N times the excess, in nats, is to be compared with N KL_traj of the table, which tends to (V-1)/2 times the number of
prefixes (the expert is interior: half the bound). Columns: ``kl`` the student's, ``table_kl`` the table's on the same
demonstrations, ``excess`` times N.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mdpsim import rng as rng_
from mdpsim.arrays import FloatArray
from mdpsim.claims.claim import Claim, Point, Twin, geometric
from mdpsim.claims.device import side_by_side
from mdpsim.claims.rules import Rate
from mdpsim.estimate.cloning import fit_bc
from mdpsim.estimate.data import Counts, sample_counts
from mdpsim.mdp.token import TokenMDP
from mdpsim.papers.tiapkin2023.bounds import PAPER, sharp_bound
from mdpsim.solve.exact import occupancy, trajectory_kl

GAIN = 1.0  # of the expert's head: logits of unit variance
NOISE = 0.1
RATE = 1e-2  # of Adam, falling linearly to 0 over the point's steps
Columns = Mapping[str, np.ndarray]


def _clone(point: Point, keys: Sequence[int], noise: float) -> Columns:
    """The columns of trials whose demonstrations have a share ``noise`` of uniform tokens; all students in one ensemble."""
    import torch

    from mdpsim.lm import losses
    from mdpsim.lm.device import reproducible, resolve_dtype
    from mdpsim.lm.ensemble import Ensemble
    from mdpsim.lm.model import Config, Transformer
    from mdpsim.lm.train import Adam, fit

    V, L, device, dtype = point["vocabulary"], point["length"], point["device"], point["dtype"]
    shape = Config(vocabulary=V, context=L + 1, prompts=1, layers=1, width=point["width"], heads=2, gain=GAIN)
    mdp = TokenMDP(np.zeros((1, V**L)), vocabulary=V, length=L)

    def read(models: Ensemble) -> list[torch.Tensor]:
        """log pi(a | s), [n, 1, V^h, V] for the prefixes of h = 0 .. L - 1 tokens."""
        prompt = torch.full((1, 1), V, dtype=torch.int64, device=models.flat.device)
        return models.read(lambda model: model.tree_log_probs(prompt, L))

    with reproducible():
        rngs = [rng_.generator(key) for key in keys]
        experts = policies(mdp, read(Ensemble([Transformer(shape, rng) for rng in rngs])))  # float64, on the CPU
        shown = [(1 - noise) * expert + noise / V for expert in experts]
        counts = [sample_counts(mdp, pi, point["n_demos"], rng) for pi, rng in zip(shown, rngs, strict=True)]
        students = Ensemble([Transformer(shape, rng, device=device, dtype=dtype) for rng in rngs])
        visits = torch.tensor(np.stack([c.visits for c in counts]), dtype=resolve_dtype(dtype), device=device)
        seen = [visits[:, None, h, : V**h] for h in range(L)]
        loss = torch.func.vmap(lambda levels, own: losses.cloning(levels, own, 1.0))
        fit(students, lambda: loss(read(students), seen).sum(), optimiser=Adam(steps=point["steps"], rate=RATE),
            every=point["steps"], state=students.adam(RATE))
        clones = policies(mdp, read(students))
    rows = [_compare(mdp, *trial) for trial in zip(experts, clones, counts, strict=True)]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def policies(mdp: TokenMDP, levels: Sequence[Any]) -> FloatArray:
    """[n, H, S, A] of log pi(a | s) given as [n, 1, V^h, V]: tensors anywhere; uniform where there is no prefix."""
    pi = np.full((len(levels[0]), mdp.H, mdp.S, mdp.A), 1.0 / mdp.A)
    for h, level in enumerate(levels):
        row = np.exp(level.detach().double().cpu().numpy()[:, 0])
        pi[:, h, : mdp.A**h] = row / row.sum(axis=2, keepdims=True)
    return pi


def _compare(mdp: TokenMDP, expert: FloatArray, clone: FloatArray, counts: Counts) -> dict[str, float]:
    """A trial's columns."""
    table = fit_bc(counts)
    excess = ((counts.visits + 1.0) * np.log(table / clone)).sum()  # rows without a prefix are uniform in both
    return {
        "kl": trajectory_kl(mdp, expert, clone), "table_kl": trajectory_kl(mdp, expert, table),
        "sharp_bound": sharp_bound(occupancy(mdp, expert), mdp.A, counts.n), "excess": float(excess),
    }


@side_by_side(60)
def measure_cloning(point: Point, keys: Sequence[int]) -> Columns:
    """KL_traj(expert || student) of a transformer that has cloned N demonstrations, exact (``kl``), and the bound (2).

    ``table_kl``: the add-one table's on the same demonstrations; ``excess``: N times the student's excess loss over the
    table's, in nats.
    """
    return _clone(point, keys, 0.0)


@side_by_side(60)
def measure_noisy_cloning(point: Point, keys: Sequence[int]) -> Columns:
    """The twin's false algorithm: demonstrations with 10% uniform tokens mixed in, judged against the clean expert."""
    return _clone(point, keys, NOISE)


def _points(*shapes: tuple[int, int, int, int], n_demos: tuple[int, ...]) -> tuple[Point, ...]:
    """Points of (vocabulary, length, width, steps of Adam) at every N."""
    return tuple(
        Point(vocabulary=V, length=L, width=w, steps=steps, n_demos=N, device="cpu", dtype="float64")
        for V, L, w, steps in shapes for N in n_demos
    )


small_lm_cloning = Claim(
    id="tiapkin2023/small-lm-cloning",
    statement=(
        r"A transformer that clones $N$ demonstrations of a random transformer by the add-one likelihood has an expected "
        r"held-out $\mathrm{KL}_{\mathrm{traj}}(\pi_E\,\|\,\hat\pi)$ that decays in $N$ as the sharp bound on add-one tables, "
        r"$(V-1)\sum_{s:\,d(s)>0} \frac{1-(1-d(s))^{N+1}}{N+1}$ over prefixes $s$, does: as $1/N$ up to a constant."
    ),
    origin="observed",
    cites=(PAPER.at("behaviour cloning, of a language model"),),
    grid={
        "smoke": _points((3, 2, 16, 150), n_demos=geometric(30, 3000, 3)),
        "quick": _points((3, 2, 16, 300), (3, 3, 16, 300), n_demos=geometric(30, 3000, 3)),
        "paper": _points((3, 2, 16, 1000), (3, 3, 32, 1000), (8, 2, 32, 1000), n_demos=geometric(100, 31_623, 6)),
    },
    measure=measure_cloning,
    rule=Rate(axis="n_demos", bound="sharp_bound", margin=0.2, of="kl"),
    twins=(
        Twin(
            "noisy-demonstrations",
            r"The same for demonstrations in which 10% of the tokens are uniform, judged against the clean expert.",
            "the divergence has a floor: a slope flatter by more than 0.3", measure=measure_noisy_cloning,
        ),
        Twin(
            "root-n", r"The divergence decays as $N^{-1/2}$.", "a slope 0.5 away",
            rule=Rate(axis="n_demos", slope=-0.5, margin=0.2, of="kl"),
        ),
    ),
    seeds={"smoke": 40, "quick": 80, "paper": 800},
    draws=("vocabulary", "length"),
    needs=("lm",),
    tags=("cloning", "lm", "rate", "random-instances"),
)
