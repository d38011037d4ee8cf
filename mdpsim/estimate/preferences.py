"""Preferences: pairs of episodes from one first state, and which of the two was preferred.

Setting: s_0 ~ mu0; given it, one episode of pi and one of pi_other, independent. With R the sum of an episode's rewards, the
Bradley-Terry model says

    P(first preferred | both) = sigma(R(first) - R(second)),   sigma(x) = 1 / (1 + e^-x).

Rewards that depend on the next state are those of the transitions that happened: the label is of what was seen, and its law
given states and actions is a mean of sigma, not sigma of the mean rewards.
For one stage and one state these are dueling bandits; for a TokenMDP two responses to one prompt.
References: Bradley and Terry (1952); Christiano et al. (2017); [xie2024] and [tiapkin2023] use this law.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.arrays import ROW_TOLERANCE, FloatArray, IntArray, as_floats, as_integers, fail, frozen, shown
from mdpsim.estimate.data import Trajectories, as_episodes, roll
from mdpsim.estimate.tables import Label, Names, Spaces, read_pairs
from mdpsim.kernels.preference import draw_labels, logistic
from mdpsim.mdp.forms import AnyMDP, form
from mdpsim.mdp.policies import as_policy, check_allowed
from mdpsim.records import record
from mdpsim.rng import as_generator

Link = Callable[[FloatArray], ArrayLike]


@record
@dataclass(frozen=True, init=False, eq=False, repr=False)
class Preferences:
    """n labelled pairs of episodes; ``Preferences.from_table`` reads them from a table with a row a step.

    Args:
        first, second: Trajectories of equal n, H, S and A; the episodes of a pair start in the same state.
        label: [n] integers, 1 where the first was preferred, 0 where the second.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """

    first: Trajectories
    second: Trajectories
    label: IntArray

    def __init__(self, first: Trajectories, second: Trajectories, label: ArrayLike) -> None:
        for name, t in (("first", first), ("second", second)):
            if not isinstance(t, Trajectories):
                fail("Preferences", name, "be Trajectories", type(t).__name__)
        sizes = tuple((t.n, t.H, t.S, t.A) for t in (first, second))
        if sizes[0] != sizes[1]:
            fail("Preferences", "second", f"have the sizes (n, H, S, A) = {sizes[0]} of first", sizes[1])
        for name in ("state_labels", "action_labels"):
            if getattr(first, name) != getattr(second, name):
                fail("Preferences", "second", f"have the {name} of first", getattr(second, name))
        apart = first.states[:, 0] != second.states[:, 0]
        if apart.any():
            i = int(apart.argmax())
            got = f"states {first.states[i, 0]} and {second.states[i, 0]} in pair {i}"
            fail("Preferences", "second", "start where first does: a preference is between episodes of one context", got)
        labels = as_integers("Preferences", "label", label, "n", (first.n,), 2)
        for name, value in (("first", first), ("second", second), ("label", labels)):
            object.__setattr__(self, name, value)

    @classmethod
    def from_table(
        cls, table: Any, *, pair: str = "pair", which: str = "which", label: str = "label", t: str = "t", state: str = "state",
        action: str = "action", reward: str | None = "reward", next_state: str | None = "next_state", S: int | None = None,
        A: int | None = None, state_labels: Sequence[Label] | None = None, action_labels: Sequence[Label] | None = None,
        terminal: str | None = None,
    ) -> Preferences:
        """Read pairs of episodes from a table with a row a step.

        Args:
            table: as in ``Trajectories.from_table``.
            pair, which: names of the columns of a pair's id, and of which episode of the pair a row is of: 0 or "first", 1 or
                "second".
            label: name of the column that holds 1 where the first of the pair was preferred, 0 where the second, in every row.
            t, state, action, reward, next_state, S, A, state_labels, action_labels, terminal: as in
                ``Trajectories.from_table``; H is the longest episode of all.
        Returns:
            Preferences: pairs in the order of their ids; labels of states and actions are those of ``first``.
        Cost: a sort of the rows, and O(n H).
        Raises:
            ValueError: as ``Trajectories.from_table``; a pair with one episode, with two labels, or from two first states.
        """
        names = Names(t, state, action, reward, next_state)
        spaces = Spaces(S, A, state_labels, action_labels, terminal)
        one, two, labels = read_pairs("Preferences.from_table", table, pair, which, label, names, spaces)
        return cls(Trajectories(**one), Trajectories(**two), labels)

    @property
    def n(self) -> int:
        """Number of pairs."""
        return self.first.n

    @property
    def H(self) -> int:
        """Number of stages."""
        return self.first.H

    @property
    def S(self) -> int:
        """Number of states."""
        return self.first.S

    @property
    def A(self) -> int:
        """Number of actions."""
        return self.first.A

    def __repr__(self) -> str:
        return f"Preferences(n={self.n}, H={self.H}, S={self.S}, A={self.A})"


def sample_preferences(
    mdp: AnyMDP, pi: ArrayLike, pi_other: ArrayLike, n: int, rng: np.random.Generator | int, *, link: Link | None = None
) -> Preferences:
    """Draw n pairs of episodes from common first states, and Bradley-Terry labels.

    Law: s_0 ~ mu0, first ~ pi and second ~ pi_other given s_0, label ~ Bernoulli(sigma(R(first) - R(second))).

    Args:
        mdp: H stages, S states, A actions.
        pi, pi_other: [H, S, A] policies of the first and of the second episode, or [S, A] for every stage.
        n: number of pairs, at least 1.
        rng: Generator (advanced by six 64-bit words, whatever n) or an integer seed.
        link: another preference model: a function p of the differences R(first) - R(second) [n] to probabilities [n], with
            p(d) + p(-d) = 1; pair by pair, or sample(n) is no prefix of sample(n + 1).
    Returns:
        Preferences: first, second, label. From the same ``rng`` state, those of n are a prefix of those of n + 1, bit for bit.
    Exactness: episodes as ``sample``; label probabilities to 2^-53. Episodes and labels have streams of their own.
    Cost: twice that of ``sample``.
    Raises:
        ValueError: naming the argument, what was wanted and what came; a link that returns anything but probabilities, or
            whose p(d) and p(-d) do not sum to one; more pairs than this machine's memory holds.
    """
    model = form("sample_preferences", mdp, forbids=True)
    one = as_policy("sample_preferences", "pi", pi, model.shape)
    two = as_policy("sample_preferences", "pi_other", pi_other, model.shape)
    for name, policy in (("pi", one), ("pi_other", two)):
        check_allowed("sample_preferences", name, policy, model.forbidden)
    n = as_episodes("sample_preferences", n, model.shape[0], sides=2)
    if link is not None and not callable(link):
        fail("sample_preferences", "link", "be a function of the differences, or None", shown(link))
    key = as_generator("sample_preferences", rng).integers(0, 2**64, size=6, dtype=np.uint64)
    first = roll(model, one, n, key[:2])
    second = roll(model, two, n, key[2:4], first.states[:, 0])
    difference = frozen(first.rewards.sum(axis=1) - second.rewards.sum(axis=1))
    label = np.empty(n, np.int64)
    draw_labels(win_probabilities("sample_preferences", difference, link), *key[4:], label)
    return Preferences(first, second, frozen(label))


def win_probabilities(where: str, difference: FloatArray, link: Link | None) -> FloatArray:
    """P(first preferred) [n] at differences [n]; None is Bradley-Terry's sigma.

    Raises:
        ValueError: a link that gives anything but probabilities, or two that do not sum to one at d and -d: one of two
            responses is preferred, whichever is called the first.
    """
    if link is None:
        p = np.empty(difference.size)
        logistic(difference, p)
        return frozen(p)
    p = as_floats(where, "link(differences)", link(difference), "n", (difference.size,))
    with np.errstate(all="ignore"):  # what overflows on the other side is no fault of the data
        q = as_floats(where, "link(-differences)", link(frozen(-difference)), "n", (difference.size,))
    low, high = min(p.min(), q.min()), max(p.max(), q.max())
    if low < 0.0 or high > 1.0:
        fail(where, "link(differences)", "lie in [0, 1]", f"{low:.6g} to {high:.6g}")
    off = np.abs(p + q - 1.0)
    if off.max() > ROW_TOLERANCE:
        i = int(off.argmax())
        got = f"{p[i]:.6g} and {q[i]:.6g} at {difference[i]:.6g} and {-difference[i]:.6g}"
        fail(where, "link(differences)", "sum to one at every d and -d", got)
    return p
