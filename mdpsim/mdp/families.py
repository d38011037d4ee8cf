"""Named instances and simple policies: the instance axis of every claim.

All rewards lie in [0, 1] (except a bandit's, which are the caller's), so that every value lies in [0, H]. All arguments
are keyword-only but where the order is plain; ``rng`` is a numpy Generator or an integer seed, and the same seed gives
the same instance. Construction is vectorised: its cost is that of filling P.

========================  ============================================================================================
bandit                    one state, one stage: closed forms, and nothing to explore but the arms
random_mdp                Dirichlet rows, dense and staged: the generic case, hard for nothing in particular
random_deterministic      one successor each: all randomness is the policy's; few states are reached
garnet                    stationary and sparse: states at very different distances from the start
chain                     a reward at hand against a ten times better one behind H steps and slips
riverswim                 the same with a current: wandering reaches the far bank only after exponentially many steps
gridworld                 sparse reward, geometry, many optimal actions (ties)
deep_sea                  exactly one path pays: a uniform policy finds it with probability 2^-size
hard_pair                 two MDPs that differ in one rarely visited row: telling them apart takes 1 / (reach KL) episodes
linear_simplex            features that overlap: what is learnt at one (s, a) says something of all others
========================  ============================================================================================

Families of token MDPs stand in ``mdpsim.mdp.token_families``: token_tree, combination_lock, text_tree.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.arrays import FloatArray, as_count, as_floats, as_real, fail, frozen
from mdpsim.mdp.linear import LinearMDP
from mdpsim.mdp.tabular import MDP
from mdpsim.rng import as_generator

MAX_ENTRIES = 2**31  # numbers of a table [H, S, A]: 16 GiB

Rng = np.random.Generator | int

LEFT, RIGHT = 0, 1


def _start(function: str, start: str, S: int) -> FloatArray:
    """Law of the first state: state 0, or uniform."""
    if not isinstance(start, str):
        fail(function, "start", "be 'fixed' (state 0) or 'uniform'", repr(start))
    if start == "fixed":
        mu0 = np.zeros(S)
        mu0[0] = 1.0
        return mu0
    if start == "uniform":
        return np.full(S, 1.0 / S)
    fail(function, "start", "be 'fixed' (state 0) or 'uniform'", repr(start))


def _sizes(function: str, **sizes: int) -> tuple[int, ...]:
    """Guard several sizes, each an integer >= 1."""
    guarded = tuple(as_count(function, name, n) for name, n in sizes.items())
    if (least := math.prod(guarded)) > MAX_ENTRIES:  # what is made holds a number for each of them at least
        fail(function, ", ".join(sizes), f"give at most {MAX_ENTRIES} numbers, H S A", least)
    return guarded


def _dirichlet(
    function: str, rng: np.random.Generator, concentration: float, shape: tuple[int, ...], least: float
) -> FloatArray:
    """Rows ~ Dirichlet(concentration, .., concentration) along the last axis, read-only."""
    alpha = as_real(function, "concentration", concentration, least, 1e6)
    if alpha == 1.0:  # uniform on the simplex: normalised exponentials, several times faster
        rows = rng.standard_exponential(shape)
        rows /= rows.sum(axis=-1, keepdims=True)
        return frozen(rows)
    return frozen(rng.dirichlet(np.full(shape[-1], alpha), size=shape[:-1]))


def bandit(r: ArrayLike) -> MDP:
    """One state, one stage, one arm an entry of ``r``: MDP(H=1, S=1, A=len(r)).

    Hard for: nothing; the soft optimum is pi_ref exp(r / beta) / Z, so every constant can be seen by hand.

    Args:
        r: [A] rewards, any finite real numbers.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    rewards = as_floats("bandit", "r", r, "A", (None,))
    return MDP(np.ones((1, 1, rewards.size, 1)), rewards.reshape(1, 1, -1), np.ones(1))


def random_mdp(
    *, S: int, A: int, H: int, rng: Rng, concentration: float = 1.0, start: str = "fixed"
) -> MDP:
    """Rows P[h, s, a] ~ Dirichlet(concentration, ..), rewards uniform on [0, 1], all independent and stage dependent.

    Hard for: nothing in particular (the generic case). A small concentration makes rows nearly deterministic and some
    states rare; a large one makes every action lead everywhere, so that only rewards matter.

    Args:
        S, A, H: sizes, at least 1.
        rng: Generator or seed.
        concentration: of the Dirichlet law, in [1e-3, 1e6]; 1 is uniform on the simplex.
        start: "fixed" (state 0; stage 0 then reaches one state only) or "uniform".
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    S, A, H = _sizes("random_mdp", S=S, A=A, H=H)
    mu0 = _start("random_mdp", start, S)
    generator = as_generator("random_mdp", rng)
    P = _dirichlet("random_mdp", generator, concentration, (H, S, A, S), 1e-3)
    return MDP(P, frozen(generator.random((H, S, A))), mu0)


def random_deterministic(*, S: int, A: int, H: int, rng: Rng, start: str = "fixed") -> MDP:
    """Each (h, s, a) leads to one state, uniform and independent; rewards uniform on [0, 1].

    Hard for: statements that need transition noise or full support. Trajectories are functions of the actions (token
    MDPs are of this kind), many states have occupancy exactly zero, and trajectory KL is action KL.

    Args:
        S, A, H: sizes, at least 1.
        rng: Generator or seed.
        start: "fixed" (state 0) or "uniform".
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    S, A, H = _sizes("random_deterministic", S=S, A=A, H=H)
    mu0 = _start("random_deterministic", start, S)
    generator = as_generator("random_deterministic", rng)
    P = np.zeros((H, S, A, S))
    np.put_along_axis(P, generator.integers(S, size=(H, S, A, 1)), 1.0, axis=-1)
    return MDP(frozen(P), frozen(generator.random((H, S, A))), mu0)


def garnet(*, S: int, A: int, H: int, rng: Rng, branching: int, start: str = "fixed") -> MDP:
    """Stationary Garnet: each (s, a) has ``branching`` distinct successors with uniform spacings as probabilities.

    Hard for: methods that assume full support. Sparse rows put states at different distances from the start, and some
    states may never be reached. Rewards are uniform on [0, 1], one for each (s, a).
    Reference: Archibald, McKinnon, Thomas, "On the generation of Markov decision processes", JORS 1995.

    Args:
        S, A, H: sizes, at least 1.
        rng: Generator or seed.
        branching: successors of each (s, a), 1 to S.
        start: "fixed" (state 0) or "uniform".
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    S, A, H = _sizes("garnet", S=S, A=A, H=H)
    width = as_count("garnet", "branching", branching, high=S)
    mu0 = _start("garnet", start, S)
    generator = as_generator("garnet", rng)
    next_state = generator.random((1, S, A, S)).argpartition(width - 1, axis=-1)[..., :width]
    P = np.zeros((1, S, A, S))
    np.put_along_axis(P, next_state, _dirichlet("garnet", generator, 1.0, (1, S, A, width), 1.0), axis=-1)
    return MDP(frozen(P), frozen(generator.random((1, S, A))), mu0, horizon=H)


def chain(*, H: int, S: int = 5, slip: float = 0.2) -> MDP:
    """The chain of Dearden, Friedman and Russell (1998), rewards divided by 10: stationary, two actions, start 0.

    RIGHT moves one state on (in the last state: stays and earns 1); LEFT returns to state 0 and earns 0.2. With
    probability ``slip`` the other action's effect and reward happen; r holds the expected reward.

    Hard for: greedy learners. The reward at hand is 0.2 a step; the better one needs S - 1 steps to the right, and each
    slip starts them again.

    Args:
        H: stages. S: states, from 2 to 2^15 (P is dense; the classic has 5). slip: in [0, 1] (the classic has 0.2).
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    H = as_count("chain", "H", H)
    S = as_count("chain", "S", S, low=2, high=2**15)
    slip = as_real("chain", "slip", slip, 0.0, 1.0)
    states = np.arange(S)
    P, r = np.zeros((1, S, 2, S)), np.zeros((1, S, 2))
    for action, right in ((LEFT, slip), (RIGHT, 1.0 - slip)):
        P[0, states, action, 0] += 1.0 - right
        P[0, states, action, np.minimum(states + 1, S - 1)] += right
        r[0, :, action] = 0.2 * (1.0 - right) + right * (states == S - 1)
    return MDP(frozen(P), frozen(r), _start("chain", "fixed", S), horizon=H)


def riverswim(*, H: int, S: int = 6) -> MDP:
    """RiverSwim with the numbers of Osband, Russo and Van Roy (2013): stationary, two actions, start on the left bank.

    LEFT moves one state left, surely. RIGHT: on the left bank 0.6 forward and 0.4 stay; inside 0.35 forward, 0.6 stay,
    0.05 back; on the right bank 0.6 stay and 0.4 back. Rewards: 0.005 for LEFT on the left bank, 1 for RIGHT on the
    right one.

    Hard for: exploration by noise. The optimal policy swims right against the current; a policy that mixes the actions
    reaches the right bank with probability exponentially small in S. (Strehl and Littman 2008, who introduced it,
    used 0.3 / 0.6 / 0.1 inside and 0.3 forward at the left bank.)

    Args:
        H: stages. S: states, at least 2 (the classic has 6).
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    H = as_count("riverswim", "H", H)
    S = as_count("riverswim", "S", S, low=2, high=2**15)
    states = np.arange(S)
    back, forward = np.maximum(states - 1, 0), np.minimum(states + 1, S - 1)
    P, r = np.zeros((1, S, 2, S)), np.zeros((1, S, 2))
    P[0, states, LEFT, back] = 1.0
    P[0, states, RIGHT, back] = 0.05
    P[0, states, RIGHT, forward] = 0.35
    P[0, states, RIGHT, states] = 0.6
    P[0, 0, RIGHT, :2] = 0.4, 0.6
    P[0, S - 1, RIGHT, S - 2 :] = 0.4, 0.6
    r[0, 0, LEFT], r[0, S - 1, RIGHT] = 0.005, 1.0
    return MDP(frozen(P), frozen(r), _start("riverswim", "fixed", S), horizon=H)


def gridworld(*, H: int, size: int = 4, slip: float = 0.2) -> MDP:
    """size x size grid, stationary; actions up, right, down, left; start in the top left corner, goal bottom right.

    A move goes where it should with probability 1 - slip, and to each side of that with probability slip / 2; off the
    grid means staying. The goal absorbs, and every stage begun there earns 1. State = size * row + column.

    Hard for: tie breaking and sparse reward. Right and down are equally good on the diagonal, nothing is earned for
    2 (size - 1) steps, and H no larger than that gives value 0 to every policy without slips.

    Args:
        H: stages. size: of the side, from 2 to 150 (P is dense). slip: in [0, 1].
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    H = as_count("gridworld", "H", H)
    size = as_count("gridworld", "size", size, low=2, high=150)
    slip = as_real("gridworld", "slip", slip, 0.0, 1.0)
    S = size * size
    row, column = np.divmod(np.arange(S), size)
    moves = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])
    to = np.clip(row + moves[:, :1], 0, size - 1) * size + np.clip(column + moves[:, 1:], 0, size - 1)  # [4, S]
    P, r = np.zeros((1, S, 4, S)), np.zeros((1, S, 4))
    for action in range(4):
        for turn, probability in ((0, 1.0 - slip), (1, slip / 2), (3, slip / 2)):
            P[0, np.arange(S), action, to[(action + turn) % 4]] += probability
    P[0, S - 1] = np.arange(S) == S - 1
    r[0, S - 1] = 1.0
    return MDP(frozen(P), frozen(r), _start("gridworld", "fixed", S), horizon=H)


def deep_sea(*, size: int, rng: Rng | None = None) -> MDP:
    """Deep sea (Osband et al., bsuite): H = S = size; the state is the column, the stage is the row; start in column 0.

    One action dives right, the other left (staying at the wall). Going right in the last column at the last stage earns
    1: that needs right at every stage. bsuite charges 0.01 / size for each move right; here each move left earns that
    instead, which adds 0.01 to every return, so rewards lie in [0, 1]: the treasure gives V* = 1, always left 0.01.

    Hard for: exploration without planning. One of 2^size action sequences pays; the rewards on the way discourage it.

    Args:
        size: from 2 to 1024 (P is dense).
        rng: Generator or seed that draws which action is right in each (stage, column); None: action 1 everywhere.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    size = as_count("deep_sea", "size", size, low=2, high=1024)
    shape = (size, size)
    right = np.ones(shape, np.int64) if rng is None else as_generator("deep_sea", rng).integers(2, size=shape)
    stage, column = np.indices(shape)
    P, r = np.zeros((size, size, 2, size)), np.zeros((size, size, 2))
    P[stage, column, right, np.minimum(column + 1, size - 1)] = 1.0
    P[stage, column, 1 - right, np.maximum(column - 1, 0)] = 1.0
    r[stage, column, 1 - right] = 0.01 / size
    r[-1, -1, right[-1, -1]] = 1.0
    return MDP(frozen(P), frozen(r), _start("deep_sea", "fixed", size))


def hard_pair(*, eps: float, reach: float = 1.0, H: int = 3) -> tuple[MDP, MDP]:
    """Two MDPs that differ in one row: the two-point instance of lower bounds.

    States: 0 start, 1 the fork, 2 good (absorbing, earns 1 a stage), 3 bad (absorbing, earns 0). From the start, whatever the
    action, the fork is reached with probability ``reach``, else the bad state. At the fork action 0 leads to good or bad with
    probability 1/2 each; action 1 leads to good with probability 1/2 + eps in the first MDP and 1/2 - eps in the second. So the
    best action at the fork is 1 in the first and 0 in the second, and the wrong one loses eps reach (H - 2) in value.

    Hard for: everyone. An episode of a policy that plays action 1 at the fork with probability q tells the two apart by
        KL = reach q kl(1/2 + eps || 1/2 - eps),   kl(x || y) = x log(x / y) + (1 - x) log((1 - x) / (1 - y)),
    which is 2 eps log((1 + 2 eps) / (1 - 2 eps)) reach q, about 8 eps^2 reach q: no test of n episodes errs with probability
    below exp(-n KL) / 4 on both (Bretagnolle and Huber 1979).

    Args:
        eps: in (0, 1/2). reach: in (0, 1]. H: stages, at least 3.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    H = as_count("hard_pair", "H", H, low=3)
    eps = as_real("hard_pair", "eps", eps, 1e-12, 0.5 - 1e-12)
    reach = as_real("hard_pair", "reach", reach, 1e-300, 1.0)
    P, r = np.zeros((1, 4, 2, 4)), np.zeros((1, 4, 2))
    P[0, 0, :, 1], P[0, 0, :, 3] = reach, 1.0 - reach
    P[0, 1, 0, 2:] = 0.5
    P[0, [2, 3], :, [2, 3]] = 1.0
    r[0, 2] = 1.0
    pair = []
    for sign in (1.0, -1.0):
        P[0, 1, 1, 2:] = 0.5 + sign * eps, 0.5 - sign * eps
        pair.append(MDP(P, r, _start("hard_pair", "fixed", 4), horizon=H))
    return pair[0], pair[1]


def linear_simplex(
    *, S: int, A: int, d: int, H: int, rng: Rng, overlap: float = 1.0, start: str = "fixed"
) -> LinearMDP:
    """A linear MDP on the simplex: rows of phi ~ Dirichlet(overlap), of mu ~ Dirichlet(1), theta uniform on [0, 1].

    Hard for: tabular methods, which learn each of the S A rows for itself where d numbers decide; and for linear methods with a
    small overlap, where features are nearly one-hot and only the rows that share one inform each other. A large overlap makes
    all features alike: the Gram matrix is then nearly singular.

    Args:
        S, A, d, H: sizes, at least 1.
        rng: Generator or seed.
        overlap: concentration of the features, in [1e-3, 1e6]; 1 is uniform on the simplex.
        start: "fixed" (state 0) or "uniform".
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    S, A, d, H = _sizes("linear_simplex", S=S, A=A, d=d, H=H)
    mu0 = _start("linear_simplex", start, S)
    generator = as_generator("linear_simplex", rng)
    alpha = as_real("linear_simplex", "overlap", overlap, 1e-3, 1e6)
    phi = _dirichlet("linear_simplex", generator, alpha, (S, A, d), 1e-3)
    mu = _dirichlet("linear_simplex", generator, 1.0, (H, d, S), 1.0)
    return LinearMDP(phi, mu, frozen(generator.random((H, d))), mu0)


def uniform_policy(H: int, S: int, A: int) -> FloatArray:
    """The policy [H, S, A] that plays every action with probability 1 / A."""
    return frozen(np.full(_sizes("uniform_policy", H=H, S=S, A=A), 1.0 / A))


def random_policy(*, H: int, S: int, A: int, rng: Rng, concentration: float = 1.0) -> FloatArray:
    """An interior policy [H, S, A]: rows ~ Dirichlet(concentration, ..), every entry positive.

    Args:
        concentration: in [0.1, 1e6] (below that rows lie on the boundary to within float64).
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    shape = _sizes("random_policy", H=H, S=S, A=A)
    return _dirichlet("random_policy", as_generator("random_policy", rng), concentration, shape, 0.1)


def random_deterministic_policy(*, H: int, S: int, A: int, rng: Rng) -> FloatArray:
    """A policy [H, S, A] that plays one action, uniform and independent, in each (h, s).

    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    H, S, A = _sizes("random_deterministic_policy", H=H, S=S, A=A)
    pi = np.zeros((H, S, A))
    chosen = as_generator("random_deterministic_policy", rng).integers(A, size=(H, S, 1))
    np.put_along_axis(pi, chosen, 1.0, axis=-1)
    return frozen(pi)
