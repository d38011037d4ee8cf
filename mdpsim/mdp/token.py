"""Token MDPs: deterministic contextual MDPs whose episodes are a prompt and a response of L tokens.

A prompt x ~ mu0 is drawn, then a policy writes y = y_0 .. y_{L-1}, one token of a vocabulary of V at each stage; the reward
r(x, y) comes with the last token. The state is what has been written: at stage h, state x V^h + prefix, the prefix read as a
number in base V with the first token most significant, and token a leads to s V + a. So trajectories are responses, a policy
over tokens is a law over responses, pi(y | x) = prod_h pi_h(y_h | x, y_<h), and trajectory KL is KL between laws of responses.
The exact functions and the samplers read a :class:`TokenMDP` through its sparse tabular form (one successor each).

A response that ends early goes on with the end token: the reference policy must allow nothing else after it (``ended`` tells
where), and what follows it carries no probability.
References: Korbak, Perez and Buckley (2022); Xie et al. (2024), "deterministic contextual MDPs".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.arrays import FloatArray, IntArray, as_count, as_floats, as_integers, as_numbers, as_simplex, fail, frozen
from mdpsim.mdp.successors import Successors
from mdpsim.mdp.tabular import MDP
from mdpsim.records import record

MAX_RESPONSES = 2**24  # prompts times responses that are ever stored at once: 128 MiB an array


@record
class Responses(NamedTuple):
    """All responses and their log-probabilities: read-only arrays.

    tokens: [Y, L] token ids, in the order of the index y = sum_h y_h V^(L-1-h).
    log_prob: [X, Y] log pi(y | x); -inf where the policy never writes y.
    """

    tokens: IntArray
    log_prob: FloatArray


@record
@dataclass(frozen=True, init=False, eq=False, repr=False)
class TokenMDP:
    """Prompts, responses of L tokens, and a reward for each pair; every exact function and both samplers accept it.

    Args:
        r: [X, Y] rewards of whole responses, Y = V^L, any finite real numbers.
        vocabulary: number of tokens V, or their names.
        length: tokens of a response, L = H.
        mu0: [X] law of the prompt; None is uniform.
        prompts: names of the prompts; None calls them 0, 1, ..
        end: id of the token after which a response has ended; None where every response has L tokens.
    Rows that do not sum to one within 1e-9 are an error; the others are renormalised.
    Cost: O(H X V^L) memory for the tabular form (its states are X V^(L-1) at every stage; those that no prefix of the stage
        has lead to state 0 without reward).
    Raises:
        ValueError: naming the argument, what was wanted and what came; more than 2^24 pairs of prompt and response.
    """

    r: FloatArray
    mu0: FloatArray
    tokens: tuple[str, ...]
    prompts: tuple[str, ...]
    length: int
    end: int | None
    tabular: MDP

    def __init__(
        self, r: ArrayLike, *, vocabulary: int | Sequence[str], length: int, mu0: ArrayLike | None = None,
        prompts: Sequence[str] | None = None, end: int | None = None,
    ) -> None:
        tokens = _names("vocabulary", vocabulary)
        n_tokens, n_stages = len(tokens), as_count("TokenMDP", "length", length, high=64)
        n_responses = n_tokens**n_stages
        if n_responses > MAX_RESPONSES:
            fail("TokenMDP", "vocabulary and length", f"give at most {MAX_RESPONSES} responses", f"{n_tokens}^{n_stages}")
        rewards = as_floats("TokenMDP", "r", r, "X Y", (None, n_responses))
        n_prompts = rewards.shape[0]
        if rewards.size > MAX_RESPONSES:
            fail("TokenMDP", "r", f"hold at most {MAX_RESPONSES} pairs of prompt and response", rewards.size)
        named = _names("prompts", n_prompts if prompts is None else prompts)
        if len(named) != n_prompts:
            fail("TokenMDP", "prompts", f"name each of the {n_prompts} prompts of r", f"{len(named)} names")
        start = np.full(n_prompts, 1.0 / n_prompts) if mu0 is None else mu0
        start = as_simplex("TokenMDP", "mu0", start, "X", (n_prompts,))
        if end is not None:
            end = as_count("TokenMDP", "end", end, low=0, high=n_tokens - 1)
        tabular = _tabular(rewards, start, n_tokens, n_stages)
        for name, value in (
            ("r", rewards), ("mu0", start), ("tokens", tokens), ("prompts", named), ("length", n_stages), ("end", end),
            ("tabular", tabular),
        ):
            object.__setattr__(self, name, value)

    @property
    def H(self) -> int:
        """Number of stages: tokens of a response."""
        return self.length

    @property
    def S(self) -> int:
        """Number of states, X V^(L-1)."""
        return self.tabular.S

    @property
    def A(self) -> int:
        """Number of tokens V."""
        return len(self.tokens)

    @property
    def X(self) -> int:
        """Number of prompts."""
        return self.r.shape[0]

    @property
    def Y(self) -> int:
        """Number of responses, V^L."""
        return self.r.shape[1]

    def to_tabular(self) -> MDP:
        """The same problem with dense transitions [H, S, A, S]: for small ones. ``tabular`` is the sparse form."""
        assert isinstance(self.tabular.P, Successors)
        return MDP(self.tabular.P.to_dense(), self.tabular.r, self.tabular.mu0)

    def ended(self, h: int) -> np.ndarray:
        """[X V^h] bool: the prefixes of h tokens that hold the end token."""
        ends, gone = np.arange(self.A) == self.end, np.zeros(1, dtype=bool)
        for _ in range(as_count("ended", "h", h, low=0, high=self.H)):
            gone = (gone[:, None] | ends).reshape(-1)
        return np.tile(gone, self.X)

    def uniform_policy(self) -> FloatArray:
        """The policy [H, S, A] that writes every allowed token equally often: only the end token after an end token."""
        return self._conditionals(np.full((self.X, self.Y), -np.inf))

    def responses(self, pi: ArrayLike | None = None) -> Responses:
        """Enumerate the responses, with log pi(y | x) = sum_h log pi_h(y_h | x, y_<h).

        Args:
            pi: [H, S, A] policy over tokens; None is ``uniform_policy``.
        Returns:
            Responses: tokens [Y, L], log_prob [X, Y].
        Exactness: sums of L logarithms, each known to an ulp.
        Cost: O(X Y) time and memory.
        Raises:
            ValueError: a policy of another vocabulary, length or number of prompts.
        """
        if pi is None:
            policy = self.uniform_policy()
        else:
            shape = pi.shape if isinstance(pi, np.ndarray) else ()
            if len(shape) == 3 and shape[2] != self.A:
                fail("responses", "pi", f"be over this vocabulary of {self.A} tokens", f"a policy over {shape[2]}")
            policy = as_simplex("responses", "pi", pi, "H S A", (self.H, self.S, self.A))
        total = np.zeros(self.X)
        for row in policy:
            with np.errstate(divide="ignore"):  # a token that is never written
                total = (total[:, None] + np.log(row[: total.size])).reshape(-1)
        ids = np.arange(self.Y)[:, None] // self.A ** np.arange(self.H)[::-1] % self.A
        return Responses(frozen(ids), frozen(total.reshape(self.X, self.Y)))

    def token_policy(self, log_prob: ArrayLike) -> FloatArray:
        """The policy over tokens whose responses have the given law: pi_h(a | x, prefix) = p(prefix a | x) / p(prefix | x).

        Args:
            log_prob: [X, Y] log-probabilities of the responses, -inf for 0; every row sums to one within 1e-9.
        Returns:
            pi [H, S, A], read-only; after a prefix of probability zero it is uniform over the allowed tokens.
        Exactness: the inverse of ``responses`` to a few eps (1 + |log p|), however small the probabilities.
        Cost: O(X Y) time and memory.
        Raises:
            ValueError: NaN or +inf, another shape, rows that are no laws, mass on what follows an end token.
        """
        return self._conditionals(self._guard_law(log_prob))

    def _conditionals(self, logs: FloatArray) -> FloatArray:
        """The policy of ``token_policy`` for log-probabilities [X, Y], summed from the last token to the first."""
        pi = np.full((self.H, self.S, self.A), 1.0 / self.A)
        ahead = logs.reshape(-1)
        for h in reversed(range(self.H)):
            rows = ahead.reshape(-1, self.A)
            pi[h, : len(rows)][self.ended(h)] = np.arange(self.A) == self.end
            top = rows.max(axis=1, keepdims=True)
            live = np.isfinite(top[:, 0])
            mass = np.exp(rows[live] - top[live])
            total = mass.sum(axis=1, keepdims=True)
            pi[h, : len(rows)][live] = mass / total
            ahead = np.full(len(rows), -np.inf)
            ahead[live] = (top[live] + np.log(total))[:, 0]
        return frozen(pi)

    def _guard_law(self, log_prob: ArrayLike) -> FloatArray:
        """Log-probabilities of responses [X, Y], checked."""
        logs = as_numbers("token_policy", "log_prob", log_prob)
        if logs.shape != (self.X, self.Y):
            fail("token_policy", "log_prob", f"have shape [X, Y] = ({self.X}, {self.Y})", logs.shape)
        if np.isnan(logs).any() or (logs == np.inf).any():
            fail("token_policy", "log_prob", "hold logarithms of probabilities", "NaN or inf")
        with np.errstate(over="ignore", under="ignore"):
            whole = np.exp(logs)
        law = as_simplex("token_policy", "exp(log_prob)", whole, "X Y", (self.X, self.Y))
        if self.end is not None:
            ids = self.responses(frozen(np.full((self.H, self.S, self.A), 1.0 / self.A))).tokens
            odd = ((ids[:, :-1] == self.end) & (ids[:, 1:] != self.end)).any(axis=1)
            if law[:, odd].any():
                y = int(np.flatnonzero(odd & law.any(axis=0))[0])
                fail("token_policy", "log_prob", "give no mass to what follows an end token", f"mass on {self.text(y)!r}")
        return logs

    def text(self, y: int) -> str:
        """Response y as a string: token names with blanks between, up to the end token."""
        index = as_count("text", "y", y, low=0, high=self.Y - 1)
        ids = [index // self.A ** (self.H - 1 - h) % self.A for h in range(self.H)]
        if self.end in ids:
            ids = ids[: ids.index(self.end) + 1]
        return " ".join(self.tokens[i] for i in ids)

    def index(self, tokens: ArrayLike) -> IntArray:
        """Index y [N] of responses given as token ids [N, L]: the actions of sampled trajectories."""
        ids = as_integers("index", "tokens", tokens, "N L", (None, self.H), self.A)
        return ids @ self.A ** np.arange(self.H)[::-1]

    def __repr__(self) -> str:
        end = "" if self.end is None else f", end={self.tokens[self.end]!r}"
        return f"TokenMDP(prompts={self.X}, vocabulary={self.A}, length={self.H}{end})"


def _names(argument: str, given: int | Sequence[str]) -> tuple[str, ...]:
    """Different names, or as many numbers."""
    if isinstance(given, str) or not isinstance(given, Sequence):
        return tuple(str(i) for i in range(as_count("TokenMDP", argument, given, high=MAX_RESPONSES)))
    names = tuple(given)
    if not names or not all(isinstance(n, str) and n for n in names) or len(set(names)) < len(names):
        fail("TokenMDP", argument, "be a number or a sequence of different names", repr(given))
    return names


def _tabular(r: FloatArray, mu0: FloatArray, V: int, L: int) -> MDP:
    """The sparse form: state x V^h + prefix at stage h."""
    n_prompts = r.shape[0]
    S = n_prompts * V ** (L - 1)
    child = np.arange(S)[:, None] * V + np.arange(V)
    next_state = np.stack([np.where(child < n_prompts * V ** (h + 1), child, 0) if h < L - 1 else 0 * child for h in range(L)])
    rewards = np.zeros((L, S, V))
    rewards[-1] = r.reshape(S, V)
    start = np.zeros(S)
    start[:n_prompts] = mu0
    P = Successors(frozen(next_state[..., None]), frozen(np.ones((L, S, V, 1))))
    return MDP(P, frozen(rewards), frozen(start))
