"""Key -> Generator: the only place in mdpsim where a random Generator is made.

A key is an integer hashed (SHA-256) from the canonical JSON of what a draw may depend on. Two keys that differ
anywhere give unrelated streams; the same key gives the same stream on every machine. Claims draw from
(claim id, the named subset of the point, seed K, trial i): never from the arm or the revision, so that a twin shares
its draws with the claim.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from mdpsim.arrays import as_count, fail


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, shortest round-trip floats, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: Any) -> bytes:
    """SHA-256 (32 bytes) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical(value).encode()).digest()


def key(*parts: Any) -> int:
    """128-bit key of the parts (str, int, float, lists and mappings of them)."""
    return int.from_bytes(digest(list(parts))[:16], "big")


def generator(seed: int) -> np.random.Generator:
    """Generator (PCG64) of an integer key or seed.

    Raises:
        ValueError: a seed that is no integer in [0, 2**128).
    """
    return np.random.Generator(np.random.PCG64(as_count("generator", "seed", seed, low=0, high=2**128 - 1)))


def words(seed: int) -> tuple[int, int]:
    """Two 64-bit words of an integer key or seed in [0, 2**128), for streams that a kernel keeps: its SHA-256."""
    hashed = hashlib.sha256(seed.to_bytes(16, "little")).digest()
    return int.from_bytes(hashed[:8], "little"), int.from_bytes(hashed[8:16], "little")


def as_generator(function: str, rng: Any) -> np.random.Generator:
    """Guard an ``rng`` argument: a numpy Generator, or an integer seed or a SeedSequence (which is left as it is) for one."""
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, np.random.SeedSequence):
        return np.random.Generator(np.random.PCG64(rng))
    if isinstance(rng, int | np.integer) and not isinstance(rng, bool) and rng >= 0:
        return generator(int(rng))
    return fail(function, "rng", "be a numpy.random.Generator or an integer seed >= 0 or SeedSequence", repr(rng))


@contextmanager
def pcg64_stream(rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The state of a Generator for a kernel to draw from (mdpsim/kernels/pcg64.py): uint64 [4], which it advances in place.

    A Generator over PCG64 is left where the kernel left the stream, as if it had drawn the numbers itself; where an exception
    ends the block (an interrupt), where it was before. Any other bit generator gives 128 bits, the seed of a fresh PCG64.
    """
    if not isinstance(rng.bit_generator, np.random.PCG64):
        high, low = rng.integers(0, 2**64, size=2, dtype=np.uint64)
        rng = generator(int(high) << 64 | int(low))
    bits, mask = rng.bit_generator, 2**64 - 1
    with bits.lock:
        state: Any = bits.state
        x, increment = state["state"]["state"], state["state"]["inc"]
        stream = np.array([x >> 64, x & mask, increment >> 64, increment & mask], dtype=np.uint64)
        yield stream
        state["state"]["state"] = int(stream[0]) << 64 | int(stream[1])
        bits.state = state
