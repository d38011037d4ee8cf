"""Softmax classes and their fit answer bad input with a ValueError that names the function and the argument."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mdpsim.align.cccp import fit_softmax, xpo_objective
from mdpsim.align.softmax_class import LinearBox, ResponseBox, TokenBox
from mdpsim.mdp.token_families import token_tree

BOX, TWO = ResponseBox([0.5, 0.5, 0.0], beta=1.0, r_max=1.0), ResponseBox(np.full((2, 3), 1 / 3), beta=1.0, r_max=1.0)
TREE = token_tree(vocabulary=2, length=2, rng=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ResponseBox([0.5, 0.4], beta=1.0, r_max=1.0), "ResponseBox: pi_ref must have rows that sum to one"),
        (lambda: ResponseBox([0.5, 0.5], beta=0.0, r_max=1.0), "ResponseBox: beta must be a number in"),
        (lambda: ResponseBox([0.5, 0.5], beta=np.inf, r_max=1.0), "ResponseBox: beta must be a number in"),
        (lambda: ResponseBox([0.5, 0.5], beta=1.0, r_max=0.0), "ResponseBox: r_max must be a number in"),
        (lambda: TokenBox(TREE.mdp.tabular, TREE.pi_ref, beta=1.0, r_max=1.0), "TokenBox: mdp must be a TokenMDP; got MDP"),
        (lambda: TokenBox(TREE.mdp, TREE.pi_ref[:1], beta=1.0, r_max=1.0), r"TokenBox: pi_ref must have shape \[H, S, A\]"),
        (lambda: LinearBox([0.5, 0.5], np.ones((3, 2)), beta=1.0, bound=1.0), r"LinearBox: features must have shape \[Y, d\]"),
        (lambda: LinearBox([0.5, 0.5], [[np.nan], [0.0]], beta=1.0, bound=1.0), "LinearBox: features must be finite"),
        (lambda: BOX.log_pi([0.0]), r"log_pi: theta must have shape \[n\] = \(3,\); got \(1,\)"),
        (lambda: fit_softmax("box", [0], [1]), "fit_softmax: model must be a ResponseBox, TokenBox or LinearBox; got str"),
        (lambda: fit_softmax(BOX, [0], [3]), r"fit_softmax: losers must have entries in \[0, 3\); got 3"),
        (lambda: fit_softmax(BOX, [0, 1], [0]), r"fit_softmax: losers must have shape \[n\] = \(2,\); got \(1,\)"),
        (lambda: fit_softmax(BOX, [], []), "fit_softmax: winners must"),
        (lambda: fit_softmax(BOX, [0.5], [1]), "fit_softmax: winners must hold integers; got dtype float64"),
        (lambda: fit_softmax(BOX, [2], [1]), "winners must be responses that pi_ref can give; got response 2 to prompt 0"),
        (lambda: fit_softmax(BOX, [0], [1], [2], alpha=1.0), "comparators must be responses that pi_ref can give; got"),
        (lambda: fit_softmax(BOX, [0], [1], alpha=1.0), "fit_softmax: comparators must be given where alpha > 0; got None"),
        (lambda: fit_softmax(BOX, [0], [1], [1], alpha=-0.1), r"alpha must be a number in \[0, 1e\+300\]; got -0.1"),
        (lambda: fit_softmax(BOX, [0], [1], [1], alpha=1e250), "fit_softmax: alpha must be at most 1e200 beta; got 1e"),
        (lambda: fit_softmax(TWO, [0], [1]), "fit_softmax: prompts must be given where there are 2 prompts; got None"),
        (lambda: fit_softmax(TWO, [0], [1], prompts=[2]), r"fit_softmax: prompts must have entries in \[0, 2\); got 2"),
        (lambda: fit_softmax(BOX, [0], [1], basins=-1), "fit_softmax: basins must be an integer >= 0"),
        (lambda: fit_softmax(BOX, [0], [1], starts=[0.0, 0.0, 0.0]), r"starts must have shape \[k, n\] = \(k, 3\)"),
        (lambda: xpo_objective(BOX, [[0.0]], [0], [1]), r"theta must have shape \[k, n\] = \(k, 3\); got \(1, 1\)"),
        (lambda: xpo_objective(None, [0.0], [0], [1]), "xpo_objective: model must be a ResponseBox, TokenBox or LinearBox"),
    ],
)
def test_bad_input(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
