"""from_matrices: one problem in every layout of pymdptoolbox and QuantEcon, their documented examples, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from mdpsim import MDP, DiscountedMDP, Successors, from_matrices, sample, solve_discounted, solve_hard, solve_soft

S, A = 5, 3
RNG = np.random.default_rng(0)
P = RNG.dirichlet(np.ones(S), (S, A)) * (RNG.random((S, A, S)) < 0.7) + 1e-3 * np.eye(S)[:, None]
P /= P.sum(-1, keepdims=True)
R = RNG.random((S, A, S))
r = (P * R).sum(-1)  # by definition
BY_ACTION, R_BY_ACTION = P.swapaxes(0, 1), R.swapaxes(0, 1)
S_OF, A_OF = (x.reshape(-1) for x in np.indices((S, A)))
MIX = RNG.permutation(S * A)


def sparse_list(x, kind=sparse.csr_matrix):
    return [kind(m) for m in x]


def objects(x):
    """One sparse matrix an action in an array of objects."""
    out = np.empty(len(x), dtype=object)
    out[:] = sparse_list(x)
    return out


def dense_objects(x):
    """One dense matrix an action in an array of objects."""
    out = np.empty(len(x), dtype=object)
    for a, matrix in enumerate(x):
        out[a] = np.array(matrix)
    return out


FORMS = {
    "array": (BY_ACTION, r, {}),
    "array, reward of transitions": (BY_ACTION, R_BY_ACTION, {}),
    "tuple of arrays": (tuple(BY_ACTION), list(R_BY_ACTION), {}),
    "csr matrices": (sparse_list(BY_ACTION), r, {}),
    "coo arrays in a tuple": (tuple(sparse_list(BY_ACTION, sparse.coo_array)), sparse_list(R_BY_ACTION), {}),
    "objects": (objects(BY_ACTION), sparse_list(R_BY_ACTION, sparse.csc_array), {}),
    "rewards in objects": (BY_ACTION, objects(R_BY_ACTION), {}),
    "dense rewards in objects": (objects(BY_ACTION), dense_objects(R_BY_ACTION), {}),
    "objects of dense matrices": (dense_objects(BY_ACTION), dense_objects(R_BY_ACTION), {}),
    "dense with sparse rewards": (BY_ACTION, sparse_list(R_BY_ACTION), {}),
    "sparse with dense rewards": (sparse_list(BY_ACTION), R_BY_ACTION, {}),
    "quantecon": (P, r, {}),
    "quantecon, said": (P.tolist(), r.tolist(), {"layout": "quantecon"}),
    "pairs": (P.reshape(-1, S), r.reshape(-1), {"s_indices": S_OF, "a_indices": A_OF}),
    "pairs in any order": (P.reshape(-1, S)[MIX], r.reshape(-1)[MIX], {"s_indices": S_OF[MIX], "a_indices": A_OF[MIX]}),
    "sparse pairs": (sparse.csr_matrix(P.reshape(-1, S)), r.reshape(-1), {"s_indices": S_OF, "a_indices": A_OF}),
}


def dense(mdp):
    return mdp.P.to_dense() if isinstance(mdp.P, Successors) else mdp.P


@pytest.mark.parametrize("name", FORMS)
def test_every_layout_is_the_same_mdp(name):
    p, rewards, options = FORMS[name]
    mdp, pi_ref = from_matrices(p, rewards, gamma=0.9, **options)
    assert isinstance(mdp, DiscountedMDP)
    assert isinstance(mdp.P, Successors) == any(hasattr(x, "tocsr") for x in (p, p[0]))
    np.testing.assert_allclose(dense(mdp).reshape(S, A, S), P, rtol=1e-15)
    np.testing.assert_allclose(mdp.r, r, rtol=1e-15)
    np.testing.assert_array_equal(pi_ref, np.full((S, A), 1 / A))
    staged, ref = from_matrices(p, rewards, horizon=4, mu0=np.full(S, 1 / S), **options)
    assert isinstance(staged, MDP)
    assert (staged.H, ref.shape) == (4, (4, S, A))
    want = solve_soft(MDP(P[None], r[None], np.full(S, 1 / S), horizon=4), ref, 0.3).V
    np.testing.assert_allclose(solve_soft(staged, ref, 0.3).V, want, rtol=1e-13)


OF_TRANSITIONS = [name for name, (_, x, _) in FORMS.items() if x is not r and "quantecon" not in name and "pairs" not in name]


@pytest.mark.parametrize("name", OF_TRANSITIONS)
def test_rewards_of_transitions_are_kept_and_drawn(name):
    """In every layout that has them: an episode is paid R[s, a, s'], and values are those of the mean."""
    p, rewards, options = FORMS[name]
    mdp, ref = from_matrices(p, rewards, horizon=4, mu0=np.full(S, 1 / S), **options)
    t = sample(mdp, ref, 2000, 0)
    np.testing.assert_array_equal(t.rewards, R[t.states[:, :-1], t.actions, t.states[:, 1:]])
    np.testing.assert_allclose(mdp.r[0], r, rtol=1e-14)


def test_sparse_rewards_may_lack_entries_hold_them_twice_and_in_any_order():
    p = sparse_list(BY_ACTION)
    twice = []
    for matrix in R_BY_ACTION:
        i, j = (x.reshape(-1)[::-1] for x in np.indices(matrix.shape))
        twice.append(sparse.coo_matrix((np.tile(matrix[i, j] / 2, 2), (np.tile(i, 2), np.tile(j, 2))), shape=matrix.shape))
    raw = sparse.csr_matrix((np.array([1.0, 2.0, 5.0]), np.array([1, 1, 0]), np.array([0, 3, 3, 3, 3, 3])), shape=(S, S))
    mdp, ref = from_matrices(p, twice, horizon=2, mu0=np.full(S, 1 / S))
    t = sample(mdp, ref, 500, 0)
    np.testing.assert_allclose(t.rewards, R[t.states[:, :-1], t.actions, t.states[:, 1:]], rtol=1e-15)
    lacking = [raw] + [sparse.csr_matrix((S, S))] * (A - 1)  # action 0: 3 from state 0 to 1, and 5 to 0; else nothing
    mdp, ref = from_matrices(p, lacking, horizon=1, mu0=np.full(S, 1 / S))
    t = sample(mdp, ref, 3000, 0)
    s, a, to = t.states[:, 0], t.actions[:, 0], t.states[:, 1]
    np.testing.assert_array_equal(t.rewards[:, 0], np.where((s == 0) & (a == 0), np.array([5.0, 3, 0, 0, 0])[to], 0.0))
    assert from_matrices(p, [sparse.csr_matrix((S, S))] * A, gamma=0.5).mdp.r.max() == 0.0


def test_rewards_of_states_are_those_of_all_actions():
    mdp, _ = from_matrices(BY_ACTION, r[:, 0], gamma=0.5)
    np.testing.assert_array_equal(mdp.r, np.repeat(r[:, :1], A, axis=1))


def test_quantecons_first_example_in_both_of_its_forms():
    """DiscreteDP's docstring: R = [[5, 10], [-1, -inf]], beta = 0.95, v = -8.57142857, -20; the policy is (0, 0)."""
    product = from_matrices([[(0.5, 0.5), (0, 1)], [(0, 1), (0.5, 0.5)]], [[5, 10], [-1, -np.inf]], gamma=0.95,
                            layout="quantecon")
    pairs = from_matrices([(0.5, 0.5), (0, 1), (0, 1)], [5, 10, -1], gamma=0.95, s_indices=[0, 0, 1], a_indices=[0, 1, 0])
    for mdp, pi_ref in (product, pairs):
        np.testing.assert_array_equal(pi_ref, [[0.5, 0.5], [1.0, 0.0]])
        found = solve_discounted(mdp, pi_ref, tol=1e-8)
        np.testing.assert_allclose(found.V, [-60 / 7, -20.0], rtol=0, atol=1e-8)
        np.testing.assert_array_equal(found.pi, [[1.0, 0.0], [1.0, 0.0]])
        np.testing.assert_allclose(solve_discounted(mdp, tol=1e-8).V, [-60 / 7, -20.0], rtol=0, atol=1e-8)
        soft = solve_discounted(mdp, pi_ref, 0.5, tol=1e-8)
        assert soft.pi[1, 1] == 0.0
        np.testing.assert_allclose(soft.V[1], -20.0, atol=1e-8)


def test_what_is_infeasible_may_hold_anything():
    """Rows of infeasible actions are not read: zeros do, as QuantEcon has them."""
    mdp, pi_ref = from_matrices([[(0.5, 0.5), (0, 1)], [(0, 1), (0, 0)]], [[5, 10], [-1, -np.inf]], gamma=0.95,
                                layout="quantecon")
    np.testing.assert_array_equal(pi_ref[1], [1.0, 0.0])
    np.testing.assert_allclose(solve_discounted(mdp).V, [-60 / 7, -20.0], rtol=0, atol=1e-8)


def test_pymdptoolboxs_forest():
    """mdptoolbox.example.forest(), dense and sparse (of two dtypes); ValueIteration's V, and FiniteHorizon(0.9, 3) by hand."""
    wait = np.array([[0.1, 0.9, 0.0], [0.1, 0.0, 0.9], [0.1, 0.0, 0.9]])
    cut = np.array([[1, 0, 0]] * 3)
    rewards = np.array([[0.0, 0.0], [0.0, 1.0], [4.0, 2.0]])
    for p in (np.array([wait, cut]), [sparse.csr_matrix(wait), sparse.csr_matrix(cut)], (wait, cut)):
        mdp, _ = from_matrices(p, rewards, gamma=0.9)
        np.testing.assert_allclose(solve_discounted(mdp, tol=1e-9).V, [26.244, 29.484, 33.484], atol=1e-9)
        two, _ = from_matrices(p, rewards, horizon=2, mu0=[1.0, 0.0, 0.0])
        np.testing.assert_allclose(solve_hard(two).V[0], [0.9, 3.6, 7.6], rtol=1e-14)  # 0.9 * 1; 0.9 * 4; 4 + 0.9 * 4


def test_a_cube_needs_its_layout():
    cube = RNG.dirichlet(np.ones(3), (3, 3))
    with pytest.raises(ValueError, match=r"^from_matrices: layout must be given, mdptoolbox or quantecon.*P of \(3, 3, 3\)"):
        from_matrices(cube, np.zeros((3, 3)), gamma=0.5)
    one = from_matrices(cube, np.zeros((3, 3)), gamma=0.5, layout="quantecon").mdp
    other = from_matrices(cube.swapaxes(0, 1), np.zeros((3, 3)), gamma=0.5, layout="mdptoolbox").mdp
    np.testing.assert_array_equal(one.P, cube)
    np.testing.assert_array_equal(other.P, cube)


BAD = {
    "both": ({"gamma": 0.9, "horizon": 3, "mu0": [0.2] * 5}, "gamma or horizon must be given, and not both"),
    "neither": ({"gamma": None}, "gamma or horizon must be given, and not both"),
    "gamma": ({"gamma": 1.0}, "gamma must be below 1"),
    "no mu0": ({"gamma": None, "horizon": 3}, "mu0 must be given with a horizon"),
    "mu0 and gamma": ({"mu0": [0.2] * 5}, "mu0 must be given with a horizon, and only there"),
    "rows": ({"P": BY_ACTION * 1.001}, r"P must have rows that sum to one within 1e-09; got sum 1.001 in row \("),
    "sparse rows": ({"P": sparse_list(BY_ACTION * 1.001)}, r"prob must have rows that sum to one within 1e-09"),
    "layout": ({"layout": "gym"}, "layout must be None or one of mdptoolbox, quantecon; got 'gym'"),
    "wrong layout": ({"layout": "quantecon"}, r"P must have shape \[S, A, S\]; got \(3, 5, 5\)"),
    "shape": ({"P": P[:, :, :4]},
              r"P must have shape \[A, S, S\] \(pymdptoolbox\) or \[S, A, S\] \(QuantEcon\); got \(5, 3, 4\)"),
    "one sparse": ({"P": sparse.csr_matrix(P[0])}, "P must be one sparse matrix an action, or come with s_indices"),
    "unequal": ({"P": [sparse.eye_array(5), sparse.eye_array(4)]},
                r"P must hold matrices \[S, S\] = \(5, 5\); got \(4, 4\) for action 1"),
    "r shape": ({"r": r.T}, r"r must have shape \[S\] = \(5,\), \[S, A\] = \(5, 3\) or \[A, S, S\]; got \(3, 5\)"),
    "r matrices": ({"r": R_BY_ACTION[:2]}, r"r must hold 3 matrices \[S, S\] = \(5, 5\), one an action; got 2 of \(5, 5\)"),
    "r inf": ({"r": np.where(np.eye(5, 3) > 0, -np.inf, 0.0)}, "r must be finite"),
    "R nan": ({"r": R_BY_ACTION * np.nan}, "r must be finite where it depends on the next state"),
    "quantecon inf": ({"P": P, "r": r + np.inf}, "r must be finite, or -inf where an action is infeasible"),
    "all infeasible": ({"P": P, "r": np.where(np.arange(5)[:, None] == 3, -np.inf, r)},
                       "r must leave every state a feasible action; got none in state 3"),
    "half the pairs": ({"P": P.reshape(-1, S), "r": r.reshape(-1), "s_indices": S_OF},
                       "s_indices and a_indices must be given together"),
    "pair twice": ({"P": P.reshape(-1, S), "r": r.reshape(-1), "s_indices": S_OF, "a_indices": A_OF * 0},
                   r"s_indices must name each pair \(s, a\) once.*\(0, 0\) twice"),
    "pair beyond": ({"P": P.reshape(-1, S), "r": r.reshape(-1), "s_indices": S_OF + 1, "a_indices": A_OF},
                    r"s_indices must have entries in \[0, 5\); got 5"),
    "state without pair": ({"P": P.reshape(-1, S)[:12], "r": r.reshape(-1)[:12], "s_indices": S_OF[:12],
                            "a_indices": A_OF[:12]},
                           "r must leave every state a feasible action; got none in state 4"),
    "pairs with a cube": ({"s_indices": S_OF, "a_indices": A_OF}, r"P must have shape \[L, S\]"),
    "text": ({"P": "forest"}, "P must hold real numbers"),
    "ragged": ({"P": [[[1.0]], [[0.5, 0.5]]]}, "P must be an array, or one matrix an action; got a ragged sequence"),
    "nothing": ({"P": []}, "P must have shape"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named(name):
    change, message = BAD[name]
    with pytest.raises(ValueError, match=rf"^\w+: {message}"):
        from_matrices(**({"P": BY_ACTION, "r": r, "gamma": 0.9} | change))
