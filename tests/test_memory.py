"""Blocks for large results: never shared by arrays that live, used again afterwards, bounded."""

from __future__ import annotations

import gc
import random
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from mdpsim import memory
from mdpsim.mdp import families
from mdpsim.solve.exact import solve_soft

BIG = memory.SMALL // 8  # float64 entries of the smallest block that is lent


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    """Start and end without blocks."""

    def drop() -> None:
        gc.collect()
        memory._free.clear()
        memory._kept = 0

    drop()
    yield
    drop()


def address(x: np.ndarray) -> int:
    return x.__array_interface__["data"][0]


@pytest.mark.parametrize(("shape", "dtype"), [(3, float), ((2, BIG), float), ((4, BIG), np.int32), ((BIG, 0), float)])
def test_is_an_ordinary_empty_array(shape, dtype):
    """Type, shape, dtype, order and writability are those of numpy.empty."""
    x, expected = memory.empty(shape, dtype), np.empty(shape, dtype)
    assert type(x) is np.ndarray
    assert (x.shape, x.dtype) == (expected.shape, expected.dtype)
    assert all((x.flags.c_contiguous, x.flags.writeable, x.flags.aligned))


def test_a_block_is_used_again_only_when_its_last_view_is_gone():
    """A slice, a transpose and a read-only view each keep the block; after them the next array gets it."""
    x = memory.empty((2, BIG))
    where = address(x)
    for view in (x[1:], x.T, x.view(np.int64), x.reshape(-1)[5:6]):
        kept = view
    del x, view
    assert memory._free == {}
    assert not np.shares_memory(memory.empty((2, BIG)), kept)
    memory._free.clear()
    del kept
    assert address(memory.empty((2, BIG))) == where


def test_live_results_never_overlap_under_threads():
    """Four threads make and drop arrays at random; each finds in every array what it wrote there."""
    wrong = []

    def work(seed: int) -> None:
        choose, mine = random.Random(seed), []
        for step in range(400):
            x = memory.empty(BIG * choose.choice((1, 2)))
            x[:] = value = seed * 1000.0 + step
            mine.append((x, value))
            if len(mine) > 5:
                y, expected = mine.pop(choose.randrange(len(mine)))
                if not (y == expected).all():
                    wrong.append((seed, step))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    del threads
    gc.collect()
    assert memory._kept == sum(b.size for blocks in memory._free.values() for b in blocks) <= memory.KEPT


def test_kept_bytes_are_bounded():
    """The sizes used longest ago make room; a block larger than the bound is not kept at all."""
    for i in range(20):
        memory.empty(memory.KEPT // 64 + 8 * i)  # dropped at once
        assert memory._kept <= memory.KEPT
    assert len(memory._free) < 20
    assert memory.KEPT // 8 + 8 * 8 * 19 in memory._free
    memory.empty(memory.KEPT // 8 + 1)
    assert memory._kept <= memory.KEPT
    assert memory.KEPT + 8 not in memory._free


def test_a_solution_survives_the_solves_after_it():
    """What a user holds is not written to by later solves; a dropped solution's memory is found by the next."""
    mdp, ref = families.random_mdp(S=60, A=8, H=40, rng=0), families.uniform_policy(40, 60, 8)
    first = solve_soft(mdp, ref, 0.5)
    copies = [x.copy() for x in first]
    others = [solve_soft(mdp, ref, beta) for beta in (0.1, 2.0, 5.0)]
    assert all(np.array_equal(x, y) for x, y in zip(first, copies, strict=True))
    assert not any(np.shares_memory(first.Q, other.Q) for other in others)
    where = {address(others[-1].Q), address(others[-1].pi)}
    del others[-1]
    assert address(solve_soft(mdp, ref, 0.3).Q) in where


@pytest.mark.parametrize("size", [3, BIG, memory.WHOLE // 8, memory.WHOLE // 8 + 1])
def test_zeros_are_zero_in_a_block_that_was_used(size):
    used = memory.empty(size)
    used[:] = 7.0
    where = address(used)
    del used
    found = memory.zeros(size)
    assert not found.any()
    assert (found.shape, found.dtype) == ((size,), float)
    assert address(found) == where or not memory.SMALL <= 8 * size <= memory.WHOLE
