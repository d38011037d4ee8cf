r"""Projections of a law on sequences onto policy classes that do not contain it: forward and reverse KL.

Setting: p on sequences of L tokens, an array [V] * L. The Markov class of order k holds the laws
    q(x) = prod_t q_t(x_t | x_{t-k} .. x_{t-1}),   a table of its own for every position t;
order 0 is the factorised class, order L - 1 holds every law. The softmax class of features f holds base e^{theta . f} / Z.

* forward, min_q KL(p || q): maximum likelihood, unique. Markov: the conditionals of p's own windows. Softmax: E_q f = E_p f.
* reverse, min_q KL(q || p): variational inference, with local minima. Markov: coordinate descent, each table set to its exact
  minimiser q_t(a | c) ~ exp(-G_t(c, a)), G_t = E_q[sum_{s > t} log q_s - log p | c, a] (order 0: mean field), from many starts.

References: Bishop (2006), section 10.1; Korbak, Perez and Buckley (2022), section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.arrays import FloatArray, as_count, as_floats, as_numbers, as_simplex, axes_of, fail, frozen
from mdpsim.records import record
from mdpsim.rng import as_generator
from mdpsim.solve.sequence import fit_moments, kl

Direction = Literal["forward", "reverse"]
SWEEPS, STILL = 20_000, 1e-13
PATIENCE = 60
SAME = 1e-15  # divergences that differ by less are one
MAX_CELLS = 2**22


@record
class Projection(NamedTuple):
    """The member of a class closest to a law.

    pi: the member, of the law's shape. kl: the divergence that was minimised. residual: by how much one more round of the
    optimality conditions moves it (its largest probability or moment gap). found: [restarts] the divergence at the end of
    each start, sorted: their spread shows local minima.
    """

    pi: FloatArray
    kl: float
    residual: float
    found: FloatArray


@np.errstate(under="ignore")
def project_markov(
    p: ArrayLike, direction: Direction, *, order: int = 0, restarts: int = 50, rng: np.random.Generator | int = 0
) -> Projection:
    """Project a law on sequences onto the Markov class of an order (0: factorised).

    Args:
        p: [V] * L law of the sequences. direction: "forward", KL(p || q), or "reverse", KL(q || p).
        order: k in [0, L - 1]. restarts, rng: random starts of the reverse projection, beside the forward one. With none of
            them the forward projection's own end is returned: for a symmetric law it may be a saddle.
    Returns:
        Projection: pi of p's shape, kl, residual, found.
    Exactness: forward: closed form. Reverse: a fixed point (residual below 1e-13 where the sweeps suffice), the best found;
        where a minimum has just split in two KL is flat, and tells the tables to 1e-3 only.
    Cost: forward O(L V^L); reverse that times the sweeps and starts.
    Raises:
        ValueError: naming the argument; a reverse projection of a law with zeros (KL(q || p) is infinite but on a face).
    """
    where = "project_markov"
    law, k = _law(where, p), as_count(where, "order", order, low=0, high=max(axes_of(p) - 1, 0))
    tables = [_conditional(law, t, k) for t in range(law.ndim)]
    forward = _product(tables, k)
    if _is_forward(where, direction):
        return Projection(frozen(forward), _divergence(law, forward), 0.0, frozen(np.array([_divergence(law, forward)])))
    if (law == 0.0).any():
        fail(where, "p", "be positive for a reverse projection", "zeros")
    generator, log_p = as_generator(where, rng), np.log(law)
    starts = [tables] + [
        [generator.dirichlet(np.ones(t.shape[-1]), t.shape[:-1]) for t in tables]
        for _ in range(as_count(where, "restarts", restarts, low=0, high=10**6))
    ]
    ends = [_descend(start, log_p, k) for start in starts]
    values = np.array([_divergence(q, law) for q, _ in ends])
    best = min(np.flatnonzero(values <= values.min() + SAME), key=lambda i: ends[i][1])  # of equals the stillest
    return Projection(frozen(ends[best][0]), float(values[best]), ends[best][1], frozen(np.sort(values)))


@np.errstate(under="ignore")
def project_softmax(
    p: ArrayLike, features: ArrayLike, direction: Direction, *, base: ArrayLike | None = None,
    restarts: int = 20, rng: np.random.Generator | int = 0,
) -> Projection:
    """Project a law on K responses onto the class base e^{theta . f} / Z.

    Args:
        p: [K]. features: [K, m]. direction: "forward" or "reverse". base: [K], uniform if None.
        restarts, rng: normal starts of the reverse projection, besides theta = 0.
    Returns:
        Projection: pi [K], kl, residual (forward: largest moment gap; reverse: largest entry of the gradient), found.
    Cost: O(K m^2) a Newton step (forward); BFGS from each start (reverse; features in units of their range).
    Raises:
        ValueError: naming the argument; moments of p that the class reaches in the limit only; zeros of p (reverse).
    """
    where = "project_softmax"
    law = as_simplex(where, "p", p, "K", (None,))
    f = as_floats(where, "features", features, "K m", (law.size, None))
    root = np.full(law.size, 1.0 / law.size) if base is None else as_simplex(where, "base", base, "K", (law.size,))
    if _is_forward(where, direction):
        fit = fit_moments(root, f, law @ f)
        value = kl(law, fit.pi)
        return Projection(fit.pi, value, fit.residual, frozen(np.array([value])))
    if (law[root > 0.0] == 0.0).any():
        fail(where, "p", "be positive wherever base is, for a reverse projection", "zeros")
    return _reverse_softmax(law, f, root, as_count(where, "restarts", restarts, low=0, high=10**6), as_generator(where, rng))


def _reverse_softmax(law: FloatArray, f: FloatArray, root: FloatArray, restarts: int, rng: np.random.Generator) -> Projection:
    """min over theta of KL(q_theta || p) by BFGS; its gradient is Cov_q(f, log q / p)."""
    from scipy import optimize, special  # a quarter of a second: at the first call

    on = root > 0.0
    low, high = f[on].min(axis=0), f[on].max(axis=0)
    g = (f[on] - low) / np.where(high > low, high - low, 1.0)  # the same class; a unit for theta
    log_root, log_p = np.log(root[on]), np.log(law[on])

    def loss(theta: FloatArray) -> tuple[float, FloatArray]:
        log_q = special.log_softmax(log_root + g @ theta)
        q = np.exp(log_q)
        ratio = log_q - log_p
        value = float(q @ ratio)
        return value, (q * (ratio - value)) @ g

    starts = [np.zeros(f.shape[1]), *rng.standard_normal((restarts, f.shape[1]))]
    ends = [optimize.minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-12}) for start in starts]
    best = min(ends, key=lambda end: end.fun)
    pi = np.zeros(law.size)
    pi[on] = special.softmax(log_root + g @ best.x)
    found = np.sort(np.array([end.fun for end in ends]))
    return Projection(frozen(pi), kl(pi, law), float(np.abs(loss(best.x)[1]).max()), frozen(found))


def _law(where: str, p: ArrayLike) -> FloatArray:
    """A law [V] * L."""
    law = as_numbers(where, "p", p)
    if law.ndim == 0 or len(set(law.shape)) != 1 or law.size > MAX_CELLS:
        fail(where, "p", f"have L axes of one size V, at most {MAX_CELLS} entries", f"shape {law.shape}")
    return as_simplex(where, "p", law.reshape(-1), "V^L", (law.size,)).reshape(law.shape)


def _is_forward(where: str, direction: str) -> bool:
    if direction not in ("forward", "reverse"):
        fail(where, "direction", "be 'forward' or 'reverse'", repr(direction))
    return direction == "forward"


def _divergence(p: FloatArray, q: FloatArray) -> float:
    return kl(p.reshape(-1), q.reshape(-1))


def _conditional(law: FloatArray, t: int, k: int) -> FloatArray:
    """The conditional of token t given the k before it, [V] * (min(t, k) + 1); uniform where the context has no mass."""
    window = law.sum(axis=tuple(i for i in range(law.ndim) if not t - k <= i <= t))
    mass = window.sum(axis=-1, keepdims=True)
    return np.where(mass > 0.0, window / np.where(mass > 0.0, mass, 1.0), 1.0 / law.shape[0])


def _spread(table: FloatArray, t: int, length: int) -> FloatArray:
    """A table of the window that ends at t, broadcastable over all L axes."""
    first = t + 1 - table.ndim
    return table.reshape((1,) * first + table.shape + (1,) * (length - 1 - t))


def _product(tables: Sequence[FloatArray], k: int) -> FloatArray:
    """The law whose conditionals the tables are."""
    length = len(tables)
    law = np.ones((tables[0].shape[-1],) * length)
    for t, table in enumerate(tables):
        law = law * _spread(table, t, length)
    return law


def _descend(start: Sequence[FloatArray], log_p: FloatArray, k: int) -> tuple[FloatArray, float]:
    """(law, residual) of coordinate descent on KL(q || p) from given tables.

    Where a minimum has just split in two the sweeps converge like 1 / sqrt(their number). So where they keep a direction and a
    rate, the limit of that geometric series is taken (Aitken) unless KL is higher there; and a start whose KL stands still for
    ``PATIENCE`` sweeps has ended.
    """
    logs, before, moved, best = [np.log(np.maximum(t, 1e-300)) for t in start], np.empty(0), np.inf, np.inf
    for sweep in range(SWEEPS):
        old, logs = logs, list(logs)
        for t in range(len(logs)):
            logs[t] = _minimiser(logs, log_p, t)
        moved = max(float(np.abs(np.exp(x) - np.exp(y)).max()) for x, y in zip(logs, old, strict=True))
        if moved <= STILL:
            break
        if sweep % PATIENCE == PATIENCE - 1:
            value = _reverse(logs, log_p)
            if value > best - SAME:
                break
            best = value
        step = np.concatenate([(x - y).reshape(-1) for x, y in zip(logs, old, strict=True)])
        both = float(step @ before) if before.size else 0.0
        rate = both / float(before @ before) if both > 0.0 else 0.0
        if 0.5 < rate < 1.0 and both > 0.999 * float(np.linalg.norm(step) * np.linalg.norm(before)):
            far = [_logs(x + rate / (1.0 - rate) * (x - y)) for x, y in zip(logs, old, strict=True)]
            if _reverse(far, log_p) <= _reverse(logs, log_p) + SAME:
                logs, step = far, np.empty(0)
        before = step
    return _product([np.exp(x) for x in logs], k), moved


def _minimiser(logs: Sequence[FloatArray], log_p: FloatArray, t: int) -> FloatArray:
    """log q_t that minimises KL(q || p) with the other tables as they are; a context without mass keeps a uniform row."""
    length = log_p.ndim
    others, later = np.zeros(log_p.shape), -log_p
    for s, table in enumerate(logs):
        if s != t:
            others = others + _spread(table, s, length)
        if s > t:
            later = later + _spread(table, s, length)
    weight = np.exp(others)
    outside = tuple(i for i in range(length) if not t + 1 - logs[t].ndim <= i <= t)
    mass, cost = weight.sum(axis=outside), (weight * later).sum(axis=outside)
    x = np.where(mass > 0.0, -cost / np.where(mass > 0.0, mass, 1.0), 0.0)
    return _logs(x)


def _logs(x: FloatArray) -> FloatArray:
    """x less the logarithm of the sum of e^x along the last axis."""
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def _reverse(logs: Sequence[FloatArray], log_p: FloatArray) -> float:
    """KL(q || p) of the tables log q."""
    log_q = np.zeros(log_p.shape)
    for t, table in enumerate(logs):
        log_q = log_q + _spread(table, t, log_p.ndim)
    return float((np.exp(log_q) * (log_q - log_p)).sum())
