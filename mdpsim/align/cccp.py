r"""XPO's objective over a softmax class: the least of a convex and a concave part, with a certificate.

Given n pairs (winner, loser) and comparator responses, with kappa = alpha / beta, XPO minimises

    F(theta) = sum_i log(1 + e^{-(rho(winner_i) - rho(loser_i))}) + kappa sum_i (rho(comparator_i) - V(x_i)),        (1)

that is, alpha sum log pi(comparator) / pi_ref(comparator) plus the DPO loss. The first sum is convex in theta, -V concave.

Descent. Replacing V by its tangent at theta_k majorises F; the minimiser of that convex function is theta_{k+1} (CCCP;
Yuille and Rangarajan 2003). F never rises, and a fixed point is first-order stationary on the box.

Starts. As beta -> 0, V = max_y (rho_y + beta log pi_ref(y)): one convex problem a response. So CCCP starts from the maximum
of the likelihood and from 0 (pi_ref); for every response y from the corner of the box where rho_y is largest and the others
are 0, and from the maximum of the likelihood with rho_y raised to it; from the minimiser with V linearised at y alone, and
at pi_ref; and from the corners that raise the responses of least count / pi_ref together, as sums of several responses
matter where beta is not small. Then in the best basins each parameter is put to either end of its range, and CCCP runs
again from there, until nothing improves.

Certificate. max_y (rho_y + beta log p_y) <= V <= the same + beta log K: with y fixed in V the problem is convex, the least
of the K minima L bounds min F from above, and L - n alpha log K from below. And E_ref rho <= V <= E_ref rho + (range of
rho)^2 / (8 beta) (Jensen; Hoeffding's lemma), one convex problem more. ``lower`` is the better of the two lower bounds,
each convex minimum replaced by its own first-order lower bound: value - lower is proven, whatever the search found.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.align.classes import as_indices, guard_range, quiet
from mdpsim.align.softmax_class import Block, LinearBox, ResponseBox, SoftmaxClass, TokenBox
from mdpsim.arrays import FloatArray, IntArray, as_count, as_floats, as_integers, as_real, axes_of, fail, frozen
from mdpsim.kernels import concave_convex as kernels
from mdpsim.records import record

MOST_TANGENTS = 2000
MOST_ROUNDS = 10_000  # of flips around a basin: each lowers F by SAME of its scale, so that a few are taken
MOST_CHOICES = 256  # choices of a response for every prompt of a block, beyond which only the second certificate is computed
SAME = 1e-9  # values closer than this, relative to the scale of F, are one basin


@record
class SoftmaxFit(NamedTuple):
    """The least value of (1) that was found, and what is proven about it: read-only arrays.

    theta: [size]. rewards, log_pi: [X, Y]. value: F(theta). lower: a proven lower bound of min F, up to rounding. relaxed:
    the least minimum L of the convex problems with V linearised at one response, in [value, value + n alpha log K] up to
    what the search missed; inf where a block has more than 256 choices of a response for every prompt. slope: largest
    first-order decrease over the box, about 0 at a stationary point. starts: starting points tried. tangents: convex
    problems solved from them.
    """

    theta: FloatArray
    rewards: FloatArray
    log_pi: FloatArray
    value: float
    lower: float
    relaxed: float
    slope: float
    starts: int
    tangents: int


class _Data(NamedTuple):
    """The data of a block: differences Z [J, d] with counts c [J], comparator counts m [N], and n log 2 of equal pairs."""

    Z: FloatArray
    c: FloatArray
    m: FloatArray
    constant: float


@quiet
def fit_softmax(
    model: SoftmaxClass, winners: ArrayLike, losers: ArrayLike, comparators: ArrayLike | None = None, *, alpha: float = 0.0,
    prompts: ArrayLike | None = None, starts: ArrayLike | None = None, basins: int = 6,
) -> SoftmaxFit:
    """Minimise XPO's objective (1) over a softmax class; with alpha = 0, DPO's.

    Args:
        model: ResponseBox, TokenBox or LinearBox.
        winners, losers: [n] numbers of responses, the preferred first. comparators: [n], needed where alpha > 0.
        alpha: optimism >= 0. Where alpha = 0 what no pair identifies stays as in pi_ref (the limit of gradient flow from it).
        prompts: [n] prompt of each pair and comparator; None where there is one prompt.
        starts: [k, size] starting points in place of the families above. basins: how many of the best basins are searched
            around; 0 is none.
    Returns:
        SoftmaxFit. In a ResponseBox the gauge is fixed by min rho = 0 over the responses of each prompt.
    Exactness: a stationary point to rounding; value - lower is a proven gap, n alpha log K or less for one prompt.
    Cost: O(J d^2 + d^3) a Newton step with J distinct pairs, hundreds to thousands of them: 2 ms for 3 responses, 30 ms for 12.
    Raises:
        ValueError: naming the argument; a response that pi_ref cannot give.
    """
    where = "fit_softmax"
    if not isinstance(model, ResponseBox | TokenBox | LinearBox):
        fail(where, "model", "be a ResponseBox, TokenBox or LinearBox", type(model).__name__)
    weight = as_real(where, "alpha", alpha, 0.0, 1e300)
    search = as_count(where, "basins", basins, low=0, high=10**6)
    places = _places(where, model, winners, losers, comparators, weight, prompts)
    own = None if starts is None else as_floats(where, "starts", starts, "k n", (None, model.size))
    kappa = weight / model.beta
    if not kappa < 1e200:
        fail(where, "alpha", "be at most 1e200 beta", f"{weight:g} with beta = {model.beta:g}")
    theta, totals = np.zeros(model.size), np.zeros(6)
    for block in model.blocks():
        mine = None if own is None else np.clip(own[:, block.columns], block.low, block.high)
        part, numbers = _fit_block(block, _gather(block, *places), kappa, model.beta, mine, search)
        theta[block.columns] = part - part.min() if isinstance(model, ResponseBox) else part
        totals += numbers
    value, lower, relaxed, slope, tried, tangents = totals
    numbers = float(value), float(lower), float(relaxed), float(slope), int(tried), int(tangents)
    return SoftmaxFit(frozen(theta), model.rewards(theta), model.log_pi(theta), *numbers)


@quiet
def xpo_objective(
    model: SoftmaxClass, theta: ArrayLike, winners: ArrayLike, losers: ArrayLike, comparators: ArrayLike | None = None, *,
    alpha: float = 0.0, prompts: ArrayLike | None = None,
) -> FloatArray:
    """F of (1) at many parameters.

    Args:
        theta: [k, size] or [size], inside the box or not; the others as in ``fit_softmax``.
    Returns:
        [k], or a number.
    Cost: O(k (J + N) d).
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    where = "xpo_objective"
    if not isinstance(model, ResponseBox | TokenBox | LinearBox):
        fail(where, "model", "be a ResponseBox, TokenBox or LinearBox", type(model).__name__)
    weight = as_real(where, "alpha", alpha, 0.0, 1e300)
    places = _places(where, model, winners, losers, comparators, weight, prompts)
    many = axes_of(theta) == 2
    x = as_floats(where, "theta", theta, "k n" if many else "n", (None, model.size) if many else (model.size,))
    guard_range(where, "theta", x)
    x = x if many else x[None]
    total = np.zeros(len(x))
    for block in model.blocks():
        data, value = _gather(block, *places), np.empty(len(x))
        _evaluate(block, data, weight / model.beta, model.beta, x[:, block.columns], value)
        total += value + data.constant
    return frozen(total) if many else total[0]


def _places(
    where: str, model: SoftmaxClass, winners: ArrayLike, losers: ArrayLike, comparators: ArrayLike | None, alpha: float,
    prompts: ArrayLike | None,
) -> tuple[IntArray, IntArray, IntArray]:
    """Rows x Y + y of winners, losers and comparators, all given by pi_ref with positive probability."""
    won = as_indices(where, "winners", winners, "n", (None,), model.Y)
    lost = as_integers(where, "losers", losers, "n", (won.size,), model.Y)
    if comparators is None and alpha > 0.0:
        fail(where, "comparators", "be given where alpha > 0", None)
    other = won[:0] if comparators is None else as_integers(where, "comparators", comparators, "n", (won.size,), model.Y)
    if prompts is None:
        if model.X > 1:
            fail(where, "prompts", f"be given where there are {model.X} prompts", None)
        x = np.zeros(won.size, np.int64)
    else:
        x = as_integers(where, "prompts", prompts, "n", (won.size,), model.X)
    rows = [x[: r.size] * model.Y + r for r in (won, lost, other)]
    for name, r in zip(("winners", "losers", "comparators"), rows, strict=True):
        off = model.pi_ref.reshape(-1)[r] == 0.0
        if off.any():
            at = divmod(int(r[off][0]), model.Y)
            fail(where, name, "be responses that pi_ref can give", f"response {at[1]} to prompt {at[0]}, of probability 0")
    return rows[0], rows[1], rows[2]


def _gather(block: Block, won: IntArray, lost: IntArray, other: IntArray) -> _Data:
    """The pairs and comparators of a block, counted."""
    n = len(block.rows)
    mine = np.isin(won, block.rows)
    a, b = np.searchsorted(block.rows, won[mine]), np.searchsorted(block.rows, lost[mine])
    pairs, counts = np.unique(a * n + b, return_counts=True)
    Z = block.Phi[pairs // n] - block.Phi[pairs % n]
    differs = Z.any(axis=1)
    m = np.bincount(np.searchsorted(block.rows, other[np.isin(other, block.rows)]), minlength=n).astype(np.float64)
    constant = float(np.log(2.0)) * float(counts[~differs].sum())
    return _Data(frozen(Z[differs]), frozen(counts[differs].astype(np.float64)), frozen(m), constant)


def _fit_block(
    block: Block, data: _Data, kappa: float, beta: float, starts: FloatArray | None, search: int
) -> tuple[FloatArray, FloatArray]:
    """(theta [d], (value, lower, relaxed, slope, starts, tangents)) of one block."""
    base = 0.5 * (block.low + block.high)  # pi_ref, and as far from the bounds as can be
    if kappa == 0.0 or not data.m.any():
        theta, value, gap = _convex(block, data, np.zeros((1, base.size)), base)
        least = value[0] + data.constant
        return theta[0], np.array([least, least - gap[0], least, gap[0], 1, 1])
    tangents, lower, relaxed = _certificate(block, data, kappa, beta, base)
    if starts is None:
        likely = _convex(block, data, np.zeros((1, base.size)), base)[0][0]
        least = np.clip(np.zeros(base.size), block.low, block.high)
        starts = np.concatenate([base[None], likely[None], _raised(block, least), _raised(block, likely), tangents,
                                 _together(block, data, least)])
    theta, value, slope, count = _descend(block, data, kappa, beta, starts)
    tried, taken = len(theta), int(count.sum())
    scale = SAME * (data.c.sum() + abs(value.min()))
    order = np.argsort(value, kind="stable")
    near = order[np.concatenate([[True], np.diff(value[order]) > scale])][:search]
    best = theta[order[0]], value[order[0]], slope[order[0]]
    for i in near:
        here = theta[i], value[i], slope[i]
        for _ in range(MOST_ROUNDS):
            moved, after, slopes, count = _descend(block, data, kappa, beta, _flipped(block, here[0]))
            tried, taken, k = tried + len(moved), taken + int(count.sum()), int(np.argmin(after))
            if not after[k] < here[1] - scale:
                break
            here = moved[k], after[k], slopes[k]
        best = here if here[1] < best[1] else best
    bounds = np.array([best[1], lower, relaxed]) + data.constant
    return best[0], np.concatenate([bounds, [best[2], tried, taken]])


def _convex(block: Block, data: _Data, b: FloatArray, start: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Minimisers [S, d], values [S] and first-order gaps [S] of the likelihood plus b [S, d] theta."""
    theta, value, gap = np.repeat(start[None], len(b), axis=0), np.empty(len(b)), np.empty(len(b))
    kernels.minimise_convex(data.Z, data.c, frozen(b), block.low, block.high, theta, value, gap)
    return theta, value, gap


def _descend(block: Block, data: _Data, kappa: float, beta: float, starts: FloatArray):  # type: ignore[no-untyped-def]
    """CCCP from starts [S, d]: (theta [S, d], value [S], slope [S], tangents [S])."""
    theta, n = np.array(starts), len(starts)
    value, slope, count = np.empty(n), np.empty(n), np.empty(n, np.int64)
    kernels.minimise(
        data.Z, data.c, block.Phi, block.edges, block.ref, block.log_ref, data.m, kappa, beta, block.low, block.high,
        MOST_TANGENTS, theta, value, slope, count,
    )
    return theta, value, slope, count


def _evaluate(block: Block, data: _Data, kappa: float, beta: float, theta: FloatArray, value: FloatArray) -> None:
    x = frozen(np.ascontiguousarray(theta))
    kernels.evaluate(data.Z, data.c, block.Phi, block.edges, block.ref, block.log_ref, data.m, kappa, beta, x, value)


def _sums(block: Block, x: FloatArray) -> FloatArray:
    """Sums over the rows of each prompt: [X'] or [X', d]."""
    return np.add.reduceat(x, block.edges[:-1], axis=0)


def _certificate(
    block: Block, data: _Data, kappa: float, beta: float, base: FloatArray
) -> tuple[FloatArray, float, float]:
    """(minimisers of the linearised problems [S, d], lower bound of min F, L): both without the constant."""
    n, sizes = _sums(block, data.m), np.diff(block.edges)
    counted = data.m @ block.Phi
    mean = _sums(block, block.ref[:, None] * block.Phi)
    every = 1.0
    for k in sizes:
        every *= float(k)
    if every <= MOST_CHOICES:
        chosen = np.array(list(itertools.product(*(range(a, b) for a, b in itertools.pairwise(block.edges)))))
    else:
        chosen = np.empty((0, sizes.size), np.int64)
    at_one = np.einsum("x,kxd->kd", n, block.Phi[chosen])
    b = kappa * (counted - np.concatenate([(n @ mean)[None], at_one]))
    theta, value, gap = _convex(block, data, b, base)
    proven = value - gap
    ends = np.stack([block.Phi * block.low, block.Phi * block.high])
    top, least = ends.max(axis=0).sum(axis=1), ends.min(axis=0).sum(axis=1)
    span = np.maximum.reduceat(top, block.edges[:-1]) - np.minimum.reduceat(least, block.edges[:-1])
    with np.errstate(over="ignore"):
        lower = float(proven[0] - kappa * (n @ span**2) / (8.0 * beta))
    relaxed = np.inf
    if len(chosen):
        offset, loss = kappa * beta * (block.log_ref[chosen] @ n), kappa * beta * float(np.log(sizes) @ n)
        relaxed = float((value[1:] - offset).min())
        lower = max(lower, float((proven[1:] - offset).min()) - loss)
    if every > MOST_CHOICES:  # starts: one prompt at a response, the others at pi_ref
        of = np.repeat(np.arange(sizes.size), sizes)
        ahead = (n @ mean) + n[of, None] * (block.Phi - mean[of])
        theta = np.concatenate([theta, _convex(block, data, kappa * (counted - ahead), base)[0]])
    return theta, lower, relaxed


def _raised(block: Block, start: FloatArray) -> FloatArray:
    """[N, d]: the start with the features of each response at the ends that make its reward largest."""
    return np.where(block.Phi > 0.0, block.high, np.where(block.Phi < 0.0, block.low, start))


def _together(block: Block, data: _Data, base: FloatArray) -> FloatArray:
    """[N, d]: the responses of least count / pi_ref raised together, one more each time."""
    order = np.argsort(data.m / block.ref, kind="stable")
    up = np.cumsum(np.maximum(block.Phi, 0.0)[order], axis=0) > 0.0
    down = np.cumsum(np.maximum(-block.Phi, 0.0)[order], axis=0) > 0.0
    return np.where(up & ~down, block.high, np.where(down & ~up, block.low, base))


def _flipped(block: Block, theta: FloatArray) -> FloatArray:
    """[2 d, d]: one parameter at an end of its range."""
    out = np.repeat(theta[None], 2 * theta.size, axis=0)
    i = np.arange(theta.size)
    out[i, i], out[theta.size + i, i] = block.low, block.high
    return out
