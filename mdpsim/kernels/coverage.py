"""The greedy adversary of the sequential extrapolation coefficient: at every step the policy that adds most."""

from __future__ import annotations

from mdpsim.kernels._jit import kernel
from mdpsim.kernels._math import quotient


@kernel
def greedy(square, second, least, seen, total, chosen):
    """Fill total [T] with the partial sums of max_j square[j] / max(least, seen[j]), seen = sum of rows second[chosen].

    square [M], second [M, M] >= 0; seen [M] comes as zeros; chosen [T] are the maximisers, the first of equal ones. least may
    be 0: a policy that nothing was seen of yet then adds infinity, or 0 where its square is 0.
    """
    so_far = 0.0
    for t in range(total.size):
        best, at = -1.0, 0
        for j in range(square.size):
            floor = seen[j] if seen[j] > least else least
            gain = quotient(square[j], floor) if square[j] > 0.0 else 0.0
            at = j if gain > best else at
            best = gain if gain > best else best
        so_far = so_far + best
        total[t] = so_far
        chosen[t] = at
        for j in range(square.size):
            seen[j] += second[at, j]


@kernel
def second_moments(law, square, tail, out):
    """out [M, M]: out[i, j] = sum_y law[i, y] square[j, y] + tail[j]; law, square [M, N]. Fixed order of summation."""
    n = law.shape[1]
    for i in range(law.shape[0]):
        for j in range(square.shape[0]):
            s = 0.0
            for y in range(n):
                s += law[i, y] * square[j, y]
            out[i, j] = s + tail[j]


