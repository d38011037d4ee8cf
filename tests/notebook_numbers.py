"""How near a notebook's committed key numbers must be to those of this machine, each by what it is.

* ``settled``: exact computations, and smooth functions of draws that no computed number has a say in (counts of episodes of a
  fixed policy, preferences, anchors). A last bit changes a draw with a probability of about 1e-15: only rounding remains.
* ``fitted``: what a search returns, up to the tolerance at which it stops; training of a network, printed to two decimals.
* ``spread(sd)``: an average over runs whose paths the last bit may steer: what is played next is the argmax of bounds or losses
  that nearly tie. Two such averages differ by sqrt(2) sd; five times that is allowed. sd comes from the number of runs, or was
  measured over other seeds, which is then said.
* ``in_law``: a stopping time, or the certificate where a run of such a path ends. Old and new must each lie in the law of the
  number over twelve other seeds, run here and now: within 8 standard deviations, which a Student t of 11 degrees exceeds with
  probability 1e-5.
* ``same``: words, where the margin is wide (verdicts that hold at smoke on every processor are tested as such).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from math import sqrt
from typing import Any

import numpy as np
import pytest

import mdpsim
from mdpsim.mdp import families

Near = Callable[[str, Any, Any], bool]  # key, committed, found


def same(key: str, old: Any, new: Any) -> bool:
    return old == new


def within(rel: float = 0.0, abs: float = 0.0) -> Near:
    return lambda key, old, new: new == pytest.approx(old, rel=rel, abs=abs)


def spread(sd: float) -> Near:
    """sd is a share of the number."""
    return within(rel=5 * sqrt(2) * sd)


def spread_by(sd: float) -> Near:
    """sd in the number's own units."""
    return within(abs=5 * sqrt(2) * sd)


settled, fitted = within(rel=1e-6), within(rel=1e-3)
digits = within(abs=2.1e-6)  # printed to six decimals: the last one may fall on either side


def _stops(small: Any, master: Any, rng: np.random.Generator) -> dict[str, list[float]]:
    """The stopping times and the certificate of notebook 04, from another seed."""
    uniform, key, targets = families.uniform_policy(3, 4, 2), int(rng.integers(2**32)), (0.2, 0.1, 0.05)
    demos = [mdpsim.sample_counts(small, master, n, rng) for n in (4, 16, 64, 256, 1024)]
    learner = mdpsim.DemonstrationRL(eps=0.02, bonus_scale=0.3, budget=10**7)
    last = mdpsim.UCBVIEnt(beta=0.1, eps=1e-9, budget=100_000).run(small, uniform, rng)
    return {
        "episodes": [learner.run(small, d, rng).trace.n_episodes for d in demos],
        "baseline": [mdpsim.UCBVI(eps=eps, budget=10**7).run(small, uniform, key).n_episodes for eps in targets],
        "regularised": [mdpsim.UCBVIEnt(beta=1.0, eps=eps).run(small, uniform, key).n_episodes for eps in targets],
        "certificate": [last.certificate],
    }


@cache
def _laws() -> dict[str, np.ndarray]:
    small = families.random_mdp(S=4, A=2, H=3, rng=0)
    master = mdpsim.optimal_expert(small)
    runs = [_stops(small, master, mdpsim.generator(1000 + seed)) for seed in range(12)]
    return {key: np.array([run[key] for run in runs], float) for key in runs[0]}


def law_of(key: str) -> np.ndarray:
    """[12, numbers]: what twelve other seeds give."""
    return _laws()[key]


def in_law(key: str, old: Any, new: Any) -> bool:
    seen = law_of(key)
    width = 8 * seen.std(axis=0, ddof=1) * sqrt(1 + 1 / len(seen))
    return all(bool((np.abs(np.atleast_1d(x) - seen.mean(axis=0)) <= width).all()) for x in (old, new))


_ROUNDS = np.log([256, 1024, 4096, 16384])
# 60 runs a point; their means have these relative deviations (measured, seeds 60 to 119).
_RUNS = {
    "XPO, reference": 0.09, "XPO, history": 0.14, "XPO, policy": 0.025, "DPO against the reference": 0.001, "online DPO": 0.02,
}


def _slopes(key: str, old: Any, new: Any) -> bool:
    """Least-squares slopes over the rounds, of means with those deviations."""
    spacing = float(np.sqrt(((_ROUNDS - _ROUNDS.mean()) ** 2).sum()))
    return all(spread_by(sd / spacing)(name, old[name], new[name]) for name, sd in _RUNS.items())


def _means(key: str, old: Any, new: Any) -> bool:
    return all(spread(sd)(name, old[name], new[name]) for name, sd in _RUNS.items())


def _each(names: str, near: Near) -> dict[str, Near]:
    """The same for several, named with bars between."""
    return dict.fromkeys(names.split("|"), near)


HOW: Mapping[str, Mapping[str, Near]] = {
    "00_tour": _each("J_hard|J_ref|J_small_beta|J_large_beta|slope|kl_over_bound", settled) | _each("status|twins", same),
    "01_verify_a_theorem": _each("slopes|references|margin", settled) | _each("status|again|twins", same),
    "02_write_your_own_claim": _each("slack|quantile_over_bound", settled) | _each("status|twins", same),
    "03_distribution_collapse": {
        **_each("entropy, RL|entropy, KL-RL|entropy, GDC|entropy, entropy bonus", within(abs=2.1e-4)),
        **_each("posterior_entropy|cost|minus_log_Z|scaled|miss", settled), "rl_text": same, "reverse_top": fitted,
    },
    "04_demonstrations": {
        **_each("n_kl_deterministic|n_kl_exact|chi_square_mean|tabular|deterministic|interior|law", settled),
        **_each("linear|loss|distance|rlhf_none|rlhf_fixed|rlhf_root|cloned", fitted),
        **_each("episodes|certificate|baseline|regularised", in_law),
    },
    "05_exploration": {
        **_each("stated_wait|exact|price", settled), "identical": same,
        **_each("online_wait|comparator_wait", spread(1 / 20)),  # geometric, 400 runs
        "xpo_near": within(abs=10.0),  # a quantile of a few rounds; stated at most 25
        "failed": spread_by(sqrt(0.24 / 2500)), "slopes": _slopes, "regret": _means,
        "paid": spread(0.016), "loss": spread_by(0.001),  # measured likewise, over 40 runs; 2000 runs
    },
    "06_inference_aware": {
        **_each("variance|stated_variance|identity|log|exact|best|simulated|se", settled),
        **_each("least_regret|tuned_regret|gap_one|gap_best|gap_worst|gap_median|gap_sharp", digits),
        **{f"{arm}, {name}": settled for arm in ("N = 1", "best of 4", "worst of 4")
           for name in ("CTRL", "K = 64", "identity", "standardised", "raw")},
    },
    "07_small_lm": {
        **_each("ngrams|posterior_entropy", within(abs=2.1e-4)), "identity_error": within(abs=1e-8),
        **_each("perplexity|entropy, RL|entropy, KL-RL|entropy, GDC|cloned|tables|bounds", within(abs=0.03)),
        **_each("kl_rl_left|gdc_left", within(abs=0.003)),
        **_each("found, xpo|found, online|found, comparator|found, flipped", spread_by(sqrt(0.24 / 24))),
        **_each("wins, identity|wins, CTRL", spread_by(sqrt(0.17 / 4000))),  # duels of sampled responses
    },
}


def differences(old: Mapping[str, Any], new: Mapping[str, Any], how: Mapping[str, Near]) -> list[str]:
    """The keys at which new is not what old allows, with both."""
    return [f"{key}: committed {old[key]}, found {value}" for key, value in new.items() if not how[key](key, old[key], value)]
