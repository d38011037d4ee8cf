"""Devices, number types, and the settings under which a torch computation is a function of its inputs.

Within ``reproducible`` algorithms are deterministic, TF32 is off and one CPU thread is used, so that equal inputs give equal
bits on one machine and one version of torch. Random numbers are drawn by numpy on the CPU and moved to the device: draws are
those of the trial's Generator, whatever the device.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from mdpsim.arrays import as_count, fail, unknown

DEVICES = ("auto", "cpu", "cuda")
DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}


def resolve_device(name: str) -> str:
    """The device a name stands for: "auto" is "cuda" where there is one, else "cpu".

    Raises:
        ValueError: another name, or "cuda" where this machine or this build of torch has none.
    """
    if not isinstance(name, str) or name not in DEVICES:
        unknown("resolve_device", "device", name, DEVICES)
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a build without CUDA"
        fail("resolve_device", "device", f"be one that is here: cpu (torch {torch.__version__}, {build}, sees no GPU)", "cuda")
    return "cuda"


def resolve_dtype(name: str) -> torch.dtype:
    """The torch dtype of a name: "float64" (claims), "float32" or "bfloat16" (larger demonstrations)."""
    if not isinstance(name, str) or name not in DTYPES:
        unknown("resolve_dtype", "dtype", name, DTYPES)
    return DTYPES[name]


def as_device(where: str, device: str | torch.device) -> torch.device:
    """Guard a device of torch, or its name."""
    if isinstance(device, str | torch.device):
        try:
            return torch.device(device)
        except RuntimeError:
            pass
    fail(where, "device", "be a device of torch, or its name", repr(device))


@contextmanager
def reproducible(threads: int = 1) -> Iterator[None]:
    """Deterministic algorithms, no TF32, and this many CPU threads; what was set before is set again at the end."""
    as_count("reproducible", "threads", threads, high=2**15)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by cuBLAS at its first use
    before = (torch.get_deterministic_debug_mode(), torch.get_num_threads())
    tf32 = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    try:
        torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms would import torch._inductor: seconds
        torch.set_num_threads(threads)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        yield
    finally:
        torch.set_deterministic_debug_mode(before[0])
        torch.set_num_threads(before[1])
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32


def to_device(array: np.ndarray, like: Tensor | torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A copy of a numpy array on the device of ``like``; from pinned memory and without waiting where that is a GPU."""
    device = like.device if isinstance(like, Tensor) else like
    tensor = torch.from_numpy(np.array(array, copy=True, order="C"))
    if dtype is not None:
        tensor = tensor.to(dtype)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
