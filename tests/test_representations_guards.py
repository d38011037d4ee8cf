"""What ``Successors``, ``from_csr`` and ``LinearMDP`` refuse and how they say so; what the padding keeps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import sparse

import tolerances
from mdpsim.mdp import families
from mdpsim.mdp.linear import LinearMDP
from mdpsim.mdp.successors import Successors
from mdpsim.mdp.tabular import MDP
from mdpsim.solve.exact import solve_hard

H, S, A, K, D = 2, 3, 2, 2, 4
IDS = np.array([[[[0, 1], [1, 2]], [[2, 0], [0, 0]], [[1, 1], [2, 1]]]] * H)
PROB = np.array([[[[0.5, 0.5], [1.0, 0.0]], [[0.25, 0.75], [0.5, 0.5]], [[0.0, 1.0], [0.1, 0.9]]]] * H)
RNG = np.random.default_rng(0)
LINEAR = {
    "phi": RNG.dirichlet(np.ones(D), (S, A)), "mu": RNG.dirichlet(np.ones(S), (H, D)), "theta": RNG.random((H, D)),
    "mu0": np.full(S, 1 / S), "horizon": None,
}


def put(array, index, value):
    """A copy with one entry replaced."""
    out = np.array(array)
    out[index] = value
    return out


BAD_SUCCESSORS = [
    ({"next_state": put(IDS, (1, 2, 0, 1), 3)}, r"next_state must have entries in \[0, 3\); got 3"),
    ({"next_state": put(IDS, (0, 0, 0, 0), -1)}, r"next_state must have entries in \[0, 3\); got -1"),
    ({"next_state": put(IDS, (0, 0, 1, 1), 3)}, r"next_state must have entries in \[0, 3\); got 3"),  # where prob is 0, too
    ({"next_state": IDS.astype(float)}, "next_state must hold integers; got dtype float64"),
    ({"next_state": IDS[..., :1]}, r"next_state must have shape \[H, S, A, K\] = \(2, 3, 2, 2\); got \(2, 3, 2, 1\)"),
    ({"next_state": IDS[:1]}, r"next_state must have shape .*; got \(1, 3, 2, 2\)"),
    ({"prob": PROB[0]}, r"prob must have shape \[H, S, A, K\] = .*; got \(3, 2, 2\)"),
    ({"prob": PROB[..., :0]}, "prob must have shape"),
    ({"prob": put(PROB, (0, 1, 0), [0.3, 0.6])}, r"prob must have rows that sum to one.*got sum 0.9 in row \(0, 1, 0\)"),
    ({"prob": put(PROB, (0, 1, 0), [-0.5, 1.5])}, r"prob must have no negative entries; got -0.5 in row \(0, 1, 0\)"),
    ({"prob": put(PROB, (1, 2, 1), 0.0)}, r"prob must have rows that sum to one; got only zeros in row \(1, 2, 1\)"),
    ({"prob": put(PROB, (0, 0, 0, 0), math.nan)}, r"prob must be finite; got nan at \(0, 0, 0, 0\)"),
]


@pytest.mark.parametrize(("change", "message"), BAD_SUCCESSORS)
def test_successors_refuse(change, message):
    good = {"next_state": IDS, "prob": PROB}
    assert Successors(**good).shape == (H, S, A, K)
    with pytest.raises(ValueError, match=f"^Successors: {message}"):
        Successors(**{**good, **change})


BAD_MDP = [
    ({"P": (IDS, PROB)}, "P must"),
    ({"r": np.zeros((H, S, A + 1))}, r"r must have shape \[H, S, A\] = \(H, 3, 2\)"),
    ({"mu0": np.full(S + 1, 0.25)}, r"mu0 must have shape \[S\] = \(3,\)"),
    ({"horizon": 3}, "P must have 1 or H = 3 stages; got 2"),
    ({"r": np.zeros((3, S, A)), "horizon": None}, "P must have 1 or H = 3 stages; got 2"),
]


@pytest.mark.parametrize(("change", "message"), BAD_MDP)
def test_an_mdp_of_successors_refuses(change, message):
    good = {"P": Successors(IDS, PROB), "r": np.zeros((H, S, A)), "mu0": np.full(S, 1 / S), "horizon": H}
    assert repr(MDP(**good)) == "MDP(H=2, S=3, A=2, staged dynamics, 2 successors)"
    with pytest.raises(ValueError, match=f"^MDP: {message}"):
        MDP(**{**good, **change})


BAD_LINEAR = [
    ({"phi": put(LINEAR["phi"], (1, 0), [2.0, -1.0, 0.0, 0.0])}, r"phi must have no negative entries; got -1 in row \(1, 0\)"),
    ({"phi": 0.9 * LINEAR["phi"]}, "phi must have rows that sum to one within 1e-09; got sum 0.9"),
    ({"phi": put(LINEAR["phi"], (2, 1), 0.0)}, r"phi must have rows that sum to one; got only zeros in row \(2, 1\)"),
    ({"phi": LINEAR["phi"][0]}, r"phi must have shape \[S, A, d\]"),
    ({"mu": put(LINEAR["mu"], (1, 3), [0.5, 0.7, 0.0])}, r"mu must have rows that sum to one.*got sum 1.2 in row \(1, 3\)"),
    ({"mu": put(LINEAR["mu"], (0, 0), [1.5, -0.5, 0.0])}, r"mu must have no negative entries; got -0.5 in row \(0, 0\)"),
    ({"mu": LINEAR["mu"][:, :3]}, r"mu must have shape \[H, d, S\] = \(H, 4, 3\); got \(2, 3, 3\)"),
    ({"mu": LINEAR["mu"].swapaxes(1, 2)}, r"mu must have shape \[H, d, S\] = \(H, 4, 3\); got \(2, 3, 4\)"),
    ({"theta": LINEAR["theta"][:, :3]}, r"theta must have shape \[H, d\] = \(H, 4\); got \(2, 3\)"),
    ({"theta": put(LINEAR["theta"], (0, 0), math.inf)}, r"theta must be finite; got inf at \(0, 0\)"),
    ({"mu0": [0.5, 0.5]}, r"mu0 must have shape \[S\] = \(3,\); got \(2,\)"),
    ({"horizon": 5}, "mu must have 1 or H = 5 stages; got 2"),
    ({"theta": np.ones((3, D))}, "mu must have 1 or H = 3 stages; got 2"),
    ({"mu": LINEAR["mu"][:1], "theta": np.ones((3, D)), "horizon": 2}, "theta must have 1 or H = 2 stages; got 3"),
    ({"horizon": 0}, "horizon must be an integer >= 1; got 0"),
]


@pytest.mark.parametrize(("change", "message"), BAD_LINEAR)
def test_linear_mdps_refuse(change, message):
    assert repr(LinearMDP(**LINEAR)) == "LinearMDP(H=2, S=3, A=2, d=4, staged dynamics)"
    with pytest.raises(ValueError, match=f"^LinearMDP: {message}"):
        LinearMDP(**{**LINEAR, **change})


def test_rewards_beyond_float64_are_refused():
    model = LinearMDP(np.ones((1, 1, 1)), np.ones((1, 1, 1)), [[1e308]], [1.0], horizon=3)
    sparse_model = MDP(Successors([[[[0]]]], [[[[1.0]]]]), [[[1e308]]], [1.0], horizon=3)
    for mdp in (model, sparse_model):
        with pytest.raises(ValueError, match="mdp must have rewards whose sums stay within float64"):
            solve_hard(mdp)


def test_records_copy_what_the_caller_can_write():
    ids, prob = IDS.copy(), PROB.copy()
    record = Successors(ids, prob)
    ids[:], prob[:] = 0, 0.0
    np.testing.assert_array_equal(record.next_state, IDS)
    np.testing.assert_array_equal(record.prob, PROB)
    for x in (record.next_state, record.prob, record.to_dense(), LinearMDP(**LINEAR).phi, LinearMDP(**LINEAR).mu):
        assert not x.flags.writeable


# ---- dense, linear and back


def test_to_dense_adds_the_probabilities_of_equal_ids():
    P = Successors(IDS, PROB).to_dense()
    assert P[0].tolist() == [
        [[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]], [[0.75, 0.0, 0.25], [1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0], [0.0, 0.9, 0.1]],
    ]


def test_to_tabular_is_the_definition():
    model = LinearMDP(**LINEAR)
    mdp = model.to_tabular()
    expected = np.einsum("sad,hdj->hsaj", LINEAR["phi"], LINEAR["mu"])
    np.testing.assert_allclose(mdp.P, expected, rtol=8 * tolerances.EPS)
    np.testing.assert_allclose(mdp.r, np.einsum("sad,hd->hsa", LINEAR["phi"], LINEAR["theta"]), rtol=8 * tolerances.EPS)
    stationary = LinearMDP(LINEAR["phi"], LINEAR["mu"][:1], LINEAR["theta"], LINEAR["mu0"]).to_tabular()
    assert (stationary.P.shape, stationary.r.shape, stationary.H) == ((1, S, A, S), (2, S, A), 2)


# ---- from_csr


def csr(P):
    """Stage P [S, A, S] as a scipy matrix [S A, S]."""
    return sparse.csr_array(P.reshape(-1, P.shape[-1]))


@pytest.mark.parametrize("make", [sparse.csr_array, sparse.csr_matrix, sparse.coo_array, sparse.csc_matrix])
def test_from_csr_keeps_the_transitions(make):
    mdp = families.garnet(S=20, A=3, H=4, rng=0, branching=3)
    record = Successors.from_csr(make(mdp.P[0].reshape(-1, 20)))
    assert record.shape == (1, 20, 3, 3)
    np.testing.assert_array_equal(record.to_dense(), mdp.P)


def test_from_csr_takes_stages_and_plain_arrays():
    river = families.riverswim(H=5)  # rows of 1, 2 and 3 entries
    chain = families.chain(H=5, S=6)
    stages = [csr(river.P[0]), csr(chain.P[0])]
    expected = np.concatenate([river.P, chain.P])
    np.testing.assert_array_equal(Successors.from_csr(stages).to_dense(), expected)
    triples = [(x.data, x.indices, x.indptr) for x in stages]
    record = Successors.from_csr(triples, S=6)
    assert repr(record) == "Successors(stages=2, S=6, A=2, K=3)"
    np.testing.assert_array_equal(record.to_dense(), expected)
    np.testing.assert_array_equal(Successors.from_csr(triples[0], S=6).to_dense(), river.P)


def lopsided(n):
    """One row of n entries, n - 1 rows of one: n n cells for 2 n - 1 entries."""
    P = np.zeros((n, 1, n))
    P[:, 0, 0] = 1.0
    P[0, 0] = 1.0 / n
    return csr(P)


def test_from_csr_refuses_to_waste():
    assert Successors.from_csr(lopsided(7)).shape[-1] == 7  # 49 cells for 13 entries: 3.8 times
    with pytest.raises(ValueError, match=r"^from_csr: rows must pad to at most 4 times their entries; got 64 cells for 15"):
        Successors.from_csr(lopsided(8))


GOOD = ([1.0, 0.5, 0.5], [0, 0, 1], [0, 1, 3])  # S = 2, A = 1
BAD_CSR = [
    (((1.0, 0.5, 0.5), [0, 0, 2], [0, 1, 3]), 2, r"indices must have entries in \[0, 2\); got 2"),
    ((GOOD[0], [0, -1, 1], GOOD[2]), 2, r"indices must have entries in \[0, 2\); got -1"),
    ((GOOD[0], [0, 1], GOOD[2]), 2, r"indices must have shape \[entries\] = \(3,\); got \(2,\)"),
    ((GOOD[0], GOOD[1], [0, 2, 2]), 2, "indptr must rise from 0 to the number of entries, 3"),
    ((GOOD[0], GOOD[1], [1, 1, 3]), 2, "indptr must rise from 0"),
    ((GOOD[0], GOOD[1], [0, 3, 2, 2, 3]), 2, "indptr must rise from 0"),
    ((GOOD[0], GOOD[1], [0, 1, 4]), 2, r"indptr must have entries in \[0, 4\); got 4"),
    ((GOOD[0], GOOD[1], [0, 1, 2, 3]), 2, r"rows must have S A rows, a multiple of S = 2; got 3"),
    ((GOOD[0], GOOD[1], [0]), 2, "rows must have S A rows"),
    ((GOOD[0], [0.0, 0.0, 1.0], GOOD[2]), 2, "indices must hold integers"),
    (([1.0, math.nan, 0.5], GOOD[1], GOOD[2]), 2, "data must be finite"),
    (GOOD, None, "S must be an integer >= 1; got None"),
    (GOOD, 0, "S must be an integer >= 1; got 0"),
    (np.eye(2), 2, "rows must be scipy.sparse matrices or tuples .*; got ndarray"),
    ([], 2, "rows must have at least one stage; got an empty list"),
    ("csr", 2, "rows must be scipy.sparse matrices or tuples .*; got str"),
    (sparse.csr_array(np.eye(2)), 3, r"rows must have shape \[S A, S\] with S = 3; got \(2, 2\)"),
    ([sparse.csr_array(np.eye(2)), sparse.csr_array(np.eye(3))], None, r"rows must have one shape at every stage, \(2, 2\)"),
]


@pytest.mark.parametrize(("rows", "n_states", "message"), BAD_CSR)
def test_from_csr_refuses(rows, n_states, message):
    assert Successors.from_csr(GOOD, S=2).shape == (1, 2, 1, 2)
    with pytest.raises(ValueError, match=f"^from_csr: {message}"):
        Successors.from_csr(rows, S=n_states)


def test_from_csr_names_a_row_that_is_no_law():
    with pytest.raises(ValueError, match=r"^Successors: prob must have rows that sum to one; got only zeros in row"):
        Successors.from_csr(([1.0], [0], [0, 1, 1]), S=2)
    with pytest.raises(ValueError, match=r"^Successors: prob must have no negative entries"):
        Successors.from_csr(([1.0, 1.5, -0.5], [0, 0, 1], [0, 1, 3]), S=2)
