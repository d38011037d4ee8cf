r"""Softmax policies parametrised by rewards on a box: one number a response, a token, or a feature.

    pi_theta(y | x) = pi_ref(y | x) e^{(rho_theta(x, y) - V_theta(x)) / beta},   rho = Phi theta,   low <= theta <= high,
    V_theta(x) = beta log sum_y pi_ref(y | x) e^{rho_theta(x, y) / beta}.

So beta log(pi / pi_ref) = rho - V, and a Bradley-Terry likelihood of pi is one of rho: convex in theta. Three kinds of Phi:

* ``ResponseBox``: one parameter a response, Phi the identity. It holds every optimum of rewards in [0, r_max], beta
  times its log-ratios is at most r_max, and rho + c is the same policy (the gauge).
* ``TokenBox``: one parameter a prefix and token, rho(x, y) the sum along y. V is soft backward induction, and its
  derivative in theta(s, a) the probability that pi_theta visits (s, a).
* ``LinearBox``: features of responses, shared by all prompts.

A block is a set of prompts whose parameters meet: blocks are fitted one by one, in ``mdpsim.align.cccp``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.align.classes import guard_range
from mdpsim.arrays import FloatArray, IntArray, as_floats, as_real, as_simplex, axes_of, fail, frozen
from mdpsim.kernels import concave_convex as kernels
from mdpsim.mdp.tabular import MDP
from mdpsim.mdp.token import TokenMDP
from mdpsim.records import record
from mdpsim.solve.exact import occupancy, solve_soft

MAX_FEATURES = 2**22  # entries of a block's table: 32 MiB
LOW_BETA, HIGH_BETA = 1e-300, 1e300


@record
class Block(NamedTuple):
    """Prompts whose parameters meet, and the responses that pi_ref can give them: read-only arrays.

    Phi: [N, d] features. ref, log_ref: [N]. edges: [X'+1] the rows of prompt i are edges[i] to edges[i+1]. prompts: [X']
    numbers. rows: [N] numbers x Y + y. columns: [d] places in theta. low, high: [d].
    """

    Phi: FloatArray
    ref: FloatArray
    log_ref: FloatArray
    edges: IntArray
    prompts: IntArray
    rows: IntArray
    columns: IntArray
    low: FloatArray
    high: FloatArray


class _Box:
    """What the three classes share."""

    pi_ref: FloatArray
    beta: float

    @property
    def X(self) -> int:
        """Number of prompts."""
        return self.pi_ref.shape[0]

    @property
    def Y(self) -> int:
        """Number of responses to a prompt."""
        return self.pi_ref.shape[1]

    @property
    def size(self) -> int:
        """Number of parameters."""
        raise NotImplementedError

    def blocks(self) -> Iterator[Block]:
        """The blocks, in the order of their prompts."""
        raise NotImplementedError

    def rewards(self, theta: ArrayLike) -> FloatArray:
        """rho [X, Y] at parameters [size]."""
        raise NotImplementedError

    def log_pi(self, theta: ArrayLike) -> FloatArray:
        """log pi(y | x) [X, Y] at parameters [size]; -inf where pi_ref is zero. Cost: O(entries of Phi)."""
        x, out = self.guard("log_pi", theta), np.full(self.X * self.Y, -np.inf)
        for block in self.blocks():
            log_p, part = np.empty(len(block.rows)), frozen(x[block.columns])
            kernels.log_policies(block.Phi, block.edges, block.ref, block.log_ref, self.beta, part, log_p)
            out[block.rows] = log_p
        return frozen(out.reshape(self.X, self.Y))

    def guard(self, where: str, theta: ArrayLike) -> FloatArray:
        """Parameters [size], checked."""
        return as_floats(where, "theta", theta, "n", (self.size,))


def _reference(where: str, pi_ref: ArrayLike) -> FloatArray:
    wide = axes_of(pi_ref) == 2
    ref = as_simplex(where, "pi_ref", pi_ref, "X Y" if wide else "Y", (None, None) if wide else (None,))
    return ref if wide else frozen(ref[None])


def _block(
    ref: FloatArray, prompts: IntArray, features: FloatArray, columns: IntArray, low: FloatArray, high: FloatArray, where: str
) -> Block:
    """The block of some prompts: ref [X, Y] of all, features [X', Y, d] of these."""
    n = ref.shape[1]
    on = ref[prompts] > 0.0
    rows = (prompts[:, None] * n + np.arange(n))[on]
    Phi = np.ascontiguousarray(features[on])
    if Phi.size > MAX_FEATURES:
        fail(where, "pi_ref", f"have at most {MAX_FEATURES} features of responses in a block", Phi.size)
    p = ref[prompts][on]
    edges = np.concatenate([[0], on.sum(axis=1).cumsum()])
    return Block(*(frozen(a) for a in (Phi, p, np.log(p), edges, prompts, rows, columns, low, high)))


@record
@dataclass(frozen=True, init=False, eq=False, repr=False)
class ResponseBox(_Box):
    """Tabular softmax: rho(x, y) = theta[x, y] in [0, r_max].

    Args:
        pi_ref: [Y] or [X, Y]; a response of probability zero is in no policy. beta: in (0, inf), in reward units.
        r_max: R > 0.
    theta is [X Y], prompt by prompt.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """

    pi_ref: FloatArray
    beta: float
    r_max: float

    def __init__(self, pi_ref: ArrayLike, *, beta: float, r_max: float) -> None:
        object.__setattr__(self, "pi_ref", _reference("ResponseBox", pi_ref))
        object.__setattr__(self, "beta", as_real("ResponseBox", "beta", beta, LOW_BETA, HIGH_BETA))
        object.__setattr__(self, "r_max", as_real("ResponseBox", "r_max", r_max, 1e-300, 1e150))

    @property
    def size(self) -> int:
        """X Y."""
        return self.pi_ref.size

    def rewards(self, theta: ArrayLike) -> FloatArray:
        """rho [X, Y] = theta."""
        return self.guard("rewards", theta).reshape(self.X, self.Y)

    def blocks(self) -> Iterator[Block]:
        """One a prompt."""
        for x in range(self.X):
            on = np.flatnonzero(self.pi_ref[x])
            d, table = on.size, np.zeros((1, self.Y, on.size))
            table[0, on, np.arange(d)] = 1.0
            yield _block(self.pi_ref, np.array([x]), table, x * self.Y + on, np.zeros(d), np.full(d, self.r_max), "ResponseBox")


@record
@dataclass(frozen=True, init=False, eq=False, repr=False)
class TokenBox(_Box):
    """Token-level softmax: rho(x, y) = sum_h theta[h, s_h, y_h], s_h the prefix, every entry in [0, r_max].

    Args:
        mdp: prompts, vocabulary and length; its rewards are not read. pi_ref: [H, S, A] reference over tokens.
        beta: in (0, inf). r_max: R > 0, so that a response's reward is at most H R.
    theta is [H S A], the order of a policy; entries that no response reads are kept at 0.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """

    pi_ref: FloatArray
    beta: float
    r_max: float
    mdp: TokenMDP
    token_ref: FloatArray

    def __init__(self, mdp: TokenMDP, pi_ref: ArrayLike, *, beta: float, r_max: float) -> None:
        if not isinstance(mdp, TokenMDP):
            fail("TokenBox", "mdp", "be a TokenMDP", type(mdp).__name__)
        ref = as_simplex("TokenBox", "pi_ref", pi_ref, "H S A", (mdp.H, mdp.S, mdp.A))
        with np.errstate(under="ignore"):
            whole = np.exp(mdp.responses(ref).log_prob)
        for name, value in (("mdp", mdp), ("token_ref", ref), ("pi_ref", frozen(whole / whole.sum(axis=1, keepdims=True)))):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "beta", as_real("TokenBox", "beta", beta, LOW_BETA, HIGH_BETA))
        object.__setattr__(self, "r_max", as_real("TokenBox", "r_max", r_max, 1e-300, 1e150))

    @property
    def size(self) -> int:
        """H S A."""
        return self.token_ref.size

    def rewards(self, theta: ArrayLike) -> FloatArray:
        """rho [X, Y]: sums along the responses."""
        total = np.zeros(self.X)
        for row in self.guard("rewards", theta).reshape(self.token_ref.shape):
            total = (total[:, None] + row[: total.size]).reshape(-1)
        return frozen(total.reshape(self.X, self.Y))

    def soft(self, theta: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(V [X], pi [H, S, A], gradient of sum_x mu0(x) V(x) [H, S, A]): by soft backward induction and occupancy."""
        table = self.guard("soft", theta).reshape(self.token_ref.shape)
        tabular = self.mdp.tabular
        model = MDP(tabular.P, table, tabular.mu0)
        best = solve_soft(model, self.token_ref, self.beta)
        visits = occupancy(model, best.pi)[..., None] * best.pi
        return frozen(best.V[0, : self.X].copy()), best.pi, frozen(visits)

    def blocks(self) -> Iterator[Block]:
        """One a prompt: the entries that its responses read."""
        H, S, A = self.token_ref.shape
        y = np.arange(self.Y)
        for x in range(self.X):
            places = []
            for h in range(H):
                prefix, token = y // A ** (H - h), y // A ** (H - 1 - h) % A
                places.append((h * S + x * A**h + prefix) * A + token)
            visited = np.array(places)  # [H, Y] places in theta
            columns = np.unique(visited[:, self.pi_ref[x] > 0.0])
            if columns.size * self.Y > MAX_FEATURES:
                fail("TokenBox", "mdp", f"have at most {MAX_FEATURES} pairs of response and parameter", columns.size * self.Y)
            table = np.zeros((1, self.Y, columns.size))
            for row in visited:
                at = np.minimum(np.searchsorted(columns, row), columns.size - 1)
                table[0, y, at] = columns[at] == row
            d = columns.size
            yield _block(self.pi_ref, np.array([x]), table, columns, np.zeros(d), np.full(d, self.r_max), "TokenBox")


@record
@dataclass(frozen=True, init=False, eq=False, repr=False)
class LinearBox(_Box):
    """Linear softmax: rho(x, y) = features[x, y] . theta with every |theta_i| <= bound.

    Args:
        pi_ref: [Y] or [X, Y]. features: [Y, d] or [X, Y, d]. beta: in (0, inf). bound: > 0.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """

    pi_ref: FloatArray
    beta: float
    bound: float
    features: FloatArray

    def __init__(self, pi_ref: ArrayLike, features: ArrayLike, *, beta: float, bound: float) -> None:
        ref = _reference("LinearBox", pi_ref)
        wide = axes_of(features) == 3
        sizes = (*ref.shape, None) if wide else (ref.shape[1], None)
        table = as_floats("LinearBox", "features", features, "X Y d" if wide else "Y d", sizes)
        guard_range("LinearBox", "features", table)
        for name, value in (("pi_ref", ref), ("features", frozen(np.broadcast_to(table, (*ref.shape, table.shape[-1]))))):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "beta", as_real("LinearBox", "beta", beta, LOW_BETA, HIGH_BETA))
        object.__setattr__(self, "bound", as_real("LinearBox", "bound", bound, 1e-300, 1e150))

    @property
    def size(self) -> int:
        """d."""
        return self.features.shape[2]

    def rewards(self, theta: ArrayLike) -> FloatArray:
        """rho [X, Y] = features . theta."""
        return frozen(self.features @ self.guard("rewards", theta))

    def blocks(self) -> Iterator[Block]:
        """One: all prompts share the parameters."""
        d = self.size
        high = np.full(d, self.bound)
        yield _block(self.pi_ref, np.arange(self.X), self.features, np.arange(d), -high, high, "LinearBox")


SoftmaxClass = ResponseBox | TokenBox | LinearBox
