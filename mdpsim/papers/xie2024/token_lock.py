r"""The lock: a long response that pi_ref hardly ever writes is found by optimism, not by preferences on what is written anyway.

H binary tokens; pi_ref writes 1 with probability 0.05 at each, so a response with k ones has probability 0.05^k 0.95^{H-k};
beta = 0.02. The class: hypothesis 0 pays 1/2 for 0^H and 1/4 for any other response; hypothesis y, for each y other than
0^H, is the same but for r(y) = 1. The truth is y = 1^H, which pi_ref writes with probability 0.05^H while C_cov = 2^H; beta
log(1/0.05^H) = 0.06 H is below its gain, 1/2, for H <= 8. Every learner starts at hypothesis 0. Online DPO writes 0^H only
and stays there (its gap is that of pi^1, not of pi_ref); DPO against the reference compares 0^H with what pi_ref writes, and
learns of 1^H when pi_ref happens to write it. (With classes in which responses inform about each other it can open the lock
too.) XPO tries every hypothesis that is still optimistic: of order 2^H rounds, during which it does worse than either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from mdpsim.align.classes import FiniteClass
from mdpsim.align.dpo import ComparatorDPO, OnlineDPO
from mdpsim.align.xpo import XPO
from mdpsim.claims.claim import PRESETS, Claim, Point, Twin
from mdpsim.claims.rules import HighProb
from mdpsim.mdp.token import TokenMDP
from mdpsim.papers.xie2024.bounds import PAPER, RareArms

BETA, RARE, C0 = 0.02, 0.05, 0.3  # alpha / beta = C0 / sqrt(T)
Columns = Mapping[str, np.ndarray]


@lru_cache(maxsize=16)
def lock(length: int) -> RareArms:
    """The instance and its class of 2^H hypotheses, the truth last."""
    Y = 2**length
    hypotheses = np.full((Y, 1, Y), 0.25)
    hypotheses[:, 0, 0] = 0.5
    hypotheses[np.arange(1, Y), 0, np.arange(1, Y)] = 1.0
    mdp = TokenMDP(hypotheses[-1], vocabulary=2, length=length)
    tokens = np.broadcast_to([1.0 - RARE, RARE], (mdp.H, mdp.S, 2))
    return RareArms(mdp, FiniteClass.from_rewards(hypotheses, mdp.responses(tokens).log_prob), BETA)


def _last(point: Point, keys: Sequence[int]) -> Columns:
    rounds, x = point["rounds"], lock(int(point["family"].removeprefix("length-")))
    learners = {
        "xpo": XPO(alpha=C0 * BETA / np.sqrt(rounds), beta=BETA), "online": OnlineDPO(beta=BETA),
        "comparator": ComparatorDPO(beta=BETA),
    }
    runs = {
        name: learner.run(x.mdp, x.policies, rounds, keys, start=0, checkpoints=[1, rounds])
        for name, learner in learners.items()
    }
    gaps = {name: found.gap[:, 1] for name, found in runs.items()}
    return gaps | {"tenth": 0.1 * runs["xpo"].gap[:, 0], "average": runs["xpo"].average[:, 1]}


def measure_lock(point: Point, keys: Sequence[int]) -> Columns:
    """J(pi*) - J(pi^T) of XPO, of online DPO and of DPO against the reference; ``tenth``: that of pi^1, over 10.

    ``average``: XPO's average regret.
    """
    return _last(point, keys)


def measure_lock_at_once(point: Point, keys: Sequence[int]) -> Columns:
    """The twin's false horizon: the same, at points with fewer rounds."""
    return _last(point, keys)


def _locks(rounds_of_one: int, *lengths: int) -> tuple[Point, ...]:
    return tuple(Point(family=f"length-{H}", rounds=rounds_of_one * 2**H) for H in lengths)


token_lock = Claim(
    id="xie2024/token-lock",
    statement=(
        r"Binary responses of $H$ tokens, the only good one $1^H$ with $\pi_{\mathrm{ref}} = 0.05^H$, $\beta = 0.02$, $2^H$ "
        r"hypotheses: after $T = 256 \cdot 2^H$ rounds the last iterate of XPO ($\alpha/\beta = 0.3/\sqrt{T}$) has a tenth "
        r"of the gap of its first, or less, with probability at least $0.9$ ($H = 3$ to $6$): the lock is open."
    ),
    origin="observed",
    cites=(PAPER.at("Algorithm 1, token-level MDPs"),),
    grid={
        "smoke": _locks(256, 3, 4, 5), "quick": _locks(256, 3, 4, 5), "paper": _locks(256, 3, 4, 5, 6),
        "full": _locks(256, 3, 4, 5, 6),
    },
    measure=measure_lock,
    rule=HighProb(bound="tenth", delta=0.1, of="xpo"),
    twins=(
        Twin(
            "online-dpo-opens-it", r"The same for online DPO.", "a probability of 0 instead of 0.9",
            rule=HighProb(bound="tenth", delta=0.1, of="online"),
        ),
        Twin(
            "no-bonus", r"The same with $\alpha = 0$: DPO against the reference.",
            "a probability of at most 0.3 instead of 0.9",
            rule=HighProb(bound="tenth", delta=0.1, of="comparator"),
        ),
        Twin(
            "at-once", r"The same after $T = 8 \cdot 2^H$ rounds, $H = 5, 6$.", "a probability below 0.5 instead of 0.9",
            measure=measure_lock_at_once, grid={preset: _locks(8, 5, 6) for preset in PRESETS},
        ),
    ),
    # About one run in a hundred ends elsewhere: an Order of the means would hang on one or two trials.
    seeds={"smoke": 200, "quick": 200, "paper": 2000, "full": 10_000},
    draws=("family",),
    tags=("exploration", "tokens"),
)
