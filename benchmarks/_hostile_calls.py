"""Right calls of everything public: (function, arguments that are good), by name. Half are the tables of the tests' guards."""

from __future__ import annotations

import inspect
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import mdpsim as m  # noqa: E402
import test_guards as guards  # noqa: E402
import toy  # noqa: E402
from mdpsim.align.transforms import LOG, Function  # noqa: E402
from mdpsim.mdp import families, token_families  # noqa: E402

Call = tuple[Callable[..., Any], dict[str, Any]]
H, S, A, MODEL, PI, PHI = guards.H, guards.S, guards.A, guards.MODEL, guards.PI, guards.PHI
TREE = token_families.token_tree(vocabulary=2, length=2, rng=0)
TOKENS, REF, LAW = TREE.mdp, np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])
LOG_REF, THREE, ZEROS = np.log(REF)[None], m.Softmax(3), np.zeros(3)
LOGS = np.log([[[0.5, 0.3, 0.2]], [[0.2, 0.2, 0.6]]])
CLASS = m.FiniteClass.from_rewards(np.array([[[0.0, 0.1, 0.2, 0.3]], [[0.3, 0.2, 0.1, 0.0]]]), np.log(np.full((1, 4), 0.25)))
SPACE, BOX = m.Responses([0.0, 1.0, 2.0], REF), m.ResponseBox(REF, beta=1.0, r_max=1.0)
GOAL, MANY = m.KLReward([0.0, 0.5, 1.0], REF, beta=1.0), np.array([0, 1, 0, 2])
DATA = m.Pairs([0, 0], [1, 2], [0, 1])
LINEAR = families.linear_simplex(S=S, A=A, H=H, d=2, rng=0)
FLAT = families.uniform_policy(H, S, A)
DEMOS, EPISODES = m.sample_counts(MODEL, FLAT, 20, 0), m.sample(MODEL, FLAT, 4, 0)
PREFS = m.sample_preferences(MODEL, FLAT, FLAT, 10, 0)
TOKEN_FLAT = TOKENS.uniform_policy()
ANSWERS = m.sample_preferences(TOKENS, TOKEN_FLAT, TOKEN_FLAT, 5, 0)
SMALL: dict[str, Any] = {"eps": 0.5, "delta": 0.1, "bonus_scale": 1.0, "replan": 0.01, "budget": 30}
FOLDER = Path(tempfile.gettempdir())
_SAVED: list[Path] = []


def saved() -> Path:
    """A file with a record, in a folder of this process."""
    if not _SAVED:
        _SAVED.append(Path(tempfile.mkdtemp(prefix="hostile")) / "counts.npz")
        m.save(DEMOS, _SAVED[0])
    return _SAVED[0]


def with_pass(x: Any) -> Any:
    """What a user's function would give."""
    return x


DPO: dict[str, Any] = {"beta": 1.0, "smoothing": 0.1, "loss": "logistic"}
WINDOW: dict[str, Any] = {"mdp": TOKENS, "policies": CLASS, "rounds": 3, "seeds": 0, "preference": m.PreferenceModel(noise=0.1),
                          "target": 0.1, "checkpoints": np.array([1, 3]), "keep": False}
TWIN = toy.coins.twins[0]
CALLS: dict[str, Call] = {
    "BestOfN": (m.BestOfN, {"n": 2}), "WorstOfN": (m.WorstOfN, {"n": 2}),
    "Temperature": (m.Temperature, {"tau": 1.5, "breaks": (0.5,)}), "Rejection": (m.Rejection, {"threshold": 0.5, "n": 3}),
    "Custom": (m.Custom, {"function": with_pass}), "Distortion": (m.Distortion, {"g": np.sqrt}),
    "MajorityVote": (m.MajorityVote, {"n": 3, "answers": np.array([0, 1, 1])}),
    "NoisyBestOfN": (m.NoisyBestOfN, {"n": 3, "sigma": 0.5, "breaks": (0.5,)}),
    "ProxyBestOfN": (m.ProxyBestOfN, {"n": 3, "proxy": np.array([0.0, 0.5, 1.0])}),
    "SoftBestOfN": (m.SoftBestOfN, {"n": 3, "tau": 0.5, "breaks": (0.5,)}),
    "Exponential": (m.Exponential, {"t": 1.5, "depth": 56}), "QuantileScale": (m.QuantileScale, {"breaks": (0.5,), "depth": 56,
                                                                                             "pieces": 1}),
    "Function": (Function, {"function": np.log, "name": "log", "depth": 56, "breaks": (0.5,)}),
    "Responses": (m.Responses, {"r": np.array([0.0, 1.0, 2.0]), "pi_ref": REF}),
    "inference_win_rate": (m.inference_win_rate, {"procedure": m.BestOfN(2), "pi": LAW, "space": SPACE, "rival": REF}),
    "inference_loss_rate": (m.inference_loss_rate, {"procedure": m.BestOfN(2), "pi": LAW, "space": SPACE, "rival": REF}),
    "sample_win_rate": (m.sample_win_rate, {"procedure": m.BestOfN(2), "pi": LAW, "space": SPACE, "n": 20, "rng": 0,
        "rival": REF}),
    "optimal_transform": (m.optimal_transform, {"procedure": m.BestOfN(2), "space": SPACE, "beta": 0.2, "n_starts": 1,
        "tol": 1e-6,
                                                "max_iterations": 50, "rng": 0, "start": np.zeros(3)}),
    "tradeoff": (m.tradeoff, {"procedure": m.BestOfN(2), "kls": np.array([0.1, 0.2]), "transforms": [LOG], "space": SPACE,
                              "n_starts": 1}),
    "tuned_exponential": (m.tuned_exponential, {"procedure": m.BestOfN(2), "kl": 0.1, "space": SPACE}),
    "CTRL": (m.CTRL, {"transform": LOG, "K": 3, "shared": True, "interpolate": False, "kl": 0.1}),
    "CTRL.run": (m.CTRL(beta=0.5, K=3).run, {"r": np.array([[0.0, 1.0, 2.0]]), "pi_ref": REF[None], "rng": 0}),
    "align_prompts": (m.align_prompts, {"scores": np.array([[0.0, 1.0, 2.0]]), "pi_ref": REF[None], "beta": 0.5}),
    "prompt_win_rates": (m.prompt_win_rates, {"procedure": m.BestOfN(2), "pi": LAW[None], "r": np.array([[0.0, 1.0, 2.0]]),
                                              "pi_ref": REF[None]}),
    "calibrate": (m.calibrate, {"r": LAW, "pi_ref": REF}),
    "calibrate_by_anchors": (m.calibrate_by_anchors, {"r": LAW, "anchors": np.array([0.1, 0.3])}),
    "calibrate_by_interpolation": (m.calibrate_by_interpolation, {"r": LAW, "anchors": np.array([0.1, 0.3])}),
    "calibration_mse": (m.calibration_mse, {"r": LAW, "pi_ref": REF, "K": 3}),
    "calibration_variance": (m.calibration_variance, {"r": LAW, "pi_ref": REF}),
    "ks_distance": (m.ks_distance, {"C": np.array([0.5, 0.8, 1.0]), "pi": REF}),
    "sample_anchors": (m.sample_anchors, {"r": LAW, "pi_ref": REF, "K": 3, "rng": 0, "shared": True}),
    "fit_softmax": (m.fit_softmax, {"model": BOX, "winners": MANY, "losers": MANY[::-1].copy(), "comparators": MANY,
        "alpha": 0.1,
                                    "prompts": np.zeros(4, int), "basins": 1}),
    "xpo_objective": (m.xpo_objective, {"model": BOX, "theta": ZEROS, "winners": MANY, "losers": MANY[::-1].copy(),
                                        "comparators": MANY, "alpha": 0.1, "prompts": np.zeros(4, int)}),
    "LinearBox": (m.LinearBox, {"pi_ref": REF, "features": np.array([[0.0], [1.0], [2.0]]), "beta": 1.0, "bound": 1.0}),
    "ResponseBox": (m.ResponseBox, {"pi_ref": REF, "beta": 1.0, "r_max": 1.0}),
    "TokenBox": (m.TokenBox, {"mdp": TOKENS, "pi_ref": TREE.pi_ref, "beta": 1.0, "r_max": 1.0}),
    "ResponseBox.rewards": (BOX.rewards, {"theta": ZEROS}), "ResponseBox.log_pi": (BOX.log_pi, {"theta": ZEROS}),
    "FiniteClass.from_rewards": (m.FiniteClass.from_rewards, {"rewards": np.zeros((2, 1, 3)), "log_ref": LOG_REF}),
    "FiniteClass.from_policies": (m.FiniteClass.from_policies, {"log_pi": LOGS, "log_ref": LOG_REF}),
    "FiniteClass.implicit": (CLASS.implicit, {"beta": 0.5}), "FiniteClass.log_pi": (CLASS.log_pi, {"beta": 0.5}),
    "FiniteClass.gaps": (CLASS.gaps, {"mdp": TOKENS, "beta": 0.5}), "FiniteClass.misfit": (CLASS.misfit, {"mdp": TOKENS,
        "beta": 0.5}),
    "RewardBox": (m.RewardBox, {"r_max": 1.0}), "RewardBox.grid": (m.RewardBox().grid, {"log_ref": LOG_REF, "points": 2}),
    "coverability": (m.coverability, {"log_pi": LOGS, "mu0": np.ones(1)}),
    "box_coverability": (m.box_coverability, {"pi_ref": REF[None], "r_max": 1.0, "beta": 0.5, "mu0": np.ones(1)}),
    "concentrability": (m.concentrability, {"log_pi": LOGS, "nu": REF[None], "mu0": np.ones(1)}),
    "effective_ranges": (m.effective_ranges, {"log_pi": LOGS, "pi_ref": REF[None], "beta": 0.5, "mu0": np.ones(1)}),
    "extrapolation_bound": (m.extrapolation_bound, {"ccov": 2.0, "D": 1.0, "least": 1.0, "steps": np.array([10.0, 20.0])}),
    "greedy_extrapolation": (m.greedy_extrapolation, {"log_pi": LOGS, "pi_ref": REF[None], "r": ZEROS[None], "beta": 1.0,
        "steps": 3,
                                                      "least": 1.0, "mu0": np.ones(1), "nu": REF[None]}),
    "dpo_losses": (m.dpo_losses, {"log_pi": LOGS, "log_ref": LOG_REF, "data": DATA, **DPO}),
    "dpo_gradient": (m.dpo_gradient, {"policy": THREE, "theta": ZEROS[None], "log_ref": LOG_REF, "data": DATA, **DPO}),
    "fit_dpo": (m.fit_dpo, {"policies": CLASS, "data": DATA, **DPO, "mu0": np.ones(1)}),
    "pairs_of": (m.pairs_of, {"mdp": TOKENS, "preferences": ANSWERS}),
    "Pairs": (m.Pairs, {"context": np.array([0, 0]), "better": np.array([1, 2]), "worse": np.array([0, 1])}),
    "XPO": (m.XPO, {"alpha": 0.1, "beta": 1.0, "comparator": "reference", "pessimism": False, "smoothing": 0.0,
        "loss": "logistic",
                    "ties": "reference"}),
    "XPO.run": (m.XPO(alpha=0.1, beta=1.0).run, WINDOW),
    "OnlineDPO": (m.OnlineDPO, {**DPO, "ties": "reference"}), "OnlineDPO.run": (m.OnlineDPO(beta=1.0).run, WINDOW),
    "IterativeDPO": (m.IterativeDPO, {**DPO, "ties": "reference", "batch": 10}), "OfflineDPO": (m.OfflineDPO, {**DPO,
        "ties": "reference"}),
    "OfflineDPO.run": (m.OfflineDPO(beta=1.0).run, WINDOW), "IterativeDPO.run": (m.IterativeDPO(beta=1.0, batch=2).run, WINDOW),
    "ComparatorDPO": (m.ComparatorDPO, {**DPO, "ties": "reference", "comparator": "reference"}),
    "PreferenceModel": (m.PreferenceModel, {"noise": 0.1}), "PreferenceModel.wins": (m.PreferenceModel().wins,
        {"rewards": ZEROS[None]}),
    "theorem_alpha": (m.theorem_alpha, {"beta": 1.0, "rounds": 10, "n_policies": 5, "coverability": 2.0, "r_max": 1.0,
        "v_max": 1.0,
                                        "delta": 0.05, "constant": 1.0}),
    "Reward": (m.Reward, {"r": LAW}), "KLReward": (m.KLReward, {"r": LAW, "pi0": REF, "beta": 1.0}),
    "EntropyReward": (m.EntropyReward, {"r": LAW, "pi0": REF, "alpha": 0.5, "beta": 1.0}),
    "Distribution": (m.Distribution, {"target": LAW, "pi0": REF}), "Softmax": (m.Softmax, {"K": 3}),
    "TokenSoftmax": (m.TokenSoftmax, {"V": 2, "L": 2}),
    "exact_gradient": (m.exact_gradient, {"policy": THREE, "theta": ZEROS, "objective": GOAL}),
    "natural_gradient": (m.natural_gradient, {"policy": THREE, "theta": ZEROS, "objective": GOAL}),
    "sampled_gradient": (m.sampled_gradient, {"policy": THREE, "theta": ZEROS, "objective": GOAL, "n": 5, "rng": 0,
        "baseline": 0.1,
                                              "estimate_Z": False}),
    "ascend": (m.ascend, {"policy": THREE, "theta": ZEROS, "objective": GOAL, "eta": 0.1, "steps": 5, "natural": False,
        "every": 1}),
    "flow": (m.flow, {"policy": THREE, "theta": ZEROS, "objective": GOAL, "times": np.array([0.5, 1.0]), "rtol": 1e-8}),
    "tilt": (m.tilt, {"pi0": REF, "r": LAW, "beta": 0.5}), "condition": (m.condition, {"pi0": REF, "b": np.array([0, 1, 1])}),
    "elbo": (m.elbo, {"pi": LAW, "pi0": REF, "r": LAW, "beta": 0.5}), "kl": (m.kl, {"p": LAW, "q": REF}),
    "fit_moments": (m.fit_moments, {"pi0": REF, "features": np.array([[0.0], [1.0], [2.0]]), "moments": np.array([1.0]),
        "tol": 1e-10}),
    "rejection_sample": (m.rejection_sample, {"pi0": REF, "accept": LAW, "n": 5, "rng": 0}),
    "importance_sample": (m.importance_sample, {"pi0": REF, "r": LAW, "beta": 0.5, "n": 5, "rng": 0}),
    "project_markov": (m.project_markov, {"p": np.array([[0.4, 0.1], [0.2, 0.3]]), "direction": "reverse", "order": 0,
        "restarts": 2,
                                          "rng": 0}),
    "project_softmax": (m.project_softmax, {"p": LAW, "features": np.array([[0.0], [1.0], [2.0]]), "direction": "reverse",
        "base": REF,
                                            "restarts": 2, "rng": 0}),
    "solve_soft_batch": (m.solve_soft_batch, {"mdp": MODEL, "pi_ref": PI, "beta": np.array([0.5, 1.0]), "r": np.zeros((2, H,
        S, A))}),
    "solve_soft_many": (m.solve_soft_many, {"mdps": [MODEL, MODEL], "pi_ref": PI, "beta": np.array([0.5, 1.0])}),
    "TokenMDP": (m.TokenMDP, {"r": np.zeros((2, 8)), "vocabulary": 2, "length": 3, "mu0": np.array([0.4, 0.6]), "end": 1}),
    "TokenMDP.responses": (TOKENS.responses, {"pi": TOKEN_FLAT}),
    "TokenMDP.token_policy": (TOKENS.token_policy, {"log_prob": np.log(np.full((1, 4), 0.25))}),
    "TokenMDP.text": (TOKENS.text, {"y": 1}), "TokenMDP.index": (TOKENS.index, {"tokens": np.array([[0, 1]])}),
    "TokenMDP.ended": (TOKENS.ended, {"h": 1}),
    "token_tree": (token_families.token_tree, {"vocabulary": 2, "length": 2, "rng": 0, "prompts": 1, "concentration": 1.0}),
    "combination_lock": (token_families.combination_lock, {"vocabulary": 2, "length": 2, "rare": 0.1, "rng": 0, "prompts": 1,
                                                          "decoy": 0.5}),
    "Preferences": (m.Preferences, {"first": PREFS.first, "second": PREFS.second, "label": PREFS.label}),
    "fit_reward": (m.fit_reward, {"prefs": PREFS, "phi": PHI, "low": 0.0, "high": 1.0, "ridge": 1e-6, "start": np.zeros((H,
        2))}),
    "UCBVI": (m.UCBVI, SMALL | {"bonus": "hoeffding", "reward": "known", "stop": "certificate"}),
    "UCBVIEnt": (m.UCBVIEnt, SMALL | {"beta": 1.0, "bonus": "hoeffding", "reward": "known", "stop": "certificate",
        "explore": True}),
    "LSVIUCBEnt": (m.LSVIUCBEnt, SMALL | {"beta": 1.0, "bonus": "range", "stop": "certificate", "explore": True, "ridge": 1.0}),
    "DemonstrationRL": (m.DemonstrationRL, SMALL | {"beta": 0.5}),
    "LinearDemonstrationRL": (m.LinearDemonstrationRL, SMALL | {"bonus": "range", "ridge": 1.0, "beta": 0.5}),
    "RLHF": (m.RLHF, {"beta": 0.5, "n_pairs": (10,), "decay": 0.5, "low": 0.0, "high": 1.0, "ridge": 1e-6}),
    "UCBVI.run": (m.UCBVI(**SMALL).run, {"mdp": MODEL, "pi_ref": FLAT, "rng": 0}),
    "UCBVIEnt.run": (m.UCBVIEnt(beta=1.0, **SMALL).run, {"mdp": MODEL, "pi_ref": FLAT, "rng": 0}),
    "LSVIUCBEnt.run": (m.LSVIUCBEnt(beta=1.0, **SMALL).run, {"mdp": LINEAR, "pi_ref": FLAT, "rng": 0, "phi": LINEAR.phi}),
    "DemonstrationRL.run": (m.DemonstrationRL(**SMALL).run, {"mdp": MODEL, "demos": DEMOS, "rng": 0}),
    "LinearDemonstrationRL.run": (m.LinearDemonstrationRL(**SMALL).run, {"mdp": LINEAR, "demos": DEMOS, "rng": 0}),
    "RLHF.run": (m.RLHF(beta=0.5, n_pairs=(10,)).run, {"mdp": MODEL, "demos": DEMOS, "rng": 0, "clone": FLAT}),
    "Claim": (lambda **change: replace(toy.coins, **change), {"id": "toy/coins", "statement": "x", "origin": "folklore",
              "cites": toy.coins.cites, "grid": toy.coins.grid, "measure": toy.measure, "rule": toy.coins.rule,
                  "twins": toy.coins.twins,
              "seeds": toy.SEEDS, "rev": 1}),
    "Twin": (lambda **change: replace(TWIN, **change), {"name": "half", "statement": "x", "distance": "x", "rule": TWIN.rule}),
    "Paper": (m.Paper, {"key": "toy", "authors": "Nobody, Ann", "title": "On coins", "venue": "Nowhere", "year": 2026,
                        "arxiv": "2206.00761", "where": "Theorem 1"}),
    "Identity": (m.Identity, {"tol": 1e-9}), "Inequality": (m.Inequality, {"bound": "bound", "of": "value", "tol": 0.0}),
    "Mean": (m.Mean, {"bound": "bound", "margin": 0.05, "of": "value"}),
    "Rate": (m.Rate, {"axis": "n", "slope": -1.0, "margin": 0.1, "side": "two_sided", "of": "value"}),
    "HighProb": (m.HighProb, {"bound": "bound", "delta": 0.1, "of": "value"}),
    "Order": (m.Order, {"larger": "a", "smaller": "b", "margin": 0.0}),
    "Limit": (m.Limit, {"value": "bound", "margin": 0.05, "of": "value"}),
    "product": (m.product, {"n": (1, 2)}), "per_seed": (m.per_seed, {"function": toy.measure}),
        "Point": (lambda values: m.Point(values), {"values": {"n": 1}}),
    "all_claims": (m.all_claims, {"paper": "tiapkin2023", "tag": "cloning"}),
    "judge": (m.judge, {"claim": toy.coins, "records": m.run(toy.coins, preset="quick")}),
    "load": (m.load, {"path": saved()}), "save": (m.save, {"record": DEMOS, "path": saved()}),
    "from_gymnasium": (m.from_gymnasium, {"env": "FrozenLake-v1", "horizon": 5}), "to_gymnasium": (m.to_gymnasium,
        {"mdp": MODEL}),
}
# Records that functions give, with nothing to guard; Store, whose attack is that of tests/test_store_faults.py
GIVEN = {"CloningFit", "DemonstrationRun", "DiscountedSolution", "DiscountedValue", "Exploration", "Extrapolation", "FiniteFit",
         "MeasureError", "RLHFRun", "Ranges", "RewardFit", "SoftmaxFit", "Solution", "Store", "Trace", "Value", "Verdict",
             "FiniteClass"}
SKIPPED = {("verify", "store"), ("run", "budget"), ("verify", "budget"), ("verify", "jobs"), ("run", "jobs")}  # workers, files


def calls(lm: bool = True) -> dict[str, Call]:
    """Every right call; those of mdpsim.lm where torch is there."""
    found: dict[str, Call] = {name: (function, good) for name, (function, good, _) in guards.TABLE.items()} | CALLS
    if lm:
        try:
            import test_lm_guards as more
        except BaseException as error:  # pytest skips by what is no Exception
            if type(error).__name__ not in ("Skipped", "ModuleNotFoundError"):
                raise
        else:
            for name, (function, good, _) in more.TABLES.items():
                found[f"lm {name}"] = (function, good)
    return found


def missing() -> set[str]:
    """Public names without a call."""
    own = {n for n, v in vars(families).items() if inspect.isfunction(v) and v.__module__ == families.__name__}
    return {n for n in own | set(m.__all__) if not n.startswith("_")} - set(calls(lm=False)) - GIVEN - {"claim"}
