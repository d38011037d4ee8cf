"""Sparse transitions of fixed width: for each (h, s, a), K successors and their probabilities.

Row (h, s, a) is the law sum_k prob[h, s, a, k] delta(next_state[h, s, a, k]). Rows with fewer than K successors are padded with
probability 0; an id that occurs twice in a row has the sum of its probabilities. K = 1 is a deterministic MDP. Memory is
16 H S A K bytes, where dense transitions take 8 H S^2 A. Fixed width, and not CSR itself: a row is found without a
pointer, and the loop over it has a length known in advance; the price is the padding, which ``from_csr`` bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.arrays import FloatArray, IntArray, as_count, as_floats, as_integers, as_simplex, fail, frozen
from mdpsim.records import record

MAX_WASTE = 4  # from_csr refuses to store more than this many cells for one entry


@record
@dataclass(frozen=True, init=False, eq=False, repr=False)
class Successors:
    """Where each (h, s, a) leads, and with which probability: ``MDP(P=Successors(...), ...)``.

    Args:
        next_state: [H, S, A, K] or [1, S, A, K] (stationary) integers in [0, S); any valid id where prob is 0.
        prob: the same shape, rows that sum to one within 1e-9 (renormalised); 0 is padding.
    Arrays become read-only int64 and float64, copied where anybody could still write to them.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """

    next_state: IntArray
    prob: FloatArray

    def __init__(self, next_state: ArrayLike, prob: ArrayLike) -> None:
        p = as_simplex("Successors", "prob", prob, "H S A K", (None, None, None, None))
        ids = as_integers("Successors", "next_state", next_state, "H S A K", p.shape, p.shape[1])
        object.__setattr__(self, "next_state", ids)
        object.__setattr__(self, "prob", p)

    @classmethod
    def from_csr(cls, rows: Any, *, S: int | None = None) -> Successors:
        """Pad the rows of compressed sparse matrices to one width, that of the longest.

        Args:
            rows: a stage, or a list of H stages. A stage is a scipy.sparse matrix [S A, S] whose row s A + a is P(. | s, a), or
                its arrays as a tuple (data, indices, indptr).
            S: number of states; needed with tuples, which do not know their width.
        Returns:
            Successors [H or 1, S, A, K].
        Cost: O(H S A K).
        Raises:
            ValueError: naming the argument, what was wanted and what came; and where padding would store more than 4
                cells for each entry (a few rows much longer than the others: use dense transitions then).
        """
        given = list(rows) if isinstance(rows, Sequence) and not isinstance(rows, tuple | str) else [rows]
        if not given:
            fail("from_csr", "rows", "have at least one stage", "an empty list")
        stages = [_Stage.of(x, S) for x in given]
        n_rows, n_states = stages[0].lengths.size, stages[0].n_states
        for x in stages:
            if (x.lengths.size, x.n_states) != (n_rows, n_states):
                fail("from_csr", "rows", f"have one shape at every stage, {(n_rows, n_states)}", (x.lengths.size, x.n_states))
        width = max(1, *(int(x.lengths.max()) for x in stages))
        cells, entries = len(stages) * n_rows * width, sum(x.data.size for x in stages)
        if cells > MAX_WASTE * entries:
            got = f"{cells} cells for {entries} entries (the longest row has {width})"
            fail("from_csr", "rows", f"pad to at most {MAX_WASTE} times their entries", got)
        shape = (len(stages), n_states, n_rows // n_states, width)
        next_state, prob = np.zeros((len(stages), n_rows, width), np.int64), np.zeros((len(stages), n_rows, width))
        for x, ids, p in zip(stages, next_state, prob, strict=True):
            used = np.arange(width) < x.lengths[:, None]
            ids[used], p[used] = x.indices, x.data
        return cls(frozen(next_state).reshape(shape), frozen(prob).reshape(shape))

    @property
    def shape(self) -> tuple[int, ...]:
        """(H or 1, S, A, K)."""
        return self.prob.shape

    def to_dense(self) -> FloatArray:
        """The same transitions as P [H or 1, S, A, S], read-only. Cost: O(H S^2 A) memory."""
        n_stages, n_states, n_actions, _ = self.shape
        P = np.zeros((n_stages, n_states, n_actions, n_states))
        h, s, a, _ = np.ogrid[tuple(slice(n) for n in self.shape)]
        np.add.at(P, (h, s, a, self.next_state), self.prob)  # not P[..] +=, which keeps one of several equal ids
        return frozen(P)

    def __repr__(self) -> str:
        n_stages, n_states, n_actions, width = self.shape
        return f"Successors(stages={n_stages}, S={n_states}, A={n_actions}, K={width})"


@dataclass(frozen=True)
class _Stage:
    """One guarded CSR matrix: its entries, their columns, the length of each row and the number of columns."""

    data: FloatArray
    indices: IntArray
    lengths: IntArray
    n_states: int

    @staticmethod
    def of(x: Any, S: int | None) -> _Stage:
        """Guard a scipy.sparse matrix or a tuple (data, indices, indptr)."""
        if hasattr(x, "tocsr"):  # anything like scipy's: no need to import it for that
            if x.ndim != 2 or (S is not None and x.shape[1] != S):
                fail("from_csr", "rows", f"have shape [S A, S]{'' if S is None else f' with S = {S}'}", x.shape)
            x, S = x.tocsr(), x.shape[1]
            x = (x.data, x.indices, x.indptr)
        if not isinstance(x, tuple) or len(x) != 3:
            fail("from_csr", "rows", "be scipy.sparse matrices or tuples (data, indices, indptr)", type(x).__name__)
        n_states = as_count("from_csr", "S", S)
        data = as_floats("from_csr", "data", x[0], "entries", (None,))
        indices = as_integers("from_csr", "indices", x[1], "entries", (data.size,), n_states)
        indptr = as_integers("from_csr", "indptr", x[2], "rows+1", (None,), data.size + 1)
        lengths = np.diff(indptr)
        if lengths.size == 0 or lengths.size % n_states:
            fail("from_csr", "rows", f"have S A rows, a multiple of S = {n_states}", lengths.size)
        if indptr[0] != 0 or indptr[-1] != data.size or lengths.min() < 0:
            fail("from_csr", "indptr", f"rise from 0 to the number of entries, {data.size}", indptr)
        return _Stage(data, indices, lengths, n_states)
