r"""A language model that explores: a rare good response of four is found by XPO with the theorem's alpha, not by DPO.

Instance. pi_ref is a random transformer, drawn until one of its V^L responses has a probability eps in [1/(8T), 1/(4T)]: the
good one (the likeliest of these). It pays D = 1/2, the others Unif[0, 1/16]; beta = c / log(1/eps), c = 1/8. T rounds of
passive play draw it from pi_ref with probability at most T eps <= 1/4. J(pi*) >= D + beta log eps = D - c, and a policy that
gives the good response with probability q has J <= q D + (1 - q)/16: a gap below (D - c)/3 = 1/8 needs q >= 0.43.

Class. log pi(a | s) = log_softmax(log pi_ref(a | s) + (R/beta) g(s, a)), g in [-1, 1] the tanh of a transformer's logits whose
head starts at 0 (pi^1 = pi_ref), R = D. A token's |beta log pi/pi_ref| is at most 2R, a response's V_max = 2RL. Without a
bound alpha log pi is unbounded below. pi* is inside: the range of its Q at a prefix is at most D, that of R g is 2R.

The theorem's alpha needs log|Pi|. Rounding every R g(s, a) to within eta changes beta log pi/pi_ref of a token by 2 eta at
most (the logit, and the normaliser), the difference of two responses by 4 L eta, and the log-likelihood of T pairs by at
most 4 L T eta = 1 for eta = 1/(4LT). All tables of n = V + .. + V^L logits, hence all transformers among them, are so covered
by |Pi| = ceil(R/eta)^n = ceil(4LTR)^n policies. C_cov <= V^L, R_max = D, delta = 0.1: alpha/beta = 0.12 for V = L = 2, T =
64. (Only |Pi|/delta enters, so theorem_alpha is given one policy and delta/|Pi|.) The theorem's regret bound is far above 1 at
these T: what is shown is that its alpha explores, not its bound. Neither the 0.9 nor the 0.05 below is derived: both are
observed, on four responses, with the search that follows.

What is approximated. The theorem's argmin is global: ``mdpsim.lm.explore`` starts each search at pi_ref and anneals, and that
decides as much as alpha does. Of 100 runs each at T = 64 the good response was found by .98 as it is, .75 without annealing,
.44 without restarts (the twin "without-restarts": searches from the last policy stay in the basins of likely responses), .30
without either, and .49 by alpha = 0 with the same search. Some 3% of the runs miss it: labels by luck for a bad response hold
them there. Policies are updated in rounds 1, 2, .., 10 and whenever the history has grown by a tenth. ``loss`` and ``slope``
record what the last search leaves.

To find is not to know. A player that draws one of five policies each round (pi_ref, or all the tilt there is to one response)
has a good iterate among T in every run. So a second claim looks at the average regret: that of such a player is below pi_ref's
gap by some 0.03, XPO's by 0.1 to 0.13 (its last iterate is good in six runs of ten; alpha does not settle).

Why the space is small. On K = V^L responses exact XPO itself needs some 2K rounds, and eps is below 1/(4T): the instances
have four responses. With eight or nine the good one is found in three runs of four at T = 64 and 128, and the average regret is
no lower than pi_ref's gap: neither claim holds there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mdpsim import rng as rng_
from mdpsim.align.xpo import theorem_alpha
from mdpsim.arrays import FloatArray, fail
from mdpsim.claims.claim import Claim, Point, Twin
from mdpsim.claims.device import side_by_side
from mdpsim.claims.rules import HighProb, Order
from mdpsim.papers.xie2024.bounds import PAPER

D, C, DELTA = 0.5, 1 / 8, 0.1  # gain of the good response, beta log(1/eps), and the theorem's confidence
R = D  # bound of a logit's tilt, times beta
MARGIN = 1 / 16  # of the other rewards
NEAR = (D - C) / 3
GAIN = 2.5  # of pi_ref's head: its rarest response is of the order of 1e-3
HEAT = 32.0  # of the order of 2 R / beta, 42 to 55 at T = 48 to 256
STEPS, RATE = 6, 5e-2  # of Adam, in a search
LAZY = 0.1  # searches in rounds 1, 2, .., 10, 11, 13, ..: when the history has grown by a tenth
LEARNERS = {  # where the second response comes from, and alpha over the theorem's
    "xpo": ("reference", 1.0), "online": ("policy", 0.0), "comparator": ("reference", 0.0), "flipped": ("reference", -1.0),
}
MOST_REDRAWS = 1000  # of the reference; at the claim's own points every seventh will do
SIDE = 120  # runs in one ensemble
Columns = Mapping[str, np.ndarray]


class Instance(NamedTuple):
    """pi_ref [Y] in logs, rewards [Y], beta, alpha of the theorem, and the seed of the rounds (the weights' is the next)."""

    log_ref: FloatArray
    r: FloatArray
    beta: float
    alpha: float
    seed: int


def cover(point: Point) -> float:
    """|Pi|: policies within 1 of any of the class in the log-likelihood of the point's T pairs."""
    V, L, T = point["vocabulary"], point["length"], point["rounds"]
    return float(np.ceil(4 * L * T * R)) ** sum(V**t for t in range(1, L + 1))


def draw_instance(point: Point, rng: np.random.Generator) -> Instance:
    """A random transformer with a rare response, and the rewards that make it the good one."""
    import torch

    from mdpsim.lm.model import Config, Transformer

    V, L, T = point["vocabulary"], point["length"], point["rounds"]
    shape = Config(vocabulary=V, context=L + 1, prompts=1, layers=1, width=16, heads=2, gain=GAIN)
    low, high = np.log(1 / (8 * T)), np.log(1 / (4 * T))
    model, space = Transformer(shape, rng), _space(V, L, "cpu")
    rarest = []
    while True:
        with torch.no_grad():
            log_ref = space.log_probs(model)[0].numpy()
        rare = np.flatnonzero((log_ref >= low) & (log_ref <= high))
        if rare.size:
            break
        rarest.append(log_ref.min())
        if len(rarest) == MOST_REDRAWS:
            p = float(np.exp(np.median(rarest)))
            wanted = "leave a response of a random transformer a probability in [1/(8T), 1/(4T)]: the rarest of"
            wanted += f" {V}^{L} has about {p:.2g}, which is so for T from {0.125 / p:.2g} to {0.25 / p:.2g}"
            fail("draw_instance", "rounds", wanted, f"{T}, and none in {MOST_REDRAWS} draws")
        model.restart(rng)
    good = rare[np.argmax(log_ref[rare])]
    r = rng.uniform(0.0, MARGIN, V**L)
    r[good] = D
    beta = C / -float(log_ref[good])
    alpha = theorem_alpha(beta=beta, rounds=T, n_policies=1, coverability=float(V**L), r_max=D, v_max=2 * R * L,
                          delta=DELTA / cover(point))
    return Instance(log_ref, r, beta, alpha, int(rng.integers(2**63)))


def _space(V: int, L: int, device: str) -> Any:
    import torch

    from mdpsim.lm.train import Space

    return Space(prompts=torch.full((1, 1), V, dtype=torch.int64, device=device), length=L)


def first_below(gap: FloatArray, target: float) -> FloatArray:
    """[K] the first round 1 .. T whose policy has a gap below target; T + 1 where there is none. gap: [K, T + 1]."""
    good = gap[:, :-1] < target
    return np.where(good.any(axis=1), good.argmax(axis=1) + 1, good.shape[1] + 1).astype(np.float64)


def explore_learners(
    point: Point, keys: Sequence[int], learners: Sequence[str], *, table: bool = False, **search: Any
) -> dict[str, Any]:
    """Runs of some learners by name, [n, ..] each; all in one ensemble. Those of a trial share instance, weights, uniforms.

    ``table``: tilts are tables, one logit a prefix and token, in place of transformers: the whole class of the docstring.
    """
    import torch

    from mdpsim.lm.device import reproducible, resolve_dtype
    from mdpsim.lm.explore import LMExploration, Search, explore_many
    from mdpsim.lm.model import Config, Transformer
    from mdpsim.lm.table import Residual, TokenTable, table_of

    V, L, where = point["vocabulary"], point["length"], {"device": point["device"], "dtype": point["dtype"]}
    shape = Config(vocabulary=V, context=L + 1, prompts=1, layers=1, width=point["width"], heads=2)
    with reproducible():
        runs = [(x, *LEARNERS[name]) for x in (draw_instance(point, rng_.generator(key)) for key in keys) for name in learners]
        zero = np.zeros((1, sum(V**t for t in range(1, L + 1))))
        tilts = [TokenTable(V, L, zero, **where) if table else Transformer(shape, x.seed + 1, **where) for x, _, _ in runs]
        models = [
            Residual(TokenTable(V, L, table_of(x.log_ref[None], V, L), **where), tilt, bound=R / x.beta)
            for (x, _, _), tilt in zip(runs, tilts, strict=True)
        ]
        log_ref = torch.tensor(np.stack([x.log_ref[None] for x, _, _ in runs]), dtype=resolve_dtype(point["dtype"]))
        found = explore_many(
            models, _space(V, L, point["device"]), np.stack([x.r[None] for x, _, _ in runs]), log_ref.to(point["device"]),
            rounds=point["rounds"], alpha=[sign * x.alpha for x, _, sign in runs], beta=[x.beta for x, _, _ in runs],
            rngs=[x.seed for x, _, _ in runs], second=[second for _, second, _ in runs],
            optimiser=Search(**({"steps": STEPS, "rate": RATE, "heat": HEAT, "lazy": LAZY} | search)),
        )
    return {name: LMExploration(*(c[i :: len(learners)] for c in found)) for i, name in enumerate(learners)} | {
        "instances": [x for x, _, _ in runs[:: len(learners)]]
    }


def _reached(point: Point, keys: Sequence[int], learner: str, **search: Any) -> Columns:
    """The columns of one learner; trials of every arm share instance, weights and uniforms."""
    found = explore_learners(point, keys, (learner,), **search)
    run, instances = found[learner], found["instances"]
    return {
        "reached": first_below(run.gap, NEAR), "average": run.gap[:, :-1].mean(axis=1), "gap": run.gap[:, -1],
        "mass": run.mass[:, -1], "slope": run.slope[:, -1], "gap_ref": run.gap[:, 0], "eps": run.mass[:, 0],
        "optimism": np.array([x.alpha / x.beta for x in instances]),
    }


@side_by_side(SIDE)
def measure_xpo(point: Point, keys: Sequence[int]) -> Columns:
    """The first of T rounds in which XPO with the theorem's alpha has a gap below (D - c)/3 (T + 1: none).

    Beside it: its ``average`` regret over the T rounds, its gap and mass on the good response at the end, the norm of the
    gradient that its last search left, the reference's gap and eps, and the theorem's alpha / beta.
    """
    return _reached(point, keys, "xpo")


@side_by_side(SIDE)
def measure_online(point: Point, keys: Sequence[int]) -> Columns:
    """The twin's other algorithm: online DPO, both responses from pi^t."""
    return _reached(point, keys, "online")


@side_by_side(SIDE)
def measure_comparator(point: Point, keys: Sequence[int]) -> Columns:
    """The twin's other algorithm: alpha = 0, the second response from pi_ref."""
    return _reached(point, keys, "comparator")


@side_by_side(SIDE)
def measure_flipped(point: Point, keys: Sequence[int]) -> Columns:
    """The twin's false algorithm: minus the theorem's alpha."""
    return _reached(point, keys, "flipped")


@side_by_side(SIDE)
def measure_without_restarts(point: Point, keys: Sequence[int]) -> Columns:
    """The twin's false algorithm: XPO whose searches, annealed as ever, begin at the last policy instead of pi_ref."""
    return _reached(point, keys, "xpo", restart=False)


def measure_random_play(point: Point, keys: Sequence[int]) -> Columns:
    """The twin's other algorithm: after pi^1 = pi_ref each round draws pi_ref or the tilt to a response, at equal chances."""
    T = point["rounds"]
    averages, gaps = [], []
    for key in keys:
        x = draw_instance(point, rng_.generator(key))
        gap = tilt_gaps(x, point["vocabulary"], point["length"])
        played = rng_.generator(rng_.key("play", key)).integers(0, gap.size, T)
        played[0] = 0
        averages.append(float(gap[played].mean()))
        gaps.append(float(gap[0]))
    return {"average": np.array(averages), "gap_ref": np.array(gaps)}


def tilt_gaps(x: Instance, V: int, L: int) -> FloatArray:
    """[1 + Y] the gaps of pi_ref and of the policies of the class that tilt most to each response, in its order."""
    totals = [x.log_ref.reshape(V**t, -1) for t in range(L + 1)]
    prefix = [np.logaddexp.reduce(total, axis=1) for total in totals]
    steps = [prefix[t + 1].reshape(-1, V) - prefix[t][:, None] for t in range(L)]  # log pi_ref(a | prefix), [V^t, V]
    logs = [x.log_ref]
    for y in range(V**L):
        log_pi = np.zeros(1)
        for t, step in enumerate(steps):
            g = np.zeros_like(step)
            at, token = divmod(y // V ** (L - t - 1), V)
            g[at] = -1.0
            g[at, token] = 1.0
            tilted = step + R / x.beta * g
            log_pi = (log_pi[:, None] + tilted - np.logaddexp.reduce(tilted, axis=1)[:, None]).reshape(-1)
        logs.append(log_pi)
    all_logs = np.array(logs)
    best = x.beta * np.logaddexp.reduce(x.log_ref + x.r / x.beta)
    return best - (np.exp(all_logs) * (x.r - x.beta * (all_logs - x.log_ref))).sum(axis=1)


def rounds(point: Point) -> float:
    """T."""
    return float(point["rounds"])


def _points(*shapes: tuple[int, int, int, int]) -> tuple[Point, ...]:
    """Points of (vocabulary, length, rounds, width)."""
    return tuple(
        Point(vocabulary=V, length=L, rounds=T, width=w, device="cpu", dtype="float64") for V, L, T, w in shapes
    )


_SETTING = (
    r"A transformer tilts a random transformer $\pi_{\mathrm{ref}}$ over $V^L = 4$ responses of two binary tokens, of which "
    r"the good one has probability $\varepsilon \in [1/(8T), 1/(4T)]$, $\beta \log(1/\varepsilon) = c = 1/8$, and pays $D = "
    r"1/2$, the others at most $1/16$; $T = 64$ to $128$; each policy is found by an annealed search that starts again at "
    r"$\pi_{\mathrm{ref}}$. "
)
_FEWER = {"smoke": 50, "quick": 100, "paper": 600}  # trials of what misses in half of them or more

small_lm_exploration = Claim(
    id="xie2024/small-lm-exploration",
    statement=(
        _SETTING + r"XPO with Theorem 3.1's $\alpha$ for the class has an iterate within $(D-c)/3$ of $J(\pi^*)$ among its "
        r"first $T$ with probability at least $0.9$; online DPO, DPO against $\pi_{\mathrm{ref}}$ ($\alpha = 0$) and "
        r"$-\alpha$, by the same search, have not."
    ),
    origin="observed",
    cites=(PAPER.at("Algorithm 1, on a language model"),),
    grid={
        "smoke": _points((2, 2, 64, 8)),
        "quick": _points((2, 2, 64, 16)),
        "paper": _points((2, 2, 64, 16), (2, 2, 96, 16), (2, 2, 128, 32)),
    },
    measure=measure_xpo,
    rule=HighProb(bound=rounds, delta=0.1, of="reached"),
    twins=(
        Twin(
            "online-dpo", "The same for online DPO.", "a share below 0.5 instead of 0.9", measure=measure_online, seeds=_FEWER,
        ),
        Twin(
            "no-bonus", r"The same with $\alpha = 0$: DPO against the reference.", "a share below 0.6 instead of 0.9",
            measure=measure_comparator, seeds=_FEWER,
        ),
        Twin(
            "bonus-of-the-other-sign", r"The same with $-\alpha$.", "a share below 0.5 instead of 0.9", measure=measure_flipped,
            seeds=_FEWER,
        ),
        Twin(
            "without-restarts", r"The same where a search begins at the last policy instead of $\pi_{\mathrm{ref}}$.",
            "a share below 0.6 instead of 0.9", measure=measure_without_restarts, seeds=_FEWER,
        ),
    ),
    seeds={"smoke": 240, "quick": 400, "paper": 2400},
    draws=("vocabulary", "length", "rounds"),
    needs=("lm",),
    tags=("exploration", "lm", "random-instances"),
    rev=2,
)

small_lm_regret = Claim(
    id="xie2024/small-lm-regret",
    statement=(
        _SETTING + r"The average regret of XPO with Theorem 3.1's $\alpha$ over the $T$ rounds is below that of staying at "
        r"$\pi_{\mathrm{ref}}$ by more than $0.05$; that of a player that draws $\pi_{\mathrm{ref}}$ or the tilt to a response "
        r"at random in each round is not."
    ),
    origin="observed",
    cites=(PAPER.at("Algorithm 1, on a language model"),),
    grid=small_lm_exploration.grid,
    measure=measure_xpo,
    rule=Order(larger="gap_ref", smaller="average", margin=0.05),
    twins=(
        Twin(
            "random-play", "The same for that player, which has a good iterate in every run.", "0.03 below instead of 0.1",
            measure=measure_random_play, seeds=_FEWER,
        ),
    ),
    seeds={"smoke": 120, "quick": 240, "paper": 2400},
    draws=("vocabulary", "length", "rounds"),
    needs=("lm",),
    tags=("exploration", "lm", "random-instances"),
)
