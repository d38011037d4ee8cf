"""What is exact after 10^4 and 10^5 stages: the stated accuracy grows with H, and holds; against integers and 40 digits."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

import tolerances
from mdpsim import MDP, evaluate, solve_hard, solve_soft, trajectory_kl

BITS = 200  # of the fraction of a fixed-point number
RNG = np.random.default_rng(5)


def fixed(x: float) -> int:
    """A float64 as an integer multiple of 2^-BITS, exactly (for all above 2^-148)."""
    n, d = float(x).as_integer_ratio()
    return (n << BITS) // d


def exact_hard(P: np.ndarray, r: np.ndarray, H: int) -> tuple[list[int], int]:
    """(V_0, max|V|) of a stationary MDP in integers; a row means row / sum(row)."""
    S, A = r.shape
    rows = [[fixed(x) for x in row] for row in P.reshape(-1, S)]
    rows = [[(x << BITS) // sum(row) for x in row] for row in rows]
    rewards, V, largest = [fixed(x) for x in r.reshape(-1)], [0] * S, 0
    for _ in range(H):
        ahead = [sum(p * v for p, v in zip(row, V, strict=True)) >> BITS for row in rows]
        q = [x + y for x, y in zip(rewards, ahead, strict=True)]
        V = [max(q[s * A : (s + 1) * A]) for s in range(S)]
        largest = max(largest, *map(abs, V))
    return V, largest


def error(P: np.ndarray, r: np.ndarray, H: int) -> float:
    """Largest error of V_0 over max|V|."""
    found = solve_hard(MDP(P[None], r[None], np.eye(len(r))[0], horizon=H)).V[0]
    V, largest = exact_hard(P, r, H)
    return max(abs(fixed(x) - v) for x, v in zip(found, V, strict=True)) / largest


def bound(H: int) -> float:
    return max(tolerances.CONTRACT, tolerances.STAGE * H)


ONE = np.ones((1, 1, 1))
MIXED, ADDED = RNG.dirichlet(np.ones(3), (3, 2)), RNG.normal(size=(3, 2))


@pytest.mark.parametrize("H", [100, 10**4, 10**5])
@pytest.mark.parametrize("r", [0.1, 1 / 3, 0.7, -1.1])
def test_one_state_that_adds_a_reward(r: float, H: int) -> None:
    """V_0 = H r: 1.6e-13 off at 10^4 and 1.9e-12 at 10^5 for r = .1, which 1e-13 does not cover."""
    assert error(ONE, np.array([[r]]), H) <= bound(H)
    mdp, ref = MDP(ONE[None], [[[r]]], [1.0], horizon=H), np.ones((H, 1, 1))
    for V in (solve_soft(mdp, ref, 0.5).V, evaluate(mdp, ref).V):
        assert abs(fixed(V[0, 0]) - H * fixed(r)) <= bound(H) * H * abs(fixed(r))


@pytest.mark.parametrize("H", [1000, 10**4])
def test_three_states_with_signed_rewards(H: int) -> None:
    assert error(MIXED, ADDED, H) <= bound(H)


@pytest.mark.parametrize("H", [50, 1000, 10**4])
def test_rows_that_are_kept_though_their_sum_is_off(H: int) -> None:
    """0.5 and 0.5 + 4 eps sum to 1 + 4 eps: at every stage V is that much too large."""
    P = np.array([[[0.5, 0.5 + 4 * tolerances.EPS]]] * 2)
    assert (MDP(P[None], np.ones((1, 2, 1)), [0.5, 0.5]).P == P).all()
    assert error(P, np.full((2, 1), 0.1), H) <= bound(H)


@pytest.mark.parametrize("H", [100, 10**4, 10**5])
@pytest.mark.parametrize("beta", [0.01, 0.3, 100.0])
def test_one_state_with_a_reference(beta: float, H: int) -> None:
    """V_0 = H beta log sum_a ref(a) e^{r(a) / beta} in 40 digits; J of a policy, with its KL, and the KL alone."""
    r, ref, pi = np.array([0.1, 0.35]), np.array([0.3, 0.7]), np.array([0.9, 0.1])
    mdp = MDP(np.ones((1, 1, 2, 1)), r.reshape(1, 1, 2), [1.0], horizon=H)
    whole = [np.broadcast_to(x, (H, 1, 2)) for x in (ref, pi)]
    with mpmath.workdps(40):
        q, p, w = ([mpmath.mpf(float(x)) for x in y] for y in (ref, pi, r))
        q, p = ([x / sum(y) for x in y] for y in (q, p))
        soft = H * beta * mpmath.log(sum(a * mpmath.exp(c / beta) for a, c in zip(q, w, strict=True)))
        kl = H * sum(b * mpmath.log(b / a) for a, b in zip(q, p, strict=True))
        J = H * sum(b * c for b, c in zip(p, w, strict=True)) - beta * kl
    assert abs(solve_soft(mdp, whole[0], beta).V[0, 0] - soft) <= bound(H) * abs(soft)
    value = evaluate(mdp, whole[1], pi_ref=whole[0], beta=beta)
    assert abs(value.J - J) <= bound(H) * (abs(J) + beta * kl)
    for found in (value.kl, trajectory_kl(mdp, whole[1], whole[0])):
        assert abs(found - kl) <= max(tolerances.KL, tolerances.STAGE * H) * kl


def test_three_states_with_a_reference() -> None:
    """Soft values after 2000 stages in 30 digits."""
    H, beta = 2000, 0.4
    found = solve_soft(MDP(MIXED[None], ADDED[None], [1.0, 0.0, 0.0], horizon=H), np.full((H, 3, 2), 0.5), beta).V[0]
    with mpmath.workdps(30):
        P = mpmath.matrix(MIXED.reshape(6, 3).tolist())
        for i in range(6):
            P[i, :] = P[i, :] / sum(P[i, j] for j in range(3))
        V, r = mpmath.matrix(3, 1), mpmath.matrix(ADDED.reshape(-1).tolist())
        largest = mpmath.mpf(0)
        for _ in range(H):
            q = r + P * V
            weights = [mpmath.exp(x / beta) / 2 for x in q]
            V = mpmath.matrix([beta * mpmath.log(weights[2 * s] + weights[2 * s + 1]) for s in range(3)])
            largest = max(largest, *map(abs, V))
    assert max(abs(x - v) for x, v in zip(found.tolist(), V, strict=True)) <= bound(H) * largest
