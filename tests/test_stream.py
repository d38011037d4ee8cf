"""Products with rows: every form gives the same sums to rounding, in the caches and beyond, compiled and as plain Python."""

from __future__ import annotations

import numpy as np
import pytest

import mdpsim
from mdpsim.kernels import _stream
from mdpsim.kernels._jit import kernel
from tolerances import EPS

SHAPES = [(1, 1), (2, 3), (3, 64), (4, 65), (7, 5), (8, 300), (13, 66), (33, 8)]  # n rows of m numbers, on both sides of SHORT


@kernel
def all_products(rows, v, k, base, chosen, weight, far, out):
    """The three products of ``_stream``, one below the other in out [6, max(n, m)]."""
    n, m = rows.shape
    _stream.products(rows, v, base, out[0, :n], far)
    _stream.products(rows, v, None, out[1, :n], far)
    _stream.paired_products(rows, v, k, base, out[2, :n], out[3, :n], far)
    _stream.paired_products(rows, v, k, None, out[4, :n], out[3, :n], far)
    out[5, :m] = 0.0
    _stream.add_rows(rows, chosen, weight, chosen.size - 3, out[5, :m], far)


@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("plain", [False, True], ids=["compiled", "python"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_with_rows(shape, plain, far, monkeypatch):
    n, m = shape
    rng = np.random.default_rng(n * m)
    rows, v, k, base = rng.random(shape), rng.standard_normal(m), rng.standard_normal(m), rng.standard_normal(n)
    some = np.flatnonzero(rng.random(n) < 0.7)
    chosen, weight = np.append(some, [0, 0, 0]), np.append(rng.random(some.size), [9.0, 9.0, 9.0])
    out = np.full((6, max(n, m)), np.nan)
    if plain:
        for name in ("products", "paired_products", "add_rows", "fetch_ahead"):
            monkeypatch.setattr(_stream, name, getattr(_stream, name).py_func)
    (all_products.py_func if plain else all_products)(rows, v, k, base, chosen, weight, far, out)
    tolerance = (n + m) * EPS * (np.abs(rows).max() * max(np.abs(v).max(), np.abs(k).max(), 1.0) * max(n, m))
    for found, expected in ((out[0], base + rows @ v), (out[1], rows @ v), (out[2], base + rows @ v), (out[3], rows @ k),
                            (out[4], rows @ v), (out[5], weight[:-3] @ rows[some])):
        assert found[: expected.size] == pytest.approx(expected, abs=tolerance)
        assert np.isnan(found[expected.size :]).all()


def test_the_size_alone_decides():
    assert not _stream.beyond_caches(np.empty(_stream.CACHED))
    assert _stream.beyond_caches(np.empty((1, _stream.CACHED + 1)))


@pytest.mark.parametrize("kind", ["dense", "linear"])
@pytest.mark.parametrize("S", [12, 190])
def test_solvers_beyond_the_caches(kind, S):
    """Soft and hard optimum, values, KL to go and occupancy by plain numpy, with dynamics on both sides of the caches' size."""
    rng = np.random.default_rng(S)
    H, A, d, beta = 5, 3, 70, 0.4
    if kind == "dense":
        P = rng.dirichlet(np.ones(S), (H, S, A))
        mdp = model = mdpsim.MDP(P, rng.random((H, S, A)), rng.dirichlet(np.ones(S)))
        beyond = P.size > _stream.CACHED
    else:
        phi, mu = rng.dirichlet(np.ones(d), (S * 4, A)), rng.dirichlet(np.ones(S * 4), (H, d))
        mdp = mdpsim.LinearMDP(phi, mu, rng.random((H, d)), rng.dirichlet(np.ones(S * 4)))
        model = mdp.to_tabular()
        beyond = max(phi.size, mu.size) > _stream.CACHED
    assert beyond == (S == 190)
    ref = rng.dirichlet(np.ones(A), (H, mdp.S))
    soft, hard = mdpsim.solve_soft(mdp, ref, beta), mdpsim.solve_hard(mdp)
    v, u, k, law = np.zeros(mdp.S), np.zeros(mdp.S), np.zeros(mdp.S), model.mu0
    for h in range(H - 1, -1, -1):
        q = model.r[h] + model.P[h] @ v
        weight = ref[h] * np.exp((q - q.max(axis=1, keepdims=True)) / beta)
        v = q.max(axis=1) + beta * np.log(weight.sum(axis=1))
        pi = weight / weight.sum(axis=1, keepdims=True)
        k = (pi * (np.log(pi / ref[h]) + model.P[h] @ k)).sum(axis=1)
        u = (model.r[h] + model.P[h] @ u).max(axis=1)
        np.testing.assert_allclose(soft.V[h], v, rtol=1e-12)
        np.testing.assert_allclose(hard.V[h], u, rtol=1e-12)
    value, occ = mdpsim.evaluate(mdp, soft.pi, pi_ref=ref, beta=beta), mdpsim.occupancy(mdp, soft.pi)
    np.testing.assert_allclose(value.V, soft.V, atol=1e-12)
    np.testing.assert_allclose(value.kl, model.mu0 @ k, rtol=1e-11)
    for h in range(H):
        np.testing.assert_allclose(occ[h], law, atol=1e-14)
        law = np.einsum("s,sa,sat->t", law, soft.pi[h], model.P[h])
