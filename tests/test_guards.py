"""Every public function answers bad input with a ValueError that names the function, the argument, what was wanted, what came.

The functions are enumerated from ``mdpsim.__all__`` and from the families: a new public function without a row here fails.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mdpsim
import toy
from mdpsim import MDP, Counts, Point, Trajectories
from mdpsim.mdp import families

H, S, A, N = 3, 4, 2, 5
RNG = np.random.default_rng(0)
P = RNG.dirichlet(np.ones(S), (H, S, A))
R = RNG.random((H, S, A))
MU0 = np.full(S, 1 / S)
PI = RNG.dirichlet(np.ones(A), (H, S))
MODEL = MDP(P, R, MU0)
PHI, MU = RNG.dirichlet(np.ones(2), (S, A)), RNG.dirichlet(np.ones(S), (H, 2))
STATES = RNG.integers(S, size=(N, H + 1))
ACTIONS = RNG.integers(A, size=(N, H))
COUNTS = mdpsim.sample_counts(MODEL, PI, 10, 0)
DISCOUNTED = mdpsim.DiscountedMDP(P[0], R[0], 0.9)
SIZES: dict[str, Any] = {"S": S, "A": A, "H": H}

# function -> (callable, valid arguments, {argument: kind}). Kinds decide which bad values it gets.
Row = tuple[Callable[..., Any], dict[str, Any], dict[str, str]]
TABLE: dict[str, Row] = {
    "MDP": (MDP, {"P": P, "r": R, "mu0": MU0, "horizon": H, "terminal": None},  # terminal: test_ends.py
            {"P": "simplex", "r": "rewards", "mu0": "simplex", "horizon": "count"}),
    "from_matrices": (
        mdpsim.from_matrices,
        {"P": np.ascontiguousarray(P[0].swapaxes(0, 1)), "r": R[0], "gamma": None, "horizon": H, "mu0": MU0, "s_indices": None,
         "a_indices": None, "layout": None},
        {"P": "simplex", "r": "floats", "horizon": "count", "mu0": "simplex", "s_indices": "name", "a_indices": "name",
         "layout": "name"},
    ),
    "Successors": (mdpsim.Successors, {"next_state": np.broadcast_to(np.arange(S), P.shape), "prob": P},
                   {"next_state": "integers", "prob": "simplex"}),
    "LinearMDP": (mdpsim.LinearMDP, {"phi": PHI, "mu": MU, "theta": np.ones((H, 2)), "mu0": MU0, "horizon": H},
                  {"phi": "simplex", "mu": "simplex", "theta": "floats", "mu0": "simplex", "horizon": "count"}),
    "DiscountedMDP": (mdpsim.DiscountedMDP, {"P": P[0], "r": R[0], "gamma": 0.9, "terminal": None},
                      {"P": "simplex", "r": "floats", "gamma": "real"}),
    "solve_discounted": (
        mdpsim.solve_discounted,
        {"mdp": DISCOUNTED, "pi_ref": PI[0], "beta": 0.5, "method": "auto", "tol": 1e-6, "max_iterations": 100},
        {"mdp": "record", "pi_ref": "simplex", "beta": "beta", "method": "name", "tol": "real", "max_iterations": "count"},
    ),
    "evaluate_discounted": (mdpsim.evaluate_discounted, {"mdp": DISCOUNTED, "pi": PI[0], "pi_ref": PI[0], "beta": 0.5},
                            {"mdp": "record", "pi": "simplex", "pi_ref": "simplex", "beta": "beta"}),
    "solve_soft": (mdpsim.solve_soft, {"mdp": MODEL, "pi_ref": PI, "beta": 0.5},
                   {"mdp": "record", "pi_ref": "policy", "beta": "beta"}),
    "solve_hard": (mdpsim.solve_hard, {"mdp": MODEL}, {"mdp": "record"}),
    "evaluate": (mdpsim.evaluate, {"mdp": MODEL, "pi": PI, "pi_ref": PI, "beta": 0.5},
                 {"mdp": "record", "pi": "policy", "pi_ref": "policy", "beta": "beta"}),
    "occupancy": (mdpsim.occupancy, {"mdp": MODEL, "pi": PI}, {"mdp": "record", "pi": "policy"}),
    "trajectory_kl": (mdpsim.trajectory_kl, {"mdp": MODEL, "pi": PI, "other": PI},
                      {"mdp": "record", "pi": "policy", "other": "policy"}),
    "sample": (mdpsim.sample, {"mdp": MODEL, "pi": PI, "n": 3, "rng": 0},
               {"mdp": "record", "pi": "policy", "n": "count", "rng": "rng"}),
    "sample_counts": (mdpsim.sample_counts, {"mdp": MODEL, "pi": PI, "n": 3, "rng": 0},
                      {"mdp": "record", "pi": "policy", "n": "count", "rng": "rng"}),
    "fit_bc": (mdpsim.fit_bc, {"demos": COUNTS, "smoothing": 1.0, "stationary": False},
               {"demos": "record", "smoothing": "real"}),
    "fit_bc_linear": (
        mdpsim.fit_bc_linear, {"demos": COUNTS, "phi": PHI, "kappa": 0.1, "ridge": 0.0, "start": np.zeros((H, 2))},
        {"demos": "record", "ridge": "real"},  # the others: test_cloning_classes.py
    ),
    "fit_bc_finite": (mdpsim.fit_bc_finite, {"demos": COUNTS, "policies": PI[None]},
                      {"demos": "record", "policies": "simplex"}),
    "optimal_expert": (mdpsim.optimal_expert, {"mdp": MODEL}, {"mdp": "record"}),
    "soft_expert": (mdpsim.soft_expert, {"mdp": MODEL, "beta": 0.5, "pi_ref": PI},
                    {"mdp": "record", "beta": "beta"}),
    "epsilon_greedy_expert": (mdpsim.epsilon_greedy_expert, {"mdp": MODEL, "epsilon": 0.1},
                              {"mdp": "record", "epsilon": "real"}),
    "random_expert": (mdpsim.random_expert, SIZES | {"support": 1, "rng": 0, "least": 0.0},
                      {"S": "count", "A": "count", "H": "count", "support": "count", "rng": "rng", "least": "real"}),
    "suboptimal_expert": (mdpsim.suboptimal_expert, {"mdp": MODEL, "eps": 0.1}, {"mdp": "record", "eps": "real"}),
    "Trajectories": (Trajectories, {"states": STATES, "actions": ACTIONS, "rewards": np.zeros((N, H)), "S": S, "A": A,
                      "state_labels": None, "action_labels": None},  # labels: test_tables.py
                     {"states": "integers", "actions": "integers", "rewards": "floats", "S": "count", "A": "count"}),
    "Counts": (Counts, {"visits": COUNTS.visits, "n": 10}, {"visits": "integers", "n": "count"}),
    "sample_preferences": (
        mdpsim.sample_preferences, {"mdp": MODEL, "pi": PI, "pi_other": PI, "n": 3, "rng": 0, "link": None},
        {"mdp": "record", "pi": "policy", "pi_other": "policy", "n": "count", "rng": "rng"},
    ),
    "generator": (mdpsim.generator, {"seed": 0}, {"seed": "rng"}),
    "get_claim": (mdpsim.get_claim, {"claim_id": "korbak2022/elbo-identity"}, {"claim_id": "name"}),
    "load_claims": (mdpsim.load_claims, {"path": Path(__file__).parent / "toy.py"}, {"path": "path"}),
    "run": (mdpsim.run, {"claim": toy.coins, "preset": "quick", "seed": 0, "jobs": 1, "budget": 60.0, "timeout": 60.0,
                         "keep_going": False},
            {"preset": "name", "seed": "seed", "jobs": "count", "timeout": "real"}),
    "verify": (mdpsim.verify, {"claim": toy.coins, "preset": "quick", "seed": 0, "store": None, "jobs": 1, "budget": 60.0,
                               "timeout": 60.0, "keep_going": False, "device": "cpu"},
               {"claim": "name", "preset": "name", "seed": "seed", "jobs": "count", "store": "record", "timeout": "real",
                "device": "name"}),
    "geometric": (mdpsim.geometric, {"low": 1, "high": 10, "n": 3}, {"n": "count"}),
    "bandit": (families.bandit, {"r": np.ones(3)}, {"r": "vector"}),
    "random_mdp": (families.random_mdp, SIZES | {"rng": 0, "concentration": 1.0, "start": "fixed"},
                   {"S": "count", "A": "count", "H": "count", "rng": "rng", "concentration": "real", "start": "name"}),
    "random_deterministic": (families.random_deterministic, SIZES | {"rng": 0, "start": "fixed"},
                             {"S": "count", "A": "count", "H": "count", "rng": "rng", "start": "name"}),
    "garnet": (families.garnet, SIZES | {"rng": 0, "branching": 2, "start": "fixed"},
               {"S": "count", "A": "count", "H": "count", "rng": "rng", "branching": "count", "start": "name"}),
    "chain": (families.chain, {"H": H, "S": S, "slip": 0.1}, {"H": "count", "S": "count", "slip": "real"}),
    "riverswim": (families.riverswim, {"H": H, "S": S}, {"H": "count", "S": "count"}),
    "gridworld": (families.gridworld, {"H": H, "size": 3, "slip": 0.1}, {"H": "count", "size": "count", "slip": "real"}),
    "deep_sea": (families.deep_sea, {"size": 3, "rng": 0}, {"size": "count"}),
    "hard_pair": (families.hard_pair, {"eps": 0.1, "reach": 0.5, "H": 3}, {"eps": "real", "reach": "real", "H": "count"}),
    "linear_simplex": (
        families.linear_simplex, SIZES | {"d": 2, "rng": 0, "overlap": 1.0, "start": "fixed"},
        {"S": "count", "A": "count", "H": "count", "d": "count", "rng": "rng", "overlap": "real", "start": "name"},
    ),
    "uniform_policy": (families.uniform_policy, SIZES, {"S": "count", "A": "count", "H": "count"}),
    "random_policy": (families.random_policy, SIZES | {"rng": 0, "concentration": 1.0},
                      {"S": "count", "A": "count", "H": "count", "rng": "rng", "concentration": "real"}),
    "random_deterministic_policy": (families.random_deterministic_policy, SIZES | {"rng": 0},
                                    {"S": "count", "A": "count", "H": "count", "rng": "rng"}),
}
# Public names whose bad input is tested elsewhere (test_claims, test_store, test_papers) or that take none.
ELSEWHERE = {
    "Claim", "Twin", "Point", "Paper", "Identity", "Inequality", "Mean", "Rate", "HighProb", "Order", "Limit", "Store",
    "product", "per_seed", "all_claims",
    "judge", "Solution", "Value", "DiscountedSolution", "DiscountedValue", "Verdict", "MeasureError",
    "from_gymnasium", "to_gymnasium",  # test_gymnasium.py
    "CloningFit", "FiniteFit",
    "fit_reward", "RewardFit", "RLHF", "RLHFRun",  # test_reward.py, test_rlhf.py
    "calibrate", "calibrate_by_anchors", "calibrate_by_interpolation", "calibration_mse",  # test_calibration.py
    "calibration_variance", "ks_distance", "sample_anchors",  # test_calibration.py
    "CTRL", "align_prompts", "prompt_win_rates",  # test_ctrl.py
    "inference_loss_rate", "inference_win_rate", "sample_win_rate", "BestOfN", "Custom", "Distortion",  # test_inference.py
    "Rejection", "Temperature", "WorstOfN", "MajorityVote", "NoisyBestOfN", "ProxyBestOfN", "SoftBestOfN",  # test_inference.py
    "QuantileScale", "Responses", "tradeoff", "tuned_exponential", "Exponential",  # test_inference.py
    "optimal_transform",  # test_optimum.py
    "FiniteClass", "RewardBox", "XPO", "theorem_alpha", "Exploration", "PreferenceModel",  # test_xpo.py
    "ComparatorDPO", "IterativeDPO", "OfflineDPO", "OnlineDPO", "Pairs",  # test_dpo.py
    "dpo_gradient", "dpo_losses", "fit_dpo", "pairs_of",  # test_dpo.py
    "Extrapolation", "Ranges", "box_coverability", "concentrability", "coverability", "effective_ranges",  # test_coverage.py
    "extrapolation_bound", "greedy_extrapolation",  # test_coverage.py
    "SoftmaxFit", "fit_softmax", "xpo_objective", "LinearBox", "ResponseBox", "TokenBox",  # test_softmax_guards.py
    "LSVIUCBEnt", "LinearDemonstrationRL",  # test_lsvi.py, test_demonstration_linear.py
    "UCBVI", "UCBVIEnt", "Trace", "DemonstrationRL", "DemonstrationRun",  # test_ucbvi.py, test_bpi.py
    "TokenMDP",  # test_token.py
    "solve_soft_batch", "solve_soft_many",  # test_batch.py
    "Preferences", "save", "load",  # test_preferences.py, test_files.py
    "tilt", "condition", "fit_moments", "elbo", "kl", "rejection_sample", "importance_sample",  # test_sequence.py
    "project_markov", "project_softmax",  # test_sequence.py
    "Softmax", "TokenSoftmax", "Reward", "KLReward", "EntropyReward", "Distribution",  # test_gradient.py
    "exact_gradient", "natural_gradient", "sampled_gradient", "ascend", "flow",  # test_gradient.py
}


def bad_arrays(good: np.ndarray) -> Iterator[tuple[str, Any]]:
    yield "one axis too few", good[0] if good.ndim > 1 else np.float64(1.0)
    yield "one axis too many", good[None]
    yield "too long", np.concatenate([good, good], axis=-1)
    yield "empty", good[..., :0]
    yield "text", np.full(good.shape, "x")
    yield "numbers as text", good.astype(str)
    yield "times", np.zeros(good.shape, "datetime64[s]")
    yield "structures", np.zeros(good.shape, [("x", float)])
    yield "complex", good.astype(complex)
    yield "masked", np.ma.masked_array(good, mask=np.arange(good.size).reshape(good.shape) == 0)
    yield "masked in a list", [np.ma.masked_array(x, mask=True) for x in good] if good.ndim else np.ma.masked
    yield "a view that no memory holds", np.broadcast_to(good.flat[0], (int(1e15 ** (1 / max(1, good.ndim))),) * good.ndim)
    yield "objects", good.astype(object)
    yield "ragged", [[1.0, 2.0], [3.0]]
    yield "nothing", None


def bad_floats(good: np.ndarray) -> Iterator[tuple[str, Any]]:
    for value in (np.nan, np.inf, -np.inf):
        for where in (0, -1):
            bad = np.array(good, dtype=float)
            bad.flat[where] = value
            yield f"{value} at {where}", bad
    yield "integers that float64 rounds", np.full(good.shape, 2**53 + 1)
    yield "quadruple precision", good.astype(np.longdouble) if np.longdouble is not np.float64 else None


def bad_rows(good: np.ndarray) -> Iterator[tuple[str, Any]]:
    for where in (0, -1):
        row = np.array(good, dtype=float)
        flat = row.reshape(-1, row.shape[-1])
        flat[where] = 0.0
        yield f"row of zeros at {where}", row
        row = np.array(good, dtype=float)
        row.reshape(-1, row.shape[-1])[where] *= 1 + 3e-9
        yield f"row off by 3e-9 at {where}", row
        row = np.array(good, dtype=float)
        flat = row.reshape(-1, row.shape[-1])
        flat[where, 0] += 1 + flat[where, 1]
        flat[where, 1] = -1.0
        yield f"negative at {where}", row


def bad_values(kind: str, good: Any) -> Iterator[tuple[str, Any]]:
    if kind in ("simplex", "policy", "floats", "rewards", "integers", "vector"):
        array = np.asarray(good)
        good_too = (("vector", "too long"), ("policy", "one axis too few"))  # [S, A] is a stationary policy
        yield from ((label, bad) for label, bad in bad_arrays(array) if (kind, label) not in good_too)
        if kind != "integers":
            yield from ((x, bad) for x, bad in bad_floats(array) if kind != "rewards" or not x.startswith("-inf"))  # forbids
        if kind in ("simplex", "policy"):
            yield from bad_rows(array)
        if kind == "integers":
            yield from (("fractions", array + 0.5), ("floats", array.astype(float)), ("negative", array - 100))
    elif kind == "beta":
        yield from ((repr(v), v) for v in (-1.0, -1e-300, np.nan, None, "1", [1.0], 1j, True, 10**400))
    elif kind == "count":
        yield from ((repr(v), v) for v in (0, -1, 1.5, np.nan, "3", None if isinstance(good, str) else [3], True))
        yield "5001 digits", 10**5000
    elif kind == "seed":
        yield from ((repr(v), v) for v in (-1, 1.5, np.nan, "3", None, True))
    elif kind == "real":
        yield from ((repr(v), v) for v in (-1.0, np.nan, np.inf, None, "1", True, 10**400))
        yield "5001 digits", 10**5000
    elif kind == "rng":
        yield from ((repr(v), v) for v in (-1, 1.5, None, "x", np.random.RandomState))
    elif kind == "record":
        yield from ((repr(v), v) for v in (3, "mdp" if good is not None else 3.5, [P, R, MU0], np.ones(3)))
    else:
        yield from ((repr(v), v) for v in ("no such name", ""))


CASES = [
    pytest.param(name, argument, bad, id=f"{name}-{argument}-{label}")
    for name, (_, good, kinds) in TABLE.items()
    for argument, kind in kinds.items()
    for label, bad in bad_values(kind, good[argument])
]


@pytest.mark.parametrize(("name", "argument", "bad"), CASES)
def test_bad_input_is_named(name: str, argument: str, bad: Any) -> None:
    function, good, _ = TABLE[name]
    with pytest.raises(ValueError, match=r"\A[\w/ -]+: .+ must .+; got .+") as error:
        function(**(good | {argument: bad}))
    message = str(error.value)
    # The actions of trajectories set n and H: states of another length are then what is named.
    wanted = "states" if "states must have shape" in message else {"claim_id": "claim"}.get(argument, argument)
    assert re.search(rf"\b{wanted}\b", message.split(" must ")[0]), message
    assert len(message) < 400, "an error is a sentence, not a dump"


@pytest.mark.parametrize("name", sorted(TABLE))
def test_the_good_arguments_are_good(name: str) -> None:
    function, good, _ = TABLE[name]
    function(**good)


def test_every_public_function_has_a_row() -> None:
    public = set(mdpsim.__all__) | {
        name for name, value in vars(families).items()
        if inspect.isfunction(value) and value.__module__ == families.__name__ and not name.startswith("_")
    }
    assert public - set(TABLE) - ELSEWHERE == set(), "a public function without bad-input cases"
    assert (set(TABLE) | ELSEWHERE) - public == set(), "a row for what is no longer public"


@pytest.mark.parametrize("name", sorted(TABLE))
def test_every_argument_is_covered(name: str) -> None:
    function, good, _ = TABLE[name]
    parameters = {p for p in inspect.signature(function).parameters if p not in ("self", "store", "progress")}
    assert parameters <= set(good) | {"store"}


def test_the_worst_row_and_its_sum_are_named() -> None:
    bad = PI.copy()
    bad[1, 2] *= 1 + 1e-6
    bad[0, 1] *= 1 + 1e-8
    with pytest.raises(ValueError, match=r"within 1e-09; got sum 1\.000001\d* in row \(1, 2\)"):
        mdpsim.solve_soft(MODEL, bad, 1.0)


def test_rows_within_tolerance_are_renormalised() -> None:
    near = PI * (1 + 1e-10)
    assert np.allclose(mdpsim.solve_soft(MODEL, near, np.inf).pi.sum(-1), 1.0, rtol=0, atol=4 * np.finfo(float).eps)


def test_evaluate_needs_cover_for_a_penalty() -> None:
    uncovered = np.zeros((H, S, A))
    uncovered[..., 0] = 1.0
    with pytest.raises(ValueError, match=r"^evaluate: pi must .*; got"):
        mdpsim.evaluate(MODEL, PI, pi_ref=uncovered, beta=0.5)
    assert mdpsim.evaluate(MODEL, PI, pi_ref=uncovered).kl == np.inf
    with pytest.raises(ValueError, match=r"^evaluate: .*pi_ref"):
        mdpsim.evaluate(MODEL, PI, beta=0.5)


def test_records_cannot_be_written() -> None:
    mine = P.copy()
    model = MDP(mine, R, MU0)
    mine[:] = 0.0
    assert model.P.sum() == pytest.approx(H * S * A)
    for array in (model.P, model.r, model.mu0, *mdpsim.solve_soft(model, PI, 1.0), COUNTS.visits):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0.0
    with pytest.raises(AttributeError):
        model.P = P  # type: ignore[misc]


def test_layouts_and_lists_give_the_same_numbers() -> None:
    want = mdpsim.solve_soft(MODEL, PI, 0.3)
    fortran = mdpsim.solve_soft(MDP(np.asfortranarray(P), np.asfortranarray(R), MU0.tolist()), np.asfortranarray(PI), 0.3)
    strided = mdpsim.solve_soft(MODEL, np.repeat(PI, 2, axis=0)[::2], np.float32(0.3).item())
    assert np.array_equal(want.V, fortran.V)
    assert np.allclose(want.V, strided.V, rtol=1e-6)
    assert np.array_equal(want.V, mdpsim.solve_soft(MODEL, PI.tolist(), 0.3).V)


def test_no_public_class_hides_a_point_of_failure() -> None:
    with pytest.raises(ValueError, match="^judge: "):
        mdpsim.judge("korbak2022/elbo-identity", None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="^product: "):
        mdpsim.product(a=3)  # type: ignore[arg-type]
    assert Point() == Point({})
