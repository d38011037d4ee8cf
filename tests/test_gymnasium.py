"""Import and export of gymnasium's toy-text environments, against the environments themselves and plain value iteration."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mdpsim.estimate.data import sample
from mdpsim.mdp import families
from mdpsim.mdp.gym import from_gymnasium, to_gymnasium
from mdpsim.mdp.tabular import MDP
from mdpsim.solve.exact import evaluate, solve_hard

gymnasium = pytest.importorskip("gymnasium", reason="needs the extra [gym]")

IDS = ("FrozenLake-v1", "CliffWalking-v1", "Taxi-v4")


def plain_value(env, horizon):
    """The optimal value of every state with ``horizon`` steps left, straight from the table: nothing after termination."""
    table = env.unwrapped.P
    V = np.zeros(len(table))
    for _ in range(horizon):
        V = np.array([
            max(sum(p * (r + (0.0 if done else V[t])) for p, t, r, done in table[s][a]) for a in table[s]) for s in table
        ])
    return V


class Table(gymnasium.Env):
    """An environment of a given table."""

    def __init__(self, P, mu0=None):
        self.P = P
        if mu0 is not None:
            self.initial_state_distrib = mu0


def two_states(**changes):
    """0 goes on or stops; 1 is the end."""
    P = {0: {0: [(1.0, 0, 0.5, False)], 1: [(1.0, 1, 2.0, True)]}, 1: {0: [(1.0, 1, 9.0, True)], 1: [(1.0, 1, 9.0, True)]}}
    P[0] |= changes.get("zero", {})
    P[1] |= changes.get("one", {})
    return P


@pytest.mark.parametrize("name", IDS)
def test_values_are_those_of_the_table(name):
    with gymnasium.make(name) as env:
        mdp = from_gymnasium(env, horizon=30)
        expected = plain_value(env, 30)
        start = env.unwrapped.initial_state_distrib
    n = len(expected)
    assert n + (name == "Taxi-v4") == mdp.S  # its last states also occur alive, where the passenger waits at the destination
    lives = [s for s in range(n) if not absorbing(mdp, s)]
    assert len(lives) >= n - 5
    np.testing.assert_allclose(solve_hard(mdp).V[0][lives], expected[lives], rtol=0, atol=1e-12 * np.abs(expected).max())
    np.testing.assert_array_equal(mdp.mu0[:n], start)


def absorbing(mdp, s):
    dense = mdp.P.to_dense()[0]
    return bool((dense[s, :, s] == 1.0).all() and (mdp.r[0, s] == 0.0).all())


def test_horizon_is_the_limit_of_steps_and_ids_are_made():
    assert from_gymnasium("FrozenLake-v1").H == 100
    holes = [s for s in range(16) if absorbing(from_gymnasium("FrozenLake-v1"), s)]
    assert holes == [5, 7, 11, 12, 15]  # the map of the documentation: SFFF FHFH FFFH HFFG


def test_rewards_stop_at_the_end():
    mdp = from_gymnasium(Table(two_states(), [1.0, 0.0]), horizon=10)
    assert mdp.S == 2
    np.testing.assert_allclose(solve_hard(mdp).V[0], [9 * 0.5 + 2.0, 0.0], rtol=0, atol=1e-15 * 10)


@pytest.mark.parametrize(("zero", "mu0"), [({0: [(0.5, 0, 0.5, False), (0.5, 1, 0.5, False)]}, [1.0, 0.0]), ({}, [0.5, 0.5])])
def test_a_state_that_also_lives_gets_an_absorbing_one_beside_it(zero, mu0):
    env = Table(two_states(zero=zero), mu0)
    mdp = from_gymnasium(env, horizon=6)
    assert mdp.S == 3
    assert absorbing(mdp, 2)
    np.testing.assert_allclose(solve_hard(mdp).V[0, :2], plain_value(env, 6), rtol=0, atol=1e-13)


@pytest.mark.parametrize(("changes", "message"), [
    ({"zero": {0: [(0.4, 0, 0.0, False), (0.5, 1, 0.0, True)]}}, r"P\[0\]\[0\] must sum to one within 1e-09; got sum 0.9"),
    ({"zero": {0: [(1.0, 2, 0.0, False)]}}, r"P\[0\]\[0\] must hold probabilities and next states in \[0, 2\)"),
    ({"zero": {0: [(1.0, 0.5, 0.0, False)]}}, r"P\[0\]\[0\] must hold probabilities and next states"),
    ({"zero": {0: [(-0.5, 0, 0.0, False), (1.5, 0, 0.0, False)]}}, r"P\[0\]\[0\] must hold probabilities"),
    ({"zero": {0: [(float("nan"), 0, 0.0, False)]}}, r"P\[0\]\[0\] must hold probabilities"),
    ({"zero": {0: [(1.0, 0, float("inf"), False)]}}, r"P\[0\]\[0\] must hold finite rewards"),
    ({"zero": {0: [(1.0, 0, 0.0)]}}, r"P\[0\]\[0\] must hold \(probability, next state, reward, terminated\)"),
    ({"one": {2: [(1.0, 0, 0.0, False)]}}, r"P\[1\] must have the actions 0 .. 1"),
])
def test_what_is_wrong_with_a_table_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        from_gymnasium(Table(two_states(**changes), [1.0, 0.0]), horizon=3)


def test_environments_that_cannot_be_imported():
    with pytest.raises(ValueError, match=r"env must have a transition table P\[s\]\[a\], .* got Blackjack"):
        from_gymnasium("Blackjack-v1", horizon=3)
    with pytest.raises(ValueError, match="env must be an environment or the id of one"):
        from_gymnasium("NoSuchLake-v1", horizon=3)
    with pytest.raises(ValueError, match="env must have a transition table"):
        from_gymnasium(3, horizon=3)
    with pytest.raises(ValueError, match="horizon must be given"):
        from_gymnasium(Table(two_states(), [1.0, 0.0]))
    with pytest.raises(ValueError, match="mu0 must be given"):
        from_gymnasium(Table(two_states()), horizon=3)
    with pytest.raises(ValueError, match=r"mu0 must have shape \[S\] = \(2,\)"):
        from_gymnasium(Table(two_states()), horizon=3, mu0=[1.0])
    with pytest.raises(ValueError, match="P must have the states 0 .. 1; got no state 1"):
        from_gymnasium(Table({0: {0: [(1.0, 0, 0.0, False)]}, 2: {0: [(1.0, 0, 0.0, False)]}}), horizon=3, mu0=[1.0, 0.0])


def test_returns_of_frozen_lake_are_the_environments():
    """faults.md F1: 0 or 1, and 1 as often as the goal is reached (returns up to 7.33 came out)."""
    mdp = from_gymnasium("FrozenLake-v1")
    best = solve_hard(mdp)
    J = float(mdp.mu0 @ best.V[0])
    won = sample(mdp, best.pi, 20_000, 0).rewards.sum(axis=1)
    assert set(np.unique(won)) == {0.0, 1.0}
    assert stats.binomtest(int(won.sum()), won.size, J).pvalue > 1e-4
    assert pytest.approx(plain_value(gymnasium.make("FrozenLake-v1"), 100)[0], rel=1e-12) == J


def test_returns_that_end_early_by_enumeration():
    """0 goes on for 1/4 (chance .2), wins 2 (.5) or loses 1 (.3), both into the same state; nothing is paid after that."""
    env = Table(two_states(zero={0: [(0.2, 0, 0.25, False), (0.5, 1, 2.0, True), (0.3, 1, -1.0, True)]}), [1.0, 0.0])
    mdp, H = from_gymnasium(env, horizon=4), 4
    law = {0.25 * H: 0.2**H}
    for t in range(H):
        law |= {0.25 * t + 2.0: 0.2**t * 0.5, 0.25 * t - 1.0: 0.2**t * 0.3}
    assert sum(law.values()) == pytest.approx(1.0, rel=1e-14)
    first = np.broadcast_to([1.0, 0.0], (H, 2, 2))
    values, seen = np.unique(sample(mdp, first, 50_000, 0).rewards.sum(axis=1), return_counts=True)
    assert set(values) <= set(law)
    expected = 50_000 * np.array([law[v] for v in values])
    assert stats.chisquare(seen, expected * seen.sum() / expected.sum()).pvalue > 1e-4
    assert pytest.approx(sum(v * p for v, p in law.items()), rel=1e-13) == evaluate(mdp, first).J


@pytest.mark.parametrize("name", ["Taxi-v4", "CliffWalking-v1"])
def test_rewards_of_actions_stay_those(name):
    """Deterministic tables: a reward for each action, as before."""
    assert from_gymnasium(name, horizon=5).r_next is None


def wrapped(*wrappers):
    env = gymnasium.make("FrozenLake-v1")
    for wrapper in wrappers:
        env = wrapper(env)
    return env


class Slip(gymnasium.Wrapper):
    def step(self, action):
        return self.env.step((action + 1) % 4)


class Start(gymnasium.Wrapper):
    def reset(self, **options):
        return self.env.reset(**options)


def test_tables_that_are_not_what_step_does_are_refused():
    with pytest.raises(ValueError, match=r"env must have a table that is what step\(\) does; got Taxi-v4 with fickle_p"):
        from_gymnasium(gymnasium.make("Taxi-v4", fickle_passenger=True))
    assert from_gymnasium(gymnasium.make("Taxi-v4", is_rainy=True), horizon=3).P.shape[3] > 1  # rain is in the table
    from gymnasium import wrappers

    changed = {
        "StickyAction": lambda env: wrappers.StickyAction(env, 0.5),
        "TransformReward": lambda env: wrappers.TransformReward(env, abs),
        "NormalizeReward": wrappers.NormalizeReward, "Slip": Slip,
        "TransformAction": lambda env: wrappers.TransformAction(env, lambda a: 3 - a, env.action_space),
    }
    for name, wrapper in changed.items():
        with pytest.raises(ValueError, match=rf"env must have no wrapper that changes step\(\) \(env.unwrapped .*; got {name}"):
            from_gymnasium(wrapped(wrapper, wrappers.RecordEpisodeStatistics))
        assert from_gymnasium(wrapped(wrapper).unwrapped, horizon=7).H == 7
    fine = wrapped(wrappers.RecordEpisodeStatistics, Start, lambda env: wrappers.TransformObservation(env, str, None),
                   wrappers.TimeAwareObservation, lambda env: wrappers.TimeLimit(env, 9))
    assert from_gymnasium(fine).H == 9


STAGED = families.random_mdp(S=4, A=3, H=5, rng=0, start="uniform")
STATIONARY = families.riverswim(H=7)
SPARSE = MDP(from_gymnasium("FrozenLake-v1").P, from_gymnasium("FrozenLake-v1").r, np.eye(16)[0], horizon=9)
LAKE = from_gymnasium("FrozenLake-v1", horizon=9)
PAID = MDP(STAGED.P, np.random.default_rng(0).normal(size=STAGED.P.shape), STAGED.mu0)


@pytest.mark.parametrize("mdp", [STAGED, STATIONARY, SPARSE, LAKE, PAID])
def test_export_passes_gymnasiums_checker_and_comes_back(mdp):
    from gymnasium.utils.env_checker import check_env

    env = to_gymnasium(mdp)
    check_env(env, skip_render_check=True)
    back = from_gymnasium(env, horizon=mdp.H)
    expected = float(mdp.mu0 @ solve_hard(mdp).V[0])
    assert float(back.mu0 @ solve_hard(back).V[0]) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("mdp", [STAGED, STATIONARY, PAID])
def test_an_exported_environment_plays_the_mdp(mdp):
    """Mean return of the uniform policy within 5 standard errors of its exact value (false alarm 6e-7); 5 off is rejected."""
    env = to_gymnasium(mdp)
    env.action_space.seed(1)
    returns = []
    for episode in range(1500):
        observation, info = env.reset(seed=7 if episode == 0 else None)
        total, done, h = 0.0, False, 0
        while not done:
            assert info["stage"] == h
            assert observation // mdp.S == (h if env.staged else 0)
            before, action = env.state, env.action_space.sample()
            observation, reward, done, truncated, info = env.step(action)
            if mdp is PAID:
                assert reward == mdp.r_next[h, before, action, env.state]
            assert not truncated
            total, h = total + reward, h + 1
        assert h == mdp.H
        returns.append(total)
    J = evaluate(mdp, families.uniform_policy(mdp.H, mdp.S, mdp.A)).J
    error = np.std(returns) / np.sqrt(len(returns))
    assert abs(np.mean(returns) - J) < 5 * error
    assert abs(np.mean(returns) - (J + 10 * error)) > 5 * error
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)


def test_export_guards():
    with pytest.raises(ValueError, match="to_gymnasium: mdp must be an mdpsim.MDP"):
        to_gymnasium("FrozenLake")
    env = to_gymnasium(STATIONARY)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"step: action must be an integer in \[0, 2\); got 2"):
        env.step(2)
