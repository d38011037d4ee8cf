"""What is seen of an MDP: trajectories, visit counts, and how to draw both.

Setting: a policy pi [H, S, A] plays n independent episodes of a finite-horizon MDP. ``sample`` returns the episodes,
``sample_counts`` only how often each (h, s, a) occurs, in the same joint law and at a cost that does not grow with n:
    N_h(s, .) ~ Mult(N_h(s), pi_h(. | s)),   N_{h+1} = sum over (s, a) of Mult(N_h(s, a), P_h(. | s, a)).
Independent Mult(n, d_h) a stage would keep the means and lose the covariances across stages: it is not what is done.

Guarantees: sample(n) is a prefix of sample(n + 1) from the same state of the generator, which advances by 128 bits
whatever n; no outcome of probability zero is ever drawn. Rows are accurate to about S 2^-53 (see kernels/rollout.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.arrays import FloatArray, IntArray, as_count, as_floats, as_integers, fail, frozen
from mdpsim.estimate.tables import Label, Names, Spaces, as_labels, read_episodes
from mdpsim.kernels import rollout
from mdpsim.mdp.forms import AnyMDP, Form, form
from mdpsim.mdp.policies import as_policy, check_allowed
from mdpsim.memory import GIB, empty, machine, zeros
from mdpsim.records import record
from mdpsim.rng import as_generator, pcg64_stream

MAX_COUNT = 10**12  # numpy's binomial rounds 1 - p: in total variation about n 2^-53 off, 1e-4 here


@record
@dataclass(frozen=True, init=False, eq=False, repr=False)
class Trajectories:
    """N episodes of H stages.

    Args:
        states: [N, H + 1] in [0, S); the last column is the state after the last action.
        actions: [N, H] in [0, A).
        rewards: [N, H] finite.
        S, A: numbers of states and actions.
        state_labels, action_labels: S and A different strings or integers, what the numbers stand for; None where nothing does.
            ``state_labels[s]`` is the label of a number, ``state_labels.index(x)`` the number of a label.
    Arrays become read-only int64, int64 and float64, copied where anybody could still write to them. A table with a row a step
    is read by ``Trajectories.from_table``.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """

    states: IntArray
    actions: IntArray
    rewards: FloatArray
    S: int
    A: int
    state_labels: tuple[Label, ...] | None
    action_labels: tuple[Label, ...] | None

    def __init__(
        self, states: ArrayLike, actions: ArrayLike, rewards: ArrayLike, *, S: int, A: int,
        state_labels: Sequence[Label] | None = None, action_labels: Sequence[Label] | None = None,
    ) -> None:
        n_states = as_count("Trajectories", "S", S)
        n_actions = as_count("Trajectories", "A", A)
        _check_lengths(actions)
        a = as_integers("Trajectories", "actions", actions, "N H", (None, None), n_actions)
        n, horizon = a.shape
        s = as_integers("Trajectories", "states", states, "N H+1", (n, horizon + 1), n_states)
        r = as_floats("Trajectories", "rewards", rewards, "N H", (n, horizon))
        names = [
            None if labels is None else as_labels("Trajectories", f"{kind}_labels", labels, size)
            for kind, labels, size in (("state", state_labels, n_states), ("action", action_labels, n_actions))
        ]
        fields = {"states": s, "actions": a, "rewards": r, "S": n_states, "A": n_actions, "state_labels": names[0],
                  "action_labels": names[1]}
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_table(
        cls, table: Any, *, episode: str = "episode", t: str = "t", state: str = "state", action: str = "action",
        reward: str | None = "reward", next_state: str | None = "next_state", S: int | None = None, A: int | None = None,
        state_labels: Sequence[Label] | None = None, action_labels: Sequence[Label] | None = None, terminal: str | None = None,
    ) -> Trajectories:
        """Read episodes from a table with a row a step.

        Args:
            table: a pandas DataFrame, a structured array or a mapping of columns; its rows in any order.
            episode, t, state, action, reward: names of its columns. Ids of episodes are integers or text; t is 0, 1, .. in each
                episode; reward None: none was seen, and 0 is kept.
            next_state: name of the column of the state that the action led to, read where the table has it (None: never). It
                must be the state of the next row. Without it the last action leads to the state that ``terminal`` adds.
            S, A: how many states and actions the table's numbers are of, the added state apart; None: one more than the
                largest that occurs.
            state_labels, action_labels: the labels in the order of their numbers. None: integers are numbers, text is labelled
                in sorted order. A second table gets the numbers of the first by ``state_labels=first.state_labels``.
            terminal: needed where lengths differ or no next_state is given: the label of a state that is added, the last
                number. An episode of fewer than H steps is in it from its end to stage H, playing action 0 for reward 0; what
                next_state says of its last step is not kept.
        Returns:
            Trajectories: episodes in the order of their ids; H is the longest; S counts the added state. The record is one of
            an MDP in which that state is absorbing and worth 0. ``fit_bc`` sees action 0 there and nothing else of the padding:
            rows of other states are what the table's own steps say. Without labels the added state is number S - 1.
        Cost: a sort of the rows, and O(n H).
        Raises:
            ValueError: naming the column, and the episode and t where it is at fault: what is missing, steps that are missing
                or there twice, numbers and text in one column, whole floats, unknown labels, contradictory next states.
        """
        names = Names(t, state, action, reward, next_state)
        spaces = Spaces(S, A, state_labels, action_labels, terminal)
        return cls(**read_episodes("Trajectories.from_table", table, episode, names, spaces))

    @property
    def n(self) -> int:
        """Number of episodes."""
        return self.actions.shape[0]

    @property
    def H(self) -> int:
        """Number of stages."""
        return self.actions.shape[1]

    def __repr__(self) -> str:
        return f"Trajectories(n={self.n}, H={self.H}, S={self.S}, A={self.A})"


def _check_lengths(actions: Any) -> None:
    """Episodes of different lengths are refused with what to do about them."""
    if isinstance(actions, list | tuple) or getattr(getattr(actions, "dtype", None), "kind", "") == "O":
        lengths = {len(row) for row in actions if isinstance(row, list | tuple | np.ndarray)}
        if len(lengths) > 1:
            fail(
                "Trajectories", "actions",
                "be of one length H in every episode (let those that end early stay in an absorbing state, reward 0, as "
                "Trajectories.from_table does)",
                f"lengths from {min(lengths)} to {max(lengths)}",
            )


@record
@dataclass(frozen=True, init=False, eq=False, repr=False)
class Counts:
    """How often n episodes took action a in state s at stage h.

    Args:
        visits: [H, S, A] integers >= 0; every stage sums to n.
        n: number of episodes, at least 1.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """

    visits: IntArray
    n: int

    def __init__(self, visits: ArrayLike, n: int) -> None:
        count = as_count("Counts", "n", n, high=MAX_COUNT)
        v = as_integers("Counts", "visits", visits, "H S A", (None, None, None), count + 1)
        totals = v.sum(axis=(1, 2))
        if (totals != count).any():
            h = int((totals != count).argmax())
            fail("Counts", "visits", f"sum to n = {count} at every stage", f"{totals[h]} at stage {h}")
        object.__setattr__(self, "visits", v)
        object.__setattr__(self, "n", count)

    @property
    def H(self) -> int:
        """Number of stages."""
        return self.visits.shape[0]

    @property
    def S(self) -> int:
        """Number of states."""
        return self.visits.shape[1]

    @property
    def A(self) -> int:
        """Number of actions."""
        return self.visits.shape[2]

    def __repr__(self) -> str:
        return f"Counts(n={self.n}, H={self.H}, S={self.S}, A={self.A})"


def sample(mdp: AnyMDP, pi: ArrayLike, n: int, rng: np.random.Generator | int) -> Trajectories:
    """Draw n independent episodes of ``pi``.

    Law: s_0 ~ mu0, a_h ~ pi_h(. | s_h), s_{h+1} ~ P_h(. | s_h, a_h), rewards r_h(s_h, a_h), or r_h(s_h, a_h, s_{h+1}) where the
    MDP's depend on the next state.

    Args:
        mdp: H stages, S states, A actions.
        pi: [H, S, A] policy, or [S, A] for every stage.
        n: number of episodes, at least 1.
        rng: Generator (advanced by two 64-bit words, whatever n) or an integer seed.
    Returns:
        Trajectories: states [n, H + 1], actions [n, H], rewards [n, H]. From the same ``rng`` state, sample(n) is a
        prefix of sample(n + 1), bit for bit.
    Exactness: inverse transform on 53-bit numbers; each conditional probability is off by at most S 2^-53. Streams of
        different episodes are hashed starts of splitmix64 (what that claims: kernels/rollout.py).
    Cost: O(n H) expected, O(S) at the first visits of each row of P; memory 8 n (3 H + 1) bytes and, for the rows
        visited, at most twice that of P. A LinearMDP draws a feature, then the state: rows of phi and mu, no P.
    Raises:
        ValueError: naming the argument, what was wanted and what came; more episodes than this machine's memory holds (where
            counts will do, ``sample_counts`` draws them for any n).
    """
    model = form("sample", mdp, forbids=True)
    policy = as_policy("sample", "pi", pi, model.shape)
    check_allowed("sample", "pi", policy, model.forbidden)
    n = as_episodes("sample", n, model.shape[0])
    key = as_generator("sample", rng).integers(0, 2**64, size=2, dtype=np.uint64)
    return roll(model, policy, n, key)


def as_episodes(function: str, n: object, horizon: int, sides: int = 1) -> int:
    """Guard a number of episodes that are to be stored, ``sides`` of them for each: they must fit this machine's memory.

    States, actions and rewards take 8 (3 H + 1) bytes an episode; labels and differences of pairs some more.
    """
    count = as_count(function, "n", n)
    needed, there = 8.0 * count * (sides * (3 * horizon + 1) + (3 if sides > 1 else 0)), machine()
    if needed > there:
        wanted = f"leave its episodes of H = {horizon} room in this machine's {there / GIB:.3g} GiB of memory"
        hint = "sample_counts draws visit counts of up to 10^12 episodes" if sides == 1 else "draw in parts"
        fail(function, "n", f"{wanted} ({hint})", f"n = {count}, {needed / GIB:.3g} GiB")
    return count


def roll(model: Form, policy: FloatArray, n: int, key: np.ndarray, starts: IntArray | None = None) -> Trajectories:
    """n episodes of the streams of a key (two uint64), from mu0 or from given first states [n]; arguments are not checked."""
    horizon, n_states, n_actions = model.shape
    states = empty((n, horizon + 1), np.int64)
    actions, rewards = empty((n, horizon), np.int64), empty((n, horizon))
    mu0 = model.mu0.reshape(1, -1)
    if starts is not None:
        states[:, 0], mu0 = starts, mu0[:0]
    work = []
    for p in model.rows:
        work += [empty(p.shape), zeros((*p.shape[:-1], rollout.guide_width(p.shape[-1])), np.int32)]
    model.roll.roll_episodes(*model.dynamics, *model.paid, policy, mu0, *key, *work, states, actions, rewards)
    return Trajectories(frozen(states), frozen(actions), frozen(rewards), S=n_states, A=n_actions)


def sample_counts(mdp: AnyMDP, pi: ArrayLike, n: int, rng: np.random.Generator | int) -> Counts:
    """Draw the visit counts of n episodes of ``pi``: the joint law of ``count(sample(mdp, pi, n, rng))``.

    Law: N_h(s, .) ~ Mult(N_h(s), pi_h(. | s)); N_{h+1} = sum over (s, a) of Mult(N_h(s, a), P_h(. | s, a)).
    They are not the counts of ``sample`` from the same rng; the rng advances by an amount that depends on the draws.

    Args:
        mdp: H stages, S states, A actions.
        pi: [H, S, A] policy, or [S, A] for every stage.
        n: number of episodes, 1 to 10^12.
        rng: Generator or an integer seed. Over PCG64 the draws are those of numpy 2.5's ``binomial`` and ``random``, and it is
            left where they would leave it; any other bit generator gives the 128-bit seed of a PCG64, two words.
    Returns:
        Counts: visits [H, S, A], n.
    Exactness: exact conditional multinomials by binomials (inversion and BTPE) on shares p / (p + q), each known to a few ulp;
        entries of probability zero get no trajectory.
    Cost: O(H S A S) whatever n; O(n H + S * rows visited) where that is less. O(H S A K) for Successors, and for a
        LinearMDP O(H (S A d + d S)): features are counted, not next states.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    model = form("sample_counts", mdp, forbids=True)
    policy = as_policy("sample_counts", "pi", pi, model.shape)
    check_allowed("sample_counts", "pi", policy, model.forbidden)
    n = as_count("sample_counts", "n", n, high=MAX_COUNT)
    visits = np.zeros((mdp.H, mdp.S, mdp.A), np.int64)
    with pcg64_stream(as_generator("sample_counts", rng)) as stream:
        model.roll.roll_counts(*model.dynamics, policy, mdp.mu0.reshape(1, -1), n, stream, visits)
    return Counts(frozen(visits), n)


def count(trajectories: Trajectories) -> Counts:
    """Visit counts of the trajectories: visits[h, s, a] = #{i: s_h = s, a_h = a in episode i}. Cost: O(n H)."""
    if not isinstance(trajectories, Trajectories):
        fail("count", "trajectories", "be Trajectories", type(trajectories).__name__)
    t = trajectories
    cell = (np.arange(t.H) * t.S + t.states[:, :-1]) * t.A + t.actions
    visits = np.bincount(cell.ravel(), minlength=t.H * t.S * t.A).reshape(t.H, t.S, t.A)
    return Counts(frozen(visits), t.n)
