"""Gymnasium's environments with a transition table as MDPs, and MDPs as gymnasium environments.

The toy-text environments (FrozenLake, Taxi, CliffWalking) publish P[s][a] = [(probability, next state, reward, ended), ..].
Published tables have been wrong, and "terminated" belongs to a transition, not to a state: every row is checked, and a state
that ends episodes becomes absorbing only where that is what the table means (see :func:`from_gymnasium`). A reward belongs to
its transition: values read the mean r(s, a), episodes are paid what the environment pays. A table can also not be what ``step``
does: a wrapper that changes actions or rewards, a passenger who changes the destination; such environments are refused.
Reference: Towers et al., "Gymnasium: a standard interface for reinforcement learning environments", 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.arrays import FloatArray, as_count, as_simplex, fail, frozen
from mdpsim.mdp.forms import form
from mdpsim.mdp.successors import Successors
from mdpsim.mdp.tabular import MDP

if TYPE_CHECKING:
    import gymnasium

SKIPPED = 1e-300  # a transition of smaller probability never happens
BESIDE = ("fickle_passenger",)  # what toy-text environments do in step and not in the table, where the attribute is true
HARMLESS = (  # gymnasium's own wrappers whose step does what the environment's does, observations aside
    "Wrapper", "ObservationWrapper", "PassiveEnvChecker", "OrderEnforcing", "TimeLimit", "Autoreset", "RecordEpisodeStatistics",
    "RecordVideo", "HumanRendering", "RenderCollection", "TimeAwareObservation", "FrameStackObservation", "ArrayConversion",
)


class _Entries(NamedTuple):
    """A transition table as flat arrays, one entry a transition of positive probability."""

    row: np.ndarray  # s A + a
    probability: FloatArray
    next_state: np.ndarray
    reward: FloatArray
    ends: np.ndarray


def from_gymnasium(env: gymnasium.Env | str, *, horizon: int | None = None, mu0: ArrayLike | None = None) -> MDP:
    """The MDP of an environment that has a transition table, with sparse stationary dynamics.

    A transition that terminates is paid and leads to an absorbing state without reward. Where every state reached by such
    transitions is reached by no other and starts no episode, that state itself becomes absorbing, whatever its own rows say,
    and S is the environment's number of states; else (such a state also occurs alive, as in Taxi) one absorbing state is added.

    Args:
        env: an environment, or the id of one ("FrozenLake-v1"). Wrappers that leave the dynamics alone are seen through: those
            that gymnasium.make adds, of observations, of rendering.
        horizon: stages H; None takes the environment's own limit of steps.
        mu0: law of the first state over the environment's states; None takes ``initial_state_distrib``.
    Returns:
        MDP of Successors [1, S, A, K], with rewards of transitions where they are not the same in a row. Episodes run on to
        H in the absorbing state, at reward 0.
    Exactness: rows that do not sum to one within 1e-9 are an error, the others are renormalised; entries of one row
        that lead to the same state for the same reward are added.
    Cost: O(entries) in Python: about a second for a million.
    Raises:
        ValueError: no transition table, a table that is not what ``step`` does, a table with missing states, wrong entries or
            rows (what and where is named), no limit of steps and no horizon, no law of the first state.
    """
    env = _made(env)
    table = _table(env)
    _check_step(env)
    n_states, n_actions = len(table), len(table[0])
    spec = getattr(env, "spec", None)
    steps = getattr(spec, "max_episode_steps", None) if horizon is None else horizon
    if steps is None:
        fail("from_gymnasium", "horizon", "be given: the environment has no limit of steps", "None")
    H = as_count("from_gymnasium", "horizon", steps)
    start = _start(env, mu0, n_states)
    x = _entries(table, n_states, n_actions)
    ending = np.zeros(n_states, bool)
    ending[x.next_state[x.ends]] = True
    # Rows of an ending state do not count as "reached otherwise": FrozenLake's holes and CliffWalking's goal have such rows.
    alive = ~x.ends & ~ending[x.row // n_actions]
    if ending[x.next_state[alive]].any() or ending[start > 0.0].any():
        x = x._replace(next_state=np.where(x.ends, n_states, x.next_state))
        ending, start = np.append(np.zeros(n_states, bool), True), np.append(start, 0.0)
    return _absorbing(x, ending, n_actions, start, H)


def _made(env: Any) -> Any:
    """The environment, made where an id was given."""
    if not isinstance(env, str):
        return env
    import gymnasium  # an extra: only where it is asked for

    try:
        return gymnasium.make(env)
    except gymnasium.error.Error as error:
        fail("from_gymnasium", "env", "be an environment or the id of one", f"{env!r} ({error})")


def _table(env: Any) -> Mapping[int, Mapping[int, Any]]:
    """The environment's transition table, if its keys are 0 .. S-1 and 0 .. A-1."""
    table = getattr(getattr(env, "unwrapped", env), "P", None)
    if not isinstance(table, Mapping) or not table:
        fail("from_gymnasium", "env", "have a transition table P[s][a], as toy-text environments have", _name(env))
    if set(table) != set(range(len(table))):
        fail("from_gymnasium", "P", f"have the states 0 .. {len(table) - 1}", _first_odd(table, len(table)))
    n_actions = len(table[0])
    for s, actions in table.items():
        if not n_actions or set(actions) != set(range(n_actions)):
            fail("from_gymnasium", f"P[{s}]", f"have the actions 0 .. {n_actions - 1}", sorted(actions))
    return table


def _check_step(env: Any) -> None:
    """Refuse an environment whose step does not do what its table says, as far as it can be told."""
    plain = getattr(env, "unwrapped", env)
    for name in BESIDE:
        if getattr(plain, name, False):
            got = f"{_name(env)} with {name}, which its table lacks"
            fail("from_gymnasium", "env", "have a table that is what step() does", got)
    while env is not plain:
        owner = next(c for c in type(env).__mro__ if "step" in vars(c))  # whose step it is: a wrapper need not have its own
        if owner.__module__.partition(".")[0] != "gymnasium" or owner.__name__ not in HARMLESS:
            wanted = "have no wrapper that changes step() (env.unwrapped with a horizon is the table without it)"
            fail("from_gymnasium", "env", wanted, type(env).__name__)
        env = env.env


def _name(env: Any) -> str:
    spec = getattr(env, "spec", None)
    return getattr(spec, "id", None) or type(getattr(env, "unwrapped", env)).__name__


def _first_odd(table: Mapping[Any, Any], n: int) -> str:
    return next(f"no state {s}" for s in range(n) if s not in table)


def _start(env: Any, mu0: ArrayLike | None, n_states: int) -> FloatArray:
    """The law of the first state."""
    given = getattr(getattr(env, "unwrapped", env), "initial_state_distrib", None) if mu0 is None else mu0
    if given is None:
        fail("from_gymnasium", "mu0", "be given: the environment has no initial_state_distrib", "None")
    return as_simplex("from_gymnasium", "mu0", given, "S", (n_states,))


def _entries(table: Mapping[int, Mapping[int, Any]], n_states: int, n_actions: int) -> _Entries:
    """The table as arrays, each entry checked."""
    row: list[int] = []
    entry: list[tuple[float, int, float, bool]] = []
    for s in range(n_states):
        for a in range(n_actions):
            total = 0.0
            for item in table[s][a]:
                where = f"P[{s}][{a}]"
                try:
                    p, to, reward, ends = item
                    found = (float(p), int(to), float(reward), bool(ends))
                except (TypeError, ValueError, OverflowError):
                    fail("from_gymnasium", where, "hold (probability, next state, reward, terminated)", repr(item))
                if not (0.0 <= found[0] <= 1.0 + 1e-9) or found[1] != to or not 0 <= found[1] < n_states:
                    fail("from_gymnasium", where, f"hold probabilities and next states in [0, {n_states})", repr(item))
                if not np.isfinite(found[2]):
                    fail("from_gymnasium", where, "hold finite rewards", repr(item))
                total += found[0]
                if found[0] > SKIPPED:
                    row.append(s * n_actions + a)
                    entry.append(found)
            if abs(total - 1.0) > 1e-9:
                fail("from_gymnasium", f"P[{s}][{a}]", "sum to one within 1e-09", f"sum {total:.12g}")
    p, to, reward, ends = zip(*entry, strict=True)
    return _Entries(np.array(row), np.array(p), np.array(to), np.array(reward), np.array(ends))


def _absorbing(x: _Entries, ending: np.ndarray, n_actions: int, start: FloatArray, H: int) -> MDP:
    """The MDP of the entries, with every ending state absorbing at reward 0."""
    n_states = ending.size
    n_rows = n_states * n_actions
    keep = ~ending[x.row // n_actions]
    row, p = x.row[keep], x.probability[keep]
    transition = np.column_stack([row, x.next_state[keep], x.reward[keep]])  # ids are exact as floats
    cell, inverse = np.unique(transition, axis=0, return_inverse=True)  # one entry a (row, next state, reward)
    stay = np.flatnonzero(np.repeat(ending, n_actions))
    cell = np.concatenate([cell, np.column_stack([stay, stay // n_actions, np.zeros(stay.size)])])
    order = np.argsort(cell[:, 0], kind="stable")
    cell = cell[order]
    rows, indices = cell[:, 0].astype(np.int64), cell[:, 1].astype(np.int64)
    data = np.concatenate([np.bincount(inverse.reshape(-1), p), np.ones(stay.size)])[order]
    lengths = np.bincount(rows, minlength=n_rows)
    width = int(lengths.max())
    used = np.arange(width) < lengths[:, None]  # padded here: from_csr would refuse a few long rows, which tables do have
    next_state, prob, r = np.zeros((n_rows, width), np.int64), np.zeros((n_rows, width)), np.zeros((n_rows, width))
    next_state[used], prob[used], r[used] = indices, data, cell[:, 2]
    shape = (1, n_states, n_actions, width)
    return MDP(Successors(*(frozen(x).reshape(shape) for x in (next_state, prob))), frozen(r).reshape(shape), start, horizon=H)


def to_gymnasium(mdp: MDP) -> gymnasium.Env:
    """A gymnasium environment that plays an MDP; it passes gymnasium's own checker.

    Stationary dynamics and rewards: the observation is the state s, an integer below S. Otherwise it is h S + s, so that the
    environment is Markov, and H S means the end. ``info["stage"]`` is h. An episode terminates after H steps: what an MDP with
    a horizon is worth ends there. The environment has ``P`` and ``initial_state_distrib`` as the toy-text environments
    have, so that ``from_gymnasium(to_gymnasium(mdp), horizon=mdp.H)`` has the same optimal value.

    Args:
        mdp: an MDP, dense or of Successors (of a LinearMDP or TokenMDP pass ``to_tabular()``).
    Raises:
        ValueError: anything else.
    Cost: O(H S A S) in Python for the table, made when it is first asked for; O(S) a step.
    """
    if not isinstance(mdp, MDP):
        fail("to_gymnasium", "mdp", "be an mdpsim.MDP (see to_tabular of the other records)", type(mdp).__name__)
    form("to_gymnasium", mdp)
    return _environment_class()(mdp)


@cache
def _environment_class() -> Any:
    """The environment's class: made on demand, for gymnasium is an extra."""
    import gymnasium
    from gymnasium import spaces

    class MDPEnv(gymnasium.Env):
        """Plays an mdpsim.MDP."""

        metadata = {"render_modes": []}  # noqa: RUF012 - gymnasium's own form

        def __init__(self, mdp: MDP) -> None:
            self.mdp = mdp
            self.staged = mdp.P.shape[0] > 1 or mdp.r.shape[0] > 1
            self.n_observations = mdp.H * mdp.S + 1 if self.staged else mdp.S
            self.observation_space = spaces.Discrete(self.n_observations)
            self.action_space = spaces.Discrete(mdp.A)
            self.stage, self.state = mdp.H, 0  # as after an episode: step asks for a reset

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
            super().reset(seed=seed)
            self.stage, self.state = 0, int(self.np_random.choice(self.mdp.S, p=self.mdp.mu0))
            return self._observation(), {"stage": 0}

        def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
            if self.stage >= self.mdp.H:
                raise gymnasium.error.ResetNeeded("the episode has ended: call reset")
            if not self.action_space.contains(action):
                fail("step", "action", f"be an integer in [0, {self.mdp.A})", repr(action))
            h, s, a = self.stage, self.state, int(action)
            ids, p, r = _row(self.mdp, h, s, a)
            k = self.np_random.choice(p.size, p=p)
            self.state, self.stage = int(ids[k]), h + 1
            return self._observation(), float(r[k]), self.stage == self.mdp.H, False, {"stage": self.stage}

        def _observation(self) -> int:
            if not self.staged:
                return self.state
            return min(self.stage * self.mdp.S + self.state, self.n_observations - 1)

        @property
        def P(self) -> dict[int, dict[int, list[tuple[float, int, float, bool]]]]:
            """P[observation][action] = [(probability, next observation, reward, terminated), ..]."""
            n_stages, S, end = (self.mdp.H if self.staged else 1), self.mdp.S, self.n_observations - 1
            table: dict[int, dict[int, list[tuple[float, int, float, bool]]]] = {}
            for x in range(n_stages * S):
                h, s = divmod(x, S)
                last = self.staged and h == self.mdp.H - 1
                base = (h + 1) * S if self.staged else 0
                table[x] = {}
                for a in range(self.mdp.A):
                    rows = zip(*_row(self.mdp, h, s, a), strict=True)
                    table[x][a] = [(float(q), end if last else base + int(i), float(r), last) for i, q, r in rows]
            if self.staged:
                table[end] = {a: [(1.0, end, 0.0, True)] for a in range(self.mdp.A)}
            return table

        @property
        def initial_state_distrib(self) -> FloatArray:
            """The law of the first observation."""
            return np.pad(self.mdp.mu0, (0, self.n_observations - self.mdp.S))

    return MDPEnv


def _row(mdp: MDP, h: int, s: int, a: int) -> tuple[np.ndarray, FloatArray, FloatArray]:
    """Successors of (h, s, a) of positive probability, their probabilities, and the rewards on the way to them."""
    stage = min(h, mdp.P.shape[0] - 1)
    if isinstance(mdp.P, Successors):
        ids, p = mdp.P.next_state[stage, s, a], mdp.P.prob[stage, s, a]
    else:
        p = mdp.P[stage, s, a]
        ids = np.arange(p.size)
    paid = mdp.r[..., None] if mdp.r_next is None else mdp.r_next
    r = np.broadcast_to(paid[min(h, len(paid) - 1), s, a], p.shape)
    return ids[p > 0.0], p[p > 0.0], r[p > 0.0]
