"""Named instances: rows, reward range, the literature's numbers, what they are hard for, and what they refuse.

False-alarm level: ALPHA for each statistical test.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mdpsim.mdp import families
from mdpsim.mdp.families import (
    LEFT,
    RIGHT,
    bandit,
    chain,
    deep_sea,
    garnet,
    gridworld,
    hard_pair,
    linear_simplex,
    random_deterministic,
    random_deterministic_policy,
    random_mdp,
    random_policy,
    riverswim,
    uniform_policy,
)
from mdpsim.rng import generator
from mdpsim.solve.exact import evaluate, occupancy, solve_hard

ALPHA = 1e-4
SIZES = {"S": 5, "A": 3, "H": 4}
SEEDED = [
    (random_mdp, {**SIZES, "rng": 0}),
    (random_mdp, {**SIZES, "rng": 0, "concentration": 1e-3, "start": "uniform"}),
    (random_mdp, {**SIZES, "rng": 0, "concentration": 50}),
    (random_mdp, {"S": 1, "A": 1, "H": 1, "rng": 0}),
    (random_deterministic, {**SIZES, "rng": 0}),
    (garnet, {**SIZES, "rng": 0, "branching": 2}),
    (garnet, {**SIZES, "rng": 0, "branching": 5, "start": "uniform"}),
    (deep_sea, {"size": 6, "rng": 0}),
]
PLAIN = [
    (bandit, {"r": [0.1, 0.9, 0.4]}),
    (chain, {"H": 9}), (chain, {"H": 3, "S": 2, "slip": 0.0}),
    (riverswim, {"H": 20}), (riverswim, {"H": 5, "S": 2}),
    (gridworld, {"H": 10}), (gridworld, {"H": 10, "size": 2, "slip": 1.0}), (gridworld, {"H": 3, "size": 5, "slip": 0}),
    (deep_sea, {"size": 6}),
]


@pytest.mark.parametrize(("family", "arguments"), SEEDED + PLAIN)
def test_rows_rewards_and_values(family, arguments):
    mdp = family(**arguments)
    assert (mdp.P >= 0).all()
    np.testing.assert_allclose(mdp.P.sum(axis=-1), 1.0, rtol=1e-15 * mdp.S)
    assert mdp.mu0.sum() == pytest.approx(1.0, abs=1e-15)
    assert mdp.r.min() >= 0
    assert mdp.r.max() <= 1
    V = solve_hard(mdp).V
    assert V.min() >= 0
    assert V.max() <= mdp.H * (1 + 1e-14)


@pytest.mark.parametrize(("family", "arguments"), SEEDED)
def test_a_seed_gives_one_instance(family, arguments):
    one, same = family(**arguments), family(**{**arguments, "rng": generator(0)})
    other = family(**{**arguments, "rng": 1})
    np.testing.assert_array_equal(one.P, same.P)
    np.testing.assert_array_equal(one.r, same.r)
    assert one.S == 1 or (one.P != other.P).any()
    assert "rng" in arguments


@pytest.mark.parametrize("family", [random_mdp, random_deterministic, garnet])
def test_starts(family):
    extra = {"branching": 2} if family is garnet else {}
    assert family(**SIZES, **extra, rng=0).mu0.tolist() == [1, 0, 0, 0, 0]
    np.testing.assert_allclose(family(**SIZES, **extra, rng=0, start="uniform").mu0, 0.2, rtol=1e-15)


@pytest.mark.parametrize("concentration", [0.3, 1.0, 4.0])
def test_random_mdp_rows_are_dirichlet(concentration):
    """Each entry is Beta(c, (S - 1) c); one entry a row, so that the sample is independent. Rewards are uniform."""
    mdp = random_mdp(S=4, A=10, H=200, rng=3, concentration=concentration)
    x = mdp.P[..., 1].ravel()
    assert stats.kstest(x, stats.beta(concentration, 3 * concentration).cdf).pvalue > ALPHA
    assert stats.kstest(x, stats.beta(1.3 * concentration, 3.9 * concentration).cdf).pvalue < ALPHA  # control
    assert stats.kstest(mdp.r.ravel(), "uniform").pvalue > ALPHA


def test_random_deterministic_successors_are_uniform():
    mdp = random_deterministic(S=5, A=4, H=100, rng=0)
    assert set(np.unique(mdp.P)) == {0.0, 1.0}
    assert stats.chisquare(mdp.P.sum(axis=(0, 1, 2))).pvalue > ALPHA


def test_garnet_branches():
    mdp = garnet(S=30, A=10, H=7, rng=0, branching=3)
    assert mdp.P.shape == (1, 30, 10, 30)
    assert mdp.H == 7
    assert ((mdp.P > 0).sum(axis=-1) == 3).all()
    assert stats.chisquare((mdp.P > 0).sum(axis=(0, 1, 2))).pvalue > ALPHA  # conservative: without replacement
    assert stats.kstest(mdp.P.max(axis=-1).ravel(), _largest_of_three_spacings).pvalue > ALPHA


def _largest_of_three_spacings(x):
    """P(largest of three uniform spacings <= x) by inclusion and exclusion."""
    return sum(s * c * np.maximum(1 - k * x, 0) ** 2 for k, (s, c) in enumerate([(1, 1), (-1, 3), (1, 3), (-1, 1)]))


def test_riverswim_has_the_standard_numbers():
    mdp = riverswim(H=20)
    P = np.zeros((6, 2, 6))
    for s in range(6):
        P[s, LEFT, max(s - 1, 0)] = 1.0
    for s in range(1, 5):
        P[s, RIGHT, s - 1 : s + 2] = 0.05, 0.6, 0.35
    P[0, RIGHT, 0], P[0, RIGHT, 1], P[5, RIGHT, 4], P[5, RIGHT, 5] = 0.4, 0.6, 0.4, 0.6
    np.testing.assert_allclose(mdp.P[0], P, rtol=1e-15)
    r = np.zeros((6, 2))
    r[0, LEFT], r[5, RIGHT] = 5 / 1000, 1.0
    np.testing.assert_array_equal(mdp.r[0], r)
    assert mdp.mu0[0] == 1.0
    assert (solve_hard(riverswim(H=200)).pi[0, :, RIGHT] == 1).all()


def test_chain_has_the_classic_numbers():
    mdp = chain(H=100)
    assert (mdp.S, mdp.A) == (5, 2)
    np.testing.assert_allclose(mdp.P[0, 2], [[0.8, 0, 0, 0.2, 0], [0.2, 0, 0, 0.8, 0]], rtol=1e-15)
    np.testing.assert_allclose(mdp.P[0, 4, RIGHT], [0.2, 0, 0, 0, 0.8], rtol=1e-15)
    np.testing.assert_allclose(mdp.r[0, :, LEFT], [0.16] * 4 + [0.36], rtol=1e-15)
    np.testing.assert_allclose(mdp.r[0, :, RIGHT], [0.04] * 4 + [0.84], rtol=1e-15)
    assert (solve_hard(mdp).pi[0, :, RIGHT] == 1).all()  # the classic optimum, 3.677 a step out of 10
    V = solve_hard(chain(H=2000)).V
    assert V[0, 0] - V[1, 0] == pytest.approx(0.3677, abs=5e-5)


def test_gridworld_moves():
    mdp = gridworld(H=7, size=3, slip=0.2)
    P = mdp.P[0]
    np.testing.assert_allclose(P[4, 0, [1, 3, 5]], [0.8, 0.1, 0.1], rtol=1e-15)  # up from the centre
    np.testing.assert_allclose(P[4, 1, [5, 1, 7]], [0.8, 0.1, 0.1], rtol=1e-15)  # right
    np.testing.assert_allclose(P[4, 2, [7, 3, 5]], [0.8, 0.1, 0.1], rtol=1e-15)  # down
    np.testing.assert_allclose(P[4, 3, [3, 1, 7]], [0.8, 0.1, 0.1], rtol=1e-15)  # left
    np.testing.assert_allclose(P[0, 0, [0, 1]], [0.9, 0.1], rtol=1e-15)  # up in the corner: stay, or slip
    assert (P[8, :, 8] == 1).all()
    for H in (4, 5, 9):  # without slips: nothing for 2 (size - 1) = 4 steps, then 1 a stage
        assert solve_hard(gridworld(H=H, size=3, slip=0.0)).V[0, 0] == H - 4


@pytest.mark.parametrize("rng", [None, 0, 7])
@pytest.mark.parametrize("size", [2, 5, 10])
def test_deep_sea_has_one_path(size, rng):
    mdp = deep_sea(size=size, rng=rng)
    assert mdp.P.shape == (size, size, 2, size)
    best = solve_hard(mdp)
    assert best.V[0, 0] == pytest.approx(1.0, abs=1e-15)
    d = occupancy(mdp, best.pi)
    np.testing.assert_array_equal(d, np.eye(size))  # right at every stage
    uniform = uniform_policy(size, size, 2)
    treasure = occupancy(mdp, uniform)[-1, -1] / 2
    assert treasure == pytest.approx(2.0**-size, rel=1e-14)
    J = evaluate(mdp, uniform).J
    assert pytest.approx(2.0**-size + 0.005, rel=1e-12) == J  # left half of the time
    if rng is None:
        left = np.zeros((size, size, 2))
        left[..., LEFT] = 1.0
        J = evaluate(mdp, left).J
        assert pytest.approx(0.01, rel=1e-14) == J


def test_bandit():
    mdp = bandit([0.5, -3.0, 7.0])
    assert (mdp.H, mdp.S, mdp.A) == (1, 1, 3)
    assert solve_hard(mdp).V[0, 0] == 7.0


def test_policies():
    np.testing.assert_array_equal(uniform_policy(2, 3, 4), np.full((2, 3, 4), 0.25))
    for concentration in (0.1, 1.0, 30.0):
        pi = random_policy(H=50, S=20, A=3, rng=0, concentration=concentration)
        assert pi.min() > 0
        np.testing.assert_allclose(pi.sum(axis=-1), 1.0, rtol=1e-15)
        assert stats.kstest(pi[..., 0].ravel(), stats.beta(concentration, 2 * concentration).cdf).pvalue > ALPHA
    pi = random_deterministic_policy(H=50, S=20, A=3, rng=0)
    assert ((pi == 1).sum(axis=-1) == 1).all()
    assert pi.sum() == 1000
    assert stats.chisquare(pi.sum(axis=(0, 1))).pvalue > ALPHA
    for made in (pi, uniform_policy(1, 1, 1), random_policy(H=1, S=1, A=1, rng=0)):
        assert not made.flags.writeable


# ---- bad input

GOOD = {
    bandit: {"r": [0.0, 1.0]},
    random_mdp: {**SIZES, "rng": 0},
    random_deterministic: {**SIZES, "rng": 0},
    garnet: {**SIZES, "rng": 0, "branching": 2},
    chain: {"H": 3},
    riverswim: {"H": 3},
    gridworld: {"H": 3},
    deep_sea: {"size": 3},
    hard_pair: {"eps": 0.1},
    linear_simplex: {**SIZES, "d": 2, "rng": 0},
    uniform_policy: dict(SIZES),
    random_policy: {**SIZES, "rng": 0},
    random_deterministic_policy: {**SIZES, "rng": 0},
}
BAD = {
    "r": [[], [[0.0]], [np.nan], ["x"]],
    "S": [0, -1, 2.0, "3", True, None],
    "A": [0, 1.5],
    "H": [0, 2.0, None],
    "rng": [-1, 0.5, "seed"],
    "branching": [0, 6, 1.0],
    "concentration": [0.0, -1.0, np.nan, np.inf, "1", 1e-4, 1e7],
    "start": ["random", 0, None],
    "d": [0, 1.5],
    "eps": [0.0, 0.5, np.nan, None],
    "reach": [0.0, 1.1, np.nan],
    "overlap": [0.0, 1e7, np.nan],
    "slip": [-0.1, 1.1, np.nan, None],
    "size": [1, 0, 2.0, None],
}
OPTIONAL = {
    random_mdp: ["concentration", "start"], random_deterministic: ["start"], garnet: ["start"], chain: ["S", "slip"],
    riverswim: ["S"], gridworld: ["size", "slip"], deep_sea: ["rng"], random_policy: ["concentration"],
    hard_pair: ["reach", "H"], linear_simplex: ["overlap", "start"],
}
CASES = [
    (family, name, value)
    for family, good in GOOD.items()
    for name in [*good, *[extra for extra in OPTIONAL.get(family, []) if extra not in good]]
    for value in BAD[name]
]


@pytest.mark.parametrize(("family", "name", "value"), CASES)
def test_refuses(family, name, value):
    family(**GOOD[family])
    with pytest.raises(ValueError, match=f"^{family.__name__}: {name} must "):
        family(**{**GOOD[family], name: value})


def test_every_argument_of_every_family_is_walked():
    public = {f for n, f in vars(families).items() if callable(f) and getattr(f, "__module__", "") == families.__name__}
    public = {f for f in public if not f.__name__.startswith("_")}
    assert public == GOOD.keys()
    for family in public:
        names = family.__code__.co_varnames[: family.__code__.co_argcount + family.__code__.co_kwonlyargcount]
        assert set(names) == {*GOOD[family], *OPTIONAL.get(family, [])}


def paths(mdp, pi):
    """{(states, actions): probability} of all episodes, by enumeration."""
    found = {((int(s),), ()): float(mdp.mu0[s]) for s in np.flatnonzero(mdp.mu0)}
    for h in range(mdp.H):
        found = {
            ((*s, t), (*a, b)): p * pi[h, s[-1], b] * mdp.P[0, s[-1], b, t]
            for (s, a), p in found.items() for b in range(mdp.A) for t in range(mdp.S) if mdp.P[0, s[-1], b, t]
        }
    return found


@pytest.mark.parametrize(("eps", "reach", "H"), [(0.1, 1.0, 3), (0.3, 0.2, 4), (0.01, 0.5, 5)])
def test_a_hard_pair_differs_by_what_it_says(eps, reach, H):
    """The KL of the laws of an episode, by enumeration, is the docstring's; and so is what the wrong action loses."""
    first, second = families.hard_pair(eps=eps, reach=reach, H=H)
    pi = families.random_policy(H=H, S=4, A=2, rng=0)
    one, two = paths(first, pi), paths(second, pi)
    kl = sum(p * np.log(p / two[path]) for path, p in one.items())
    q = pi[1, 1, 1]
    assert kl == pytest.approx(reach * q * 2 * eps * np.log((1 + 2 * eps) / (1 - 2 * eps)), rel=1e-10)
    for mdp, best in ((first, 1), (second, 0)):
        V = {a: solve(mdp, a) for a in (0, 1)}
        assert V[best] - V[1 - best] == pytest.approx(eps * reach * (H - 2), rel=1e-12)
        assert V[best] == pytest.approx(solve_hard(mdp).V[0, 0], rel=1e-14)


def solve(mdp, action):
    """Value of the policy that plays one action everywhere, from the start."""
    return evaluate(mdp, np.broadcast_to(np.eye(2)[action], (mdp.H, 4, 2))).J


@pytest.mark.parametrize("overlap", [0.05, 1.0, 50.0])
def test_a_linear_simplex_is_what_its_parameters_say(overlap):
    mdp = families.linear_simplex(S=30, A=4, d=3, H=2, rng=0, overlap=overlap)
    assert (mdp.S, mdp.A, mdp.phi.shape[2], mdp.H) == (30, 4, 3, 2)
    assert mdp.mu0[0] == 1.0
    # E phi_j^2 of Dirichlet(overlap, .., overlap) is (overlap + 1) / (d (d overlap + 1)); 120 rows, 5 standard errors
    squares = (mdp.phi**2).sum(axis=-1)
    expected = (overlap + 1) / (3 * overlap + 1)
    assert abs(squares.mean() - expected) < 5 * squares.std() / np.sqrt(120)
    assert abs(squares.mean() - expected * 1.5) > 5 * squares.std() / np.sqrt(120)
    P = mdp.to_tabular().P
    np.testing.assert_allclose(P, np.einsum("sad,hdt->hsat", mdp.phi, mdp.mu), rtol=0, atol=1e-14)
