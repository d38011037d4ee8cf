"""Kernels of rollout: bit for bit against a plain scan, and the stream against what is claimed of it.

False-alarm level: ALPHA for each statistical test, split evenly (Bonferroni) over what it looks at.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mdpsim.kernels import pcg64, rollout
from mdpsim.mdp.forms import NO_REWARDS
from mdpsim.rng import generator, pcg64_stream

ALPHA = 1e-4
KEY = (np.uint64(0x0123456789ABCDEF), np.uint64(0xFEDCBA9876543210))
GOLDEN = 0x9E3779B97F4A7C15
HELPERS = ["mix", "stream_start", "stream_uniform", "tabulate", "locate", "scan", "power_of_two", "guide_width", "act", "move"]
HELPERS += ["tables", "begin", "roll", "split", "deal", "deal_space", "forward", "roll_episodes", "roll_counts"]
HELPERS += ["uniform", "binomial"]
rng = np.random.default_rng


@pytest.fixture
def plain(monkeypatch):
    """Every kernel and callee of rollout, and of pcg64, as plain Python."""
    for name in HELPERS:
        monkeypatch.setattr(rollout, name, getattr(rollout, name).py_func)
    for name, value in list(vars(pcg64).items()):
        if hasattr(value, "py_func"):
            monkeypatch.setattr(pcg64, name, value.py_func)
    with np.errstate(over="ignore"):  # uint64 wraps: that is the arithmetic of the stream
        yield


# ---- twins: numpy for the stream, a plain scan for the rows


def mix(x):
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def starts(n, key=KEY):
    episode = np.arange(n, dtype=np.uint64)
    return mix(mix(key[0] + np.uint64(GOLDEN) * episode) ^ key[1])


def uniforms(n, length, start=None):
    """[n, length] numbers of the stream, from hashed starts unless others are given."""
    start = starts(n) if start is None else start
    t = np.arange(1, length + 1, dtype=np.uint64)
    return (mix(start[:, None] + np.uint64(GOLDEN) * t) >> np.uint64(11)) * 2.0**-53


def scan(p, u):
    total, last = 0.0, None
    for j, x in enumerate(p):
        total += x
        if x > 0:
            last = j
            if u < total:
                return j
    return last


def roll(P, r, pi, mu0, n):
    """Plain twin of roll_episodes."""
    H = pi.shape[0]
    u = uniforms(n, 2 * H + 1)
    states, actions, rewards = np.zeros((n, H + 1), int), np.zeros((n, H), int), np.zeros((n, H))
    for e in range(n):
        states[e, 0] = s = scan(mu0, u[e, 0])
        for h in range(H):
            a = scan(pi[h, s], u[e, 2 * h + 1])
            actions[e, h], rewards[e, h] = a, r[h % r.shape[0], s, a]
            s = states[e, h + 1] = scan(P[h % P.shape[0], s, a], u[e, 2 * h + 2])
    return states, actions, rewards


def rows(generator, *shape, zeros=0.3):
    """Random rows with zeros in them, not renormalised beyond one division."""
    p = generator.exponential(size=shape) * (generator.random(shape) > zeros)
    p[..., generator.integers(shape[-1])] += 0.1
    p /= p.sum(axis=-1, keepdims=True)
    p.flags.writeable = False
    return p


def instance(seed, S, A, H, stages=None):
    generator = rng(seed)
    P = rows(generator, stages or H, S, A, S)
    r = generator.random((stages or H, S, A))
    r.flags.writeable = False
    return P, r, rows(generator, H, S, A), rows(generator, 1, S)


def roll_compiled(P, r, pi, mu0, n):
    H, S = pi.shape[:2]
    out = np.zeros((n, H + 1), np.int64), np.zeros((n, H), np.int64), np.zeros((n, H))
    guide = np.zeros((*P.shape[:3], int(rollout.guide_width(S))), np.int32)
    rollout.roll_episodes(P, r, NO_REWARDS, pi, mu0, *KEY, np.empty(P.shape), guide, *out)
    return out


SHAPES = [(5, 3, 4, None), (5, 3, 4, 1), (1, 1, 1, None), (1, 4, 2, None), (33, 2, 3, None), (70, 2, 2, 1), (300, 1, 9, 1)]


@pytest.mark.parametrize(("S", "A", "H", "stages"), SHAPES)
def test_episodes_equal_a_plain_scan(S, A, H, stages):
    model = instance(S, S, A, H, stages)
    n = 1100  # more than one block, and rows of P both scanned and tabulated
    P, r, pi, mu0 = model
    for got, want in zip(roll_compiled(*model, n), roll(P, r, pi, mu0[0], n), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("stages", [None, 1])
def test_episodes_as_plain_python(plain, stages):
    model = instance(6, 4, 3, 3, stages)
    P, r, pi, mu0 = model
    for got, want in zip(roll_compiled(*model, 40), roll(P, r, pi, mu0[0], 40), strict=True):
        np.testing.assert_array_equal(got, want)


def hostile(p):
    """Numbers at and next to every partial sum, the cell edges, and both ends of [0, 1)."""
    sums = np.concatenate([np.cumsum(p), np.arange(64) / 64, [1 - 2.0**-53]])
    u = np.concatenate([sums, np.nextafter(sums, 0), np.nextafter(sums, 1)])
    return u[(u >= 0) & (u < 1)]


HOSTILE = [
    [0.0, 1.0], [1.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.1] * 10 + [0.0] * 3, [0.0] + [1 / 3] * 3 + [0.0],
    [1e-300, 1.0, 0.0], [1.0, 5e-324], [0.5, 1e-17, 0.5], [1.0], [0.7, 0.1, 0.1, 0.1, 0.0], [1 / 49] * 49 + [0.0],
]


def draw(p, u):
    """By tables, after a check that the scan says the same."""
    p = np.array([p])
    sums, guide = np.empty(p.shape), np.empty((1, int(rollout.guide_width(p.shape[1]))), np.int32)
    rollout.tabulate(p, 0, sums, guide)
    got = [int(rollout.locate(0, float(x), sums, guide)) for x in u]
    assert got == [int(rollout.scan(p, 0, float(x))) for x in u]
    return got


def test_guides_are_powers_of_two():
    """Otherwise u * width is not exact, and a search could start too late."""
    for n in range(1, 700):
        assert int(rollout.guide_width(n)).bit_count() == 1
        assert int(rollout.power_of_two(n)).bit_count() == 1
        assert n <= rollout.power_of_two(n) < 2 * n


@pytest.mark.parametrize("p", HOSTILE)
def test_hostile_rows(p):
    u = hostile(p)
    got = draw(p, u)
    assert got == [scan(p, x) for x in u]
    assert all(p[j] > 0 for j in got)


def test_hostile_rows_as_plain_python(plain):
    for p in HOSTILE:
        assert draw(p, hostile(p)) == [scan(p, x) for x in hostile(p)]


def test_rounded_sum_below_one_falls_to_the_last_positive_entry():
    p = [0.1] * 10 + [0.0] * 3
    u = 1 - 2.0**-53
    assert np.cumsum(p)[-1] <= u  # otherwise this tests nothing
    assert draw(p, [u]) == [9]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40).filter(lambda x: sum(x) > 1e-3))
def test_any_row(weights):
    p = np.array(weights) / sum(weights)
    u = hostile(p)
    assert draw(p, u) == [scan(p, x) for x in u]


# ---- the stream


def chi_square_p(observed, expected):
    return stats.chi2.sf(((observed - expected) ** 2 / expected).sum(), observed.size - 1)


def pair_p(x, y, cells=16):
    """p-value of the pairs (x, y) against the uniform law on the square."""
    where = (x * cells).astype(int) * cells + (y * cells).astype(int)
    observed = np.bincount(where.ravel(), minlength=cells * cells)
    return chi_square_p(observed, where.size / cells**2)


def correlation_p(x, y):
    """Two-sided p-value of the mean of (x - 1/2)(y - 1/2), of variance 1/144 under independence."""
    z = ((x - 0.5) * (y - 0.5)).sum() * 12 / np.sqrt(x.size)
    return 2 * stats.norm.sf(abs(z))


def stream_p(u):
    """Smallest p-value over serial and cross-episode looks at u [n, T], times their number."""
    observed = np.bincount((u * 256).astype(int).ravel(), minlength=256)
    p = [pair_p(u[:, :-1], u[:, 1:]), chi_square_p(observed, u.size / 256)]
    for lag in (1, 2, 3, 7):
        p.append(correlation_p(u[:, :-lag], u[:, lag:]))
    for step in (1, 2, 3, 64, 1000):  # episodes e and e + step
        p += [pair_p(u[:-step], u[step:]), correlation_p(u[:-step], u[step:])]
        p.append(correlation_p(u[:-step, 1:], u[step:, :-1]))  # shifted in time: starts too near on the cycle
        p.append(correlation_p(u[:-step, :-1], u[step:, 1:]))
    return min(p) * len(p)


def test_stream_passes_and_unhashed_starts_do_not():
    n, length = 20_000, 21
    assert stream_p(uniforms(n, length)) > ALPHA
    episode = np.arange(n, dtype=np.uint64)
    assert stream_p(uniforms(n, length, KEY[0] + np.uint64(GOLDEN) * episode)) < ALPHA  # pieces of the cycle overlap
    position = episode[:, None] * np.uint64(length) + np.arange(length, dtype=np.uint64)
    assert stream_p(((KEY[0] + np.uint64(GOLDEN) * position) >> np.uint64(11)) * 2.0**-53) < ALPHA  # nothing mixed


def test_close_keys_give_unrelated_streams():
    n, length = 20_000, 11
    u = uniforms(n, length)
    near = [(KEY[0] + np.uint64(1), KEY[1]), (KEY[0], KEY[1] + np.uint64(1)), (KEY[1], KEY[0])]
    p = [test(u, uniforms(n, length, starts(n, key))) for key in near for test in (pair_p, correlation_p)]
    assert min(p) * len(p) > ALPHA


def test_starts_are_spread_over_the_cycle():
    n, cells = 100_000, 256
    place = np.sort(starts(n) * np.uint64(pow(GOLDEN, -1, 2**64)))  # position of each start on the cycle
    assert np.unique(place).size == n
    observed = np.bincount((place >> np.uint64(56)).astype(int), minlength=cells)
    assert chi_square_p(observed, n / cells) > ALPHA
    gap = float(np.diff(place).min())  # about exponential with mean 2^64 / n^2
    assert -np.expm1(-gap * n**2 / 2.0**64) > ALPHA


def test_stream_helpers_are_the_twin():
    for e in (0, 1, 7, 2**40):
        start = mix(mix(np.array([KEY[0]]) + np.uint64(GOLDEN) * np.array([e], np.uint64)) ^ KEY[1])
        assert rollout.stream_start(*KEY, np.uint64(e)) == start[0]
        for t in (0, 5):
            assert rollout.stream_uniform(start[0], np.uint64(t)) == uniforms(1, t + 1, start)[0, t]


# ---- multinomials by a tree


def split(p, n, rng):
    width = int(rollout.power_of_two(len(p)))
    mass, number = np.empty(2 * width), np.empty(2 * width, np.int64)
    with pcg64_stream(rng) as stream:
        rollout.split(np.array(p), n, stream, mass, number)
    assert (number[width + len(p) :] == 0).all()
    return number[width : width + len(p)].copy()


def multinomial_p(x, n, p):
    """p-value of draws x [R, C] against Mult(n, p): every marginal by chi-square, every covariance by its z score."""
    R, C = x.shape
    values = []
    for j in range(C):
        edges = np.unique(stats.binom.ppf(np.linspace(0.05, 0.95, 10), n, p[j])).astype(int)
        law = np.diff(np.concatenate([[0.0], stats.binom.cdf(edges, n, p[j]), [1.0]]))
        observed = np.bincount(np.searchsorted(edges, x[:, j]), minlength=law.size)
        possible = law > 1e-12
        assert observed[~possible].sum() == 0
        values.append(chi_square_p(observed[possible], R * law[possible]))
    centred = x - n * np.asarray(p)
    for i in range(C):
        for j in range(i):
            product = centred[:, i] * centred[:, j]
            z = (product.mean() + n * p[i] * p[j]) / (product.std() / np.sqrt(R))
            values.append(2 * stats.norm.sf(abs(z)))
    return min(values) * len(values)


@pytest.mark.parametrize("n", [1, 3, 40, 1000, 10**9])
def test_split_is_multinomial(n):
    p = [0.35, 0.05, 0.2, 0.3, 0.1]
    generator = rng(n)
    x = np.array([split(p, n, generator) for _ in range(4000)])
    assert (x.sum(axis=1) == n).all()
    assert multinomial_p(x, n, p) > ALPHA
    if n == 1000:  # negative controls: probabilities off by 2%, and independent counts
        assert multinomial_p(x, n, [0.357, 0.05, 0.193, 0.3, 0.1]) < ALPHA
        assert multinomial_p(generator.binomial(n, p, size=x.shape), n, p) < ALPHA


def test_split_gives_nothing_to_probability_zero():
    for p in ([0.1] * 10 + [0.0] * 3, [0.0, 1 / 3, 0.0, 1 / 3, 1 / 3, 0.0], [0.0, 0.0, 1.0], [0.49, 0.49, 0.02, 0.0]):
        x = sum(split(p, 10**12, rng(i)) for i in range(50))
        assert (x[np.array(p) == 0] == 0).all()
        assert (x[np.array(p) > 0] > 0).all()


def test_counts_as_plain_python_draw_the_same(request):
    """Both versions of the kernel agree count for count."""
    P, _, pi, mu0 = instance(8, 4, 3, 3)
    fast, drawn = rollout.roll_counts, {}
    for n in (1, 30, 400):
        drawn[n] = np.zeros((3, 4, 3), np.int64)
        with pcg64_stream(generator(n)) as stream:
            fast(P, pi, mu0, n, stream, drawn[n])
        assert (drawn[n].sum(axis=(1, 2)) == n).all()
    request.getfixturevalue("plain")
    assert rollout.roll_counts is not fast
    for n, compiled in drawn.items():
        slow = np.zeros((3, 4, 3), np.int64)
        with pcg64_stream(generator(n)) as stream:
            rollout.roll_counts(P, pi, mu0, n, stream, slow)
        np.testing.assert_array_equal(slow, compiled)
