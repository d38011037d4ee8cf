"""How kernels are compiled: one decorator, one cache directory, one list of all kernels.

numba's file cache notices an edit of the file a kernel stands in, but not an edit of a callee in another file: a stale
kernel then returns old numbers, silently. So the cache directory is keyed by everything that decides the machine code:
the text of every file in this folder, the numba and llvmlite versions, the CPU that numba compiles for with its features (the
host's, where NUMBA_CPU_NAME and NUMBA_CPU_FEATURES name no other), and numba's options. An edit anywhere in ``kernels/``
starts a fresh directory.

Where that directory lies, and whom it may belong to, says ``_cache``.

Callees are inlined, always. A callee that LLVM leaves as a function is there twice, as it was compiled for itself and as it
came out within the kernel, with sums in another order where reassociation is allowed; a process that compiles runs the one, a
process that loads from the cache the other, and the last bits differ.

A loop that sums (or multiplies up) floats stores nothing. Before a vectorised loop with a store LLVM checks at run time that
the arrays are not close to each other, and takes the scalar loop where they are: the elements come out the same, but a sum is
then added in another order, and its last bits depend on where the arrays happen to lie. A test reads the kernels for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numba
from numba.core import codegen, config, event

from mdpsim.kernels._cache import ForgivingCache, private_directory

# Never True: nnan and ninf would make isnan and isinf lie.
FASTMATH = frozenset({"contract", "reassoc", "nsz", "arcp"})

# Every kernel, in order of definition; a test asserts that each was compiled for one signature only.
KERNELS: list[Any] = []


# numba's own index of a cached kernel holds the target and none of these: under another option the old code is loaded.
_OPTIONS = ("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "USING_SVML", "DISABLE_JIT")


def target() -> str:
    """The CPU that kernels are compiled for: the host, where numba is not told another."""
    return llvm.get_host_cpu_name() if config.CPU_NAME is None else config.CPU_NAME


def _features() -> str:
    """The target's instruction sets. With a name alone numba keeps the host's, but for "generic", which has none."""
    return codegen.get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES


def fingerprint() -> str:
    """Hash of all that decides the machine code of the kernels (16 hex digits)."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update(f"{numba.__version__} {llvmlite.__version__} {target()} {_features()} ".encode())
    digest.update(" ".join(str(getattr(config, name, None)) for name in _OPTIONS).encode())
    return digest.hexdigest()[:16]


CACHE_DIRECTORY = private_directory(f"kernels-{fingerprint()}")


def _compile(function: Callable[..., Any], fastmath: Any, **options: Any) -> Any:
    """numba.njit with our cache directory, leaving the directory of the user's own numba code alone."""
    before = config.CACHE_DIR
    config.CACHE_DIR = CACHE_DIRECTORY
    try:
        flags = set(fastmath) if fastmath else False
        dispatcher = numba.njit(cache=True, error_model="numpy", fastmath=flags, **options)(function)
        if not config.DISABLE_JIT:
            dispatcher._cache = ForgivingCache(function)
        return dispatcher
    finally:
        config.CACHE_DIR = before


def kernel(function: Callable[..., Any]) -> Any:
    """Compile an entry kernel: read-only C-contiguous inputs, fresh writable outputs, one signature."""
    dispatcher = _compile(function, FASTMATH)
    KERNELS.append(dispatcher)
    return dispatcher


def parallel_kernel(function: Callable[..., Any]) -> Any:
    """Compile an entry kernel whose prange is divided among threads; never a reduction across them."""
    renamed = FunctionType(
        function.__code__, function.__globals__, f"{function.__name__}_threaded", function.__defaults__, function.__closure__
    )
    renamed.__module__, renamed.__doc__ = function.__module__, function.__doc__
    renamed.__qualname__ = renamed.__name__
    dispatcher = _compile(renamed, FASTMATH, parallel=True)
    KERNELS.append(dispatcher)
    return dispatcher


def exact(function: Callable[..., Any]) -> Any:
    """Compile a callee whose rounding must not be reordered (exp, log, compensated sums): contract only."""
    return _compile(function, {"contract"}, forceinline=True)


def rounded(function: Callable[..., Any]) -> Any:
    """Compile a callee in which every operation rounds by itself, not even fused: the same bits on every processor."""
    return _compile(function, (), forceinline=True)


def helper(function: Callable[..., Any]) -> Any:
    """Compile a callee of kernels (not an entry: its argument types follow its callers)."""
    return _compile(function, FASTMATH, forceinline=True)


def uncached() -> list[str]:
    """Kernels, as module.name, that no process has compiled yet for this fingerprint."""
    if config.DISABLE_JIT:
        return []
    there = {path.name.split("-")[0] for path in Path(CACHE_DIRECTORY).rglob("*.nbi")}
    names = [f"{k.py_func.__module__.rsplit('.', 1)[-1]}.{k.py_func.__name__}" for k in KERNELS]
    return [name for name in names if name not in there]


@contextmanager
def watch_compilation(callback: Callable[[], None]) -> Iterator[None]:
    """Call ``callback`` whenever this process starts to compile (a load from the cache is no compilation)."""

    class _Listener(event.Listener):
        def on_start(self, event: Any) -> None:
            callback()

        def on_end(self, event: Any) -> None:
            pass

    with event.install_listener("numba:compile", _Listener()):
        yield
