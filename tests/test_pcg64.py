"""Kernels draw what a numpy Generator would, from the state alone; an interrupt at any moment is an exception, no crash.

False-alarm level: ALPHA for each statistical test, with a negative control that it must reject.
"""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from scipy import stats

from mdpsim.estimate.data import sample_counts
from mdpsim.kernels import linear, pcg64, rollout, successors
from mdpsim.mdp import families
from mdpsim.mdp.linear import LinearMDP
from mdpsim.mdp.successors import Successors
from mdpsim.mdp.tabular import MDP
from mdpsim.rng import generator, pcg64_stream

ALPHA = 1e-4
MENDED = tuple(int(x) for x in np.__version__.split(".")[:2]) >= (2, 5)  # numpy whose BTPE has the paper's constants
KERNELS = Path(inspect.getfile(pcg64)).parent


@pytest.fixture
def plain(monkeypatch):
    """pcg64 and the samplers as plain Python."""
    for module in (pcg64, rollout, successors, linear):
        for name, value in list(vars(module).items()):
            if hasattr(value, "py_func"):
                monkeypatch.setattr(module, name, value.py_func)
    with np.errstate(over="ignore"):  # words wrap: that is the arithmetic of the stream
        yield


@numba.njit
def fill(function, stream, out):
    for i in range(out.size):
        out[i] = function(stream)


@numba.njit
def fill_binomial(stream, n, p, out):
    for i in range(out.size):
        out[i] = pcg64.binomial(stream, n, p)


# ---- the generator


@pytest.mark.parametrize("seed", [0, 1, 2**64, 2**128 - 1])
def test_numbers_and_state_are_numpys(seed):
    ours, numpys = generator(seed), generator(seed)
    ours.integers(2**32, dtype=np.uint32), numpys.integers(2**32, dtype=np.uint32)  # leaves half a word behind
    words, numbers = np.empty(500, np.uint64), np.empty(500)
    with pcg64_stream(ours) as stream:
        fill(pcg64.word, stream, words)
        fill(pcg64.uniform, stream, numbers)
    np.testing.assert_array_equal(words, numpys.bit_generator.random_raw(500))
    np.testing.assert_array_equal(numbers, numpys.random(500))
    assert ours.bit_generator.state == numpys.bit_generator.state
    assert ours.bit_generator.state["has_uint32"] == 1  # and the half is still there
    np.testing.assert_array_equal(ours.random(10), numpys.random(10))


def test_numbers_as_plain_python(plain):
    ours, numpys = generator(3), generator(3)
    with pcg64_stream(ours) as stream:
        numbers = [pcg64.uniform(stream) for _ in range(300)]
    np.testing.assert_array_equal(numbers, numpys.random(300))
    assert ours.bit_generator.state == numpys.bit_generator.state


@pytest.mark.parametrize("x", [0, 1, 2**32 - 1, 2**32, 2**63 + 12345, 2**64 - 1])
def test_high_words_are_those_of_whole_products(x):
    for y in (0, 1, 2**31, 0x4385DF649FCCF645, 2**64 - 2**32, 2**64 - 1):
        assert int(pcg64.high_word(np.uint64(x), np.uint64(y))) == x * y >> 64


def test_an_exception_leaves_the_generator_where_it_was():
    rng, other = generator(0), generator(0)

    def interrupted():
        with pcg64_stream(rng) as stream:
            fill(pcg64.uniform, stream, np.empty(3))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert rng.bit_generator.state == other.bit_generator.state
    assert rng.bit_generator.lock.acquire(blocking=False)  # and unlocked
    rng.bit_generator.lock.release()


@pytest.mark.parametrize("kind", ["MT19937", "Philox", "SFC64", "PCG64DXSM"])
def test_other_bit_generators_seed_a_stream(kind):
    mdp, pi = families.random_mdp(S=3, A=2, H=3, rng=0), families.uniform_policy(3, 3, 2)
    rng, other = (np.random.Generator(getattr(np.random, kind)(5)) for _ in range(2))
    found = [sample_counts(mdp, pi, 1000, rng).visits for _ in range(2)]
    for visits in found:
        high, low = (int(x) for x in other.integers(0, 2**64, size=2, dtype=np.uint64))
        np.testing.assert_array_equal(visits, sample_counts(mdp, pi, 1000, generator((high << 64) + low)).visits)
    assert rng.random() == other.random()
    assert (found[0] != found[1]).any()


# ---- binomials

PROBABILITIES = [0.0, 1e-300, 1e-9, 1e-4, 0.01, 0.1, 0.25, 1 / 3, 0.499, 0.5]


@pytest.mark.parametrize("n", [0, 1, 2, 10, 30, 60, 61, 100, 301, 1000, 30_001, 10**6, 10**7])
def test_binomials_are_numpys_bit_for_bit(n):
    """Up to n = 10^7: beyond, a last bit of a logarithm or of a fused product may steer one integer in 1e8."""
    for p in PROBABILITIES:
        if not MENDED and n * p > 30:
            continue
        ours, numpys = generator(n), generator(n)
        out = np.empty(400, np.int64)
        with pcg64_stream(ours) as stream:
            fill_binomial(stream, n, p, out)
        np.testing.assert_array_equal(out, numpys.binomial(n, p, size=400))
        assert ours.bit_generator.state == numpys.bit_generator.state


def test_binomials_as_plain_python(plain):
    for n, p in [(7, 0.2), (200, 0.1), (100, 0.5), (10**4, 0.3), (10**6, 0.5)]:
        if not MENDED and n * p > 30:
            continue
        ours, numpys = generator(n), generator(n)
        with pcg64_stream(ours) as stream:
            found = [pcg64.binomial(stream, n, p) for _ in range(200)]
        np.testing.assert_array_equal(found, numpys.binomial(n, p, size=200))
        assert ours.bit_generator.state == numpys.bit_generator.state


def law_p(draws, n, p):
    """Chi-square p-value of draws against Binomial(n, p) over cells of about equal mass."""
    edges = np.unique(stats.binom.ppf(np.linspace(0.0, 1.0, 26)[1:-1], n, p))
    law = np.diff(np.concatenate([[0.0], stats.binom.cdf(edges, n, p), [1.0]]))
    observed = np.bincount(np.searchsorted(edges, draws), minlength=law.size)
    assert observed[law < 1e-12].sum() == 0
    return stats.chisquare(observed[law >= 1e-12], draws.size * law[law >= 1e-12]).pvalue


LAWS = [(1, 0.3), (5, 0.5), (60, 0.5), (300, 0.1), (100, 0.4), (500, 0.5), (10**4, 0.3), (10**6, 1e-3), (10**9, 0.2)]


@pytest.mark.parametrize(("n", "p"), LAWS)
def test_binomials_have_their_law(n, p):
    out = np.empty(100_000, np.int64)
    with pcg64_stream(generator(17)) as stream:
        fill_binomial(stream, n, p, out)
    assert law_p(out, n, p) > ALPHA
    off = p + 0.03 * np.sqrt(p * (1 - p) / n)  # 0.03 standard deviations: 9.5 of the mean of the draws
    assert law_p(out, n, off) < ALPHA


def kept(n, p):
    """(y, what is kept of each y in proportion): the largest v that is not rejected, by bisection; and the law at y."""
    mode, sd = int(np.floor(n * p + p)), np.sqrt(n * p * (1 - p))
    y = np.arange(max(0, int(mode - 9 * sd)), min(n, int(mode + 9 * sd)) + 1)
    top = []
    for at in y:
        low, high = 0.0, 2.0
        for _ in range(45):
            v = 0.5 * (low + high)
            low, high = (low, v) if pcg64._rejected(v, int(at), n, mode, p) else (v, high)
        top.append(low)
    law = stats.binom.pmf(y, n, p)
    return np.array(top) / sum(top), law / law.sum()


@pytest.mark.parametrize(("n", "p"), [(125, 0.4), (1000, 0.3), (4000, 0.05), (1100, 0.5), (16_000, 0.5)])
def test_what_is_kept_is_the_law(n, p, monkeypatch):
    """In total variation, without drawing anything; what numpy had before 2.5 is seen."""
    found, law = kept(n, p)
    assert 0.5 * np.abs(found - law).sum() < 1e-9
    if n == 125:  # recursion everywhere: no series
        return
    with monkeypatch.context() as patch:
        patch.setattr(pcg64, "_above_stirling", wrong_signs)
        patch.setattr(pcg64, "_rejected", pcg64._rejected.py_func)
        found, law = kept(n, p)
    assert 0.5 * np.abs(found - law).sum() > 1e-6


def wrong_signs(log_v, y, n, mode, p):
    """``_above_stirling`` as numpy had it."""
    after, first, rest, other = float(y + 1), float(mode + 1), float(n + 1 - mode), float(n - y + 1)
    power = (mode + 0.5) * np.log(first / after) + (n - mode + 0.5) * np.log(rest / other)
    power += (y - mode) * np.log(other * p / (after * (1.0 - p)))
    return log_v > power + sum(map(pcg64._stirling.py_func, (first, rest, after, other)))


# ---- counts


def models():
    dense = families.random_mdp(S=4, A=3, H=3, rng=0)
    ids = np.broadcast_to(np.arange(4)[::-1], dense.P.shape)
    draw = np.random.default_rng(1)
    mu, phi = draw.dirichlet(np.ones(5), (3, 4)), draw.dirichlet(np.ones(4), (5, 3))
    return {
        "dense": dense, "sparse": MDP(Successors(ids, dense.P[..., ::-1]), dense.r, dense.mu0),
        "linear": LinearMDP(phi, mu, draw.random((3, 4)), draw.dirichlet(np.ones(5))),
    }


@pytest.mark.parametrize("which", ["dense", "sparse", "linear"])
def test_counts_are_those_of_a_generator(which, plain, monkeypatch):
    """The samplers as plain Python on numpy's own Generator, against the compiled ones on its state: counts and final state."""
    mdp = models()[which]
    pi = families.random_policy(H=mdp.H, S=mdp.S, A=mdp.A, rng=2)
    sizes = (1, 11, 12, 13, 40, 60, *((200, 5000, 10**6) if MENDED else ()))  # the lighter child has at most half of 60
    numpys = {n: generator(n) for n in sizes}
    expected = {}
    for n, rng in numpys.items():
        with monkeypatch.context() as patch:
            patch.setattr(rollout, "binomial", lambda _, k, p, rng=rng: rng.binomial(k, p))
            patch.setattr(rollout, "uniform", lambda _, rng=rng: rng.random())
            expected[n] = [sample_counts(mdp, pi, n, 0).visits for _ in range(3)]
    monkeypatch.undo()  # compiled again
    assert hasattr(rollout.roll_counts, "py_func")
    for n, rng in numpys.items():
        ours = generator(n)
        np.testing.assert_array_equal([sample_counts(mdp, pi, n, ours).visits for _ in range(3)], expected[n])
        assert ours.bit_generator.state == rng.bit_generator.state


# ---- no Generator in a kernel, and what that is for


def generators_in(source: str) -> list[str]:
    """What in a kernel's file smells of a Generator: parameters and names, and methods that draw."""
    methods = {name for name in dir(np.random.Generator) if not name.startswith("_")} - {"choice", "shuffle", "spawn"}
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.arg | ast.Name):
            name = node.arg if isinstance(node, ast.arg) else node.id
            found += [name] * (name in ("rng", "generator", "gen", "bit_generator"))
        elif isinstance(node, ast.Attribute):
            found += [node.attr] * (node.attr in methods or node.attr in ("bit_generator", "Generator"))
    return found


@pytest.mark.parametrize("path", sorted(KERNELS.glob("*.py")), ids=lambda p: p.name)
def test_no_kernel_takes_a_generator(path):
    assert generators_in(path.read_text()) == []


def test_a_generator_in_a_kernel_is_seen():
    assert generators_in("def f(rng):\n    return 1\n") == ["rng"]
    assert generators_in("def f(x):\n    return x.binomial(3, 0.5) + np.random.random()\n") == ["binomial", "random", "random"]


INTERRUPTED = """
import signal, time
import numpy as np
import mdpsim
from mdpsim.mdp import families

mdp, pi, rng = families.random_mdp(S=5, A=3, H=4, rng=0), families.uniform_policy(4, 5, 3), np.random.default_rng(0)
mdpsim.sample_counts(mdp, pi, 10, rng)

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
hits, k, end = 0, 0, time.monotonic() + 8.0
while time.monotonic() < end:
    k += 1
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-4 + (k % 97) * 1e-6)
        for _ in range(10_000):
            mdpsim.sample_counts(mdp, pi, 10, rng)
    except KeyboardInterrupt:
        hits += 1
print("survived", hits)
"""


@pytest.mark.skipif(not hasattr(__import__("signal"), "setitimer"), reason="needs timers that signal")
def test_interrupts_end_no_process(root):
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr}"
    assert done.stdout.startswith("survived")
    assert int(done.stdout.split()[1]) > 100
