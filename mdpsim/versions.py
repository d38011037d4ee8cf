"""What produced a number: versions, and the platform fingerprint within which records are equal bit for bit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# The extras of pyproject.toml that a measure may import, each with the module that shows whether it is installed.
EXTRAS = {
    "lm": "torch", "hf": "transformers", "gym": "gymnasium", "cluster": "dask", "export": "pyarrow", "notebooks": "nbclient",
}
PACKAGES = ("mdpsim", "numpy", "scipy", "numba", "llvmlite")
OPTIONAL = ("torch",)  # computes for some claims, where it is installed
# Variables by which numpy, BLAS and torch are told to compute as on another processor; numba's are in the kernels' fingerprint.
STEERING = (
    "NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES", "OPENBLAS_CORETYPE", "ATEN_CPU_CAPABILITY",
    "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR", "ONEDNN_MAX_CPU_ISA",
)


@cache
def versions() -> dict[str, str]:
    """Versions of Python, mdpsim and what computes for it, and the fingerprint under "platform"; none is loaded."""
    found = {"python": platform.python_version()}
    for name in PACKAGES + OPTIONAL:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            if name in PACKAGES:
                found[name] = "not installed"
    if (revision := commit()) is not None:
        found["commit"] = revision
    found["platform"] = fingerprint()
    return found


@cache
def fingerprint() -> str:
    """Host, numeric libraries, what they are told to use, kernels: within one of these, equal keys have equal bits."""
    import llvmlite.binding as llvm

    from mdpsim.kernels import _jit

    libraries = "-".join(f"{name}{version(name)}" for name in ("numba", "numpy", "scipy"))
    told = "".join(f"-{name}={os.environ[name]}" for name in STEERING if os.environ.get(name))
    compiled_for = "" if _jit.target() == llvm.get_host_cpu_name() else f"-as-{_jit.target()}"
    return f"{llvm.get_host_cpu_name()}{compiled_for}-{libraries}{told}-kernels{_jit.fingerprint()}"


@cache
def commit() -> str | None:
    """The git commit of a checkout that mdpsim is imported from ("+" where it has changes), None elsewhere."""
    here = Path(__file__).resolve().parent
    if not (here.parent / ".git").exists():
        return None
    command = ["git", "-C", str(here.parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True, env=os.environ | {"LC_ALL": "C"})
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def lacking(needs: Iterable[str]) -> tuple[str, ...]:
    """The extras among ``needs`` that are not installed here; nothing is imported to find out."""
    return tuple(extra for extra in needs if find_spec(EXTRAS[extra]) is None)


def install_hint(extras: Iterable[str]) -> str:
    """What to tell a user whose installation lacks extras."""
    names = ",".join(extras)
    return f"needs [{names}]: pip install 'mdpsim[{names}]'"


def gpu() -> str | None:
    """The CUDA device that torch computes on, None where there is none or torch is not loaded: it is not loaded to find out."""
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None


def devices() -> list[str]:
    """What claims may be computed on here; this loads torch."""
    if lacking(("lm",)):
        return ["cpu"]
    try:
        import torch
    except (ImportError, OSError) as error:  # an installation whose libraries are not there
        return ["cpu", f"torch does not load: {error}"]
    return ["cpu", *(f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count()))]


def cores() -> int:
    """Number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def information() -> dict[str, Any]:
    """What ``mdpsim info`` shows: versions, threads, BLAS, CPU, devices, commit, and the state of the kernel cache."""
    import llvmlite.binding as llvm
    import numba
    import numpy as np  # noqa: F401 - loads the BLAS that is asked for below
    from threadpoolctl import threadpool_info

    from mdpsim.kernels import _jit

    blas = [f"{lib['internal_api']} {lib['version']} ({lib['num_threads']} threads)" for lib in threadpool_info()]
    return {
        **versions(), "cpu": llvm.get_host_cpu_name(), "compiled_for": _jit.target(), "cores": cores(),
        "numba_threads": numba.get_num_threads(), "blas": blas, "devices": devices(),
        "kernels": {"cache": _jit.CACHE_DIRECTORY, "not_compiled": _jit.uncached()},
    }


def bibtex() -> str:
    """BibTeX of mdpsim itself."""
    number = versions()["mdpsim"]
    return (
        "@software{mdpsim,\n  author = {{The mdpsim developers}},\n"
        "  title = {{mdpsim: a laboratory for theorems of KL-regularised reinforcement learning}},\n"
        f"  version = {{{number}}},\n  year = {{2026}}\n}}"
    )
