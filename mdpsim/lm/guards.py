"""Guards of what users hand to the language models: a sentence before torch broadcasts, or fails deep inside.

Types and shapes are looked at always: that is free. Values are looked at where it costs and disturbs nothing: on the CPU (on a
GPU a look waits for the device), outside of ``vmap`` (which has none), and not where a tensor carries a gradient: what a model
in training gives is watched by the training loop, which can put the last good weights back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from mdpsim.arrays import as_count, fail

MAX_LENGTH = 2**20  # tokens of a response
MAX_RESPONSES = 2**24  # that are ever enumerated at once
OFF = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}  # by which a law may miss one


def got(x: Any) -> str:
    """What came, in a few words."""
    if not isinstance(x, Tensor):
        return type(x).__name__
    odd = "" if dense(x) else "sparse " if x.layout != torch.strided else "meta "
    return f"a {odd}tensor {tuple(x.shape)} of {str(x.dtype).removeprefix('torch.')}"


def dense(x: Any) -> TypeGuard[Tensor]:
    """Whether something is a tensor that holds its numbers, each in its place: no sparse one, none of the device meta."""
    return isinstance(x, Tensor) and x.layout == torch.strided and x.device.type != "meta"


def as_floating(where: str, name: str, x: Any, axes: str, sizes: Sequence[int | None]) -> tuple[int, ...]:
    """Guard a tensor of floating-point numbers; its shape.

    Args:
        axes: names of the axes, as in "X Y"; "..X" for any leading axes. sizes: wanted lengths, None where any positive one
            will do.
    """
    letters = axes.removeprefix("..").split()
    text = f"[{'.., ' if axes.startswith('..') else ''}{', '.join(letters)}]"
    if not dense(x) or not x.is_floating_point():
        fail(where, name, f"be a tensor {text} of floating-point numbers", got(x))
    shape = tuple(x.shape)
    tail = shape[max(len(shape) - len(letters), 0) :]
    odd = any(n == 0 or (m is not None and n != m) for n, m in zip(tail, sizes, strict=False))
    if len(tail) != len(letters) or (not axes.startswith("..") and len(shape) != len(letters)) or odd:
        shown = ", ".join(letter if n is None else str(n) for letter, n in zip(letters, sizes, strict=True))
        fail(where, name, f"have shape {text} = ({shown}{',' if len(letters) == 1 else ''})", shape)
    return shape


def as_rewards(where: str, name: str, x: Any, axes: str, sizes: Sequence[int | None]) -> None:
    """Guard a tensor of real numbers, whole ones and truth values among them."""
    whole = dense(x) and not x.is_floating_point() and not x.is_complex()
    as_floating(where, name, x.double() if whole else x, axes, sizes)


def alike(where: str, axes: str, **tensors: Any) -> tuple[int, ...]:
    """Guard tensors of one shape, which the first one sets: what torch would broadcast is refused."""
    (first, x), *others = tensors.items()
    shape = as_floating(where, first, x, axes, (None,) * len(axes.removeprefix("..").split()))
    for name, y in others:
        if not dense(y) or not y.is_floating_point() or tuple(y.shape) != shape:
            fail(where, name, f"be a tensor of the shape of {first}, {shape}", got(y))
    return shape


def any_of(mask: Tensor) -> bool:
    """Whether a mask holds anywhere; False where nobody may look (``vmap``)."""
    try:
        return bool(mask.any())
    except RuntimeError:
        return False


def seen(x: Tensor) -> bool:
    """Whether values of a tensor are looked at: see the module."""
    return x.device.type == "cpu" and not x.requires_grad


def guard_finite(where: str, **tensors: Tensor) -> None:
    """Refuse NaN and infinities."""
    for name, x in tensors.items():
        if seen(x) and any_of(~torch.isfinite(x)):
            fail(where, name, "be finite", "NaN or inf")


def guard_logs(where: str, **tensors: Tensor) -> None:
    """Refuse what is no logarithm of a probability: NaN, and positive numbers beyond rounding; -inf is log 0."""
    for name, x in tensors.items():
        if seen(x) and any_of(~(x <= OFF.get(x.dtype, 0.1))):
            fail(where, name, "hold logarithms of probabilities", "NaN or a positive number")


def guard_laws(where: str, name: str, x: Tensor, *, logs: bool) -> None:
    """Refuse rows (along the last axis) that are no laws, given as probabilities or as their logarithms."""
    if not seen(x):
        return
    p = (x.exp() if logs else x).double()
    if any_of(~(p >= 0.0)):
        fail(where, name, "hold logarithms of probabilities" if logs else "hold probabilities", "NaN or a negative number")
    total = p.sum(dim=-1)
    tolerance = OFF.get(x.dtype, 0.1)
    off = (total - 1.0).abs()
    if any_of(~(off <= tolerance)):
        worst = float(total.flatten()[int(off.flatten().argmax())])
        label = f"exp({name})" if logs else name
        fail(where, label, f"have rows that sum to one within {tolerance:g}", f"{worst:.9g}")


def guard_mu0(where: str, mu0: Any, n_prompts: int) -> None:
    """Guard the law of the prompt [X]; None is uniform."""
    if mu0 is not None:
        as_floating(where, "mu0", mu0, "X", (n_prompts,))
        guard_laws(where, "mu0", mu0, logs=False)


def guard_ids(where: str, name: str, x: Any, axes: str, sizes: Sequence[int | None], below: int) -> None:
    """Guard an int64 tensor of numbers in [0, below); values are checked on the CPU."""
    letters = axes.split()
    if not dense(x) or x.dtype != torch.int64 or x.ndim != len(letters):
        fail(where, name, f"be an int64 tensor [{', '.join(letters)}]", got(x))
    if any(m is not None and n != m for n, m in zip(x.shape, sizes, strict=True)):
        shown = ", ".join(letter if n is None else str(n) for letter, n in zip(letters, sizes, strict=True))
        fail(where, name, f"have shape [{', '.join(letters)}] = ({shown}{',' if len(letters) == 1 else ''})", tuple(x.shape))
    if x.device.type == "cpu" and x.numel() and any_of((x < 0) | (x >= below)):
        low = int(x.min())
        fail(where, name, f"be ids in 0 .. {below - 1}", low if low < 0 else int(x.max()))


def guard_end(where: str, end: Any, vocabulary: int) -> None:
    """Guard the id of the end token; None is none."""
    if end is not None:
        as_count(where, "end", end, low=0, high=vocabulary - 1)


def as_enumerable(where: str, vocabulary: int, length: Any, n_prompts: int = 1) -> int:
    """Guard the length of responses that are enumerated: at most 2^24 in all."""
    n = as_count(where, "length", length, high=MAX_LENGTH)
    if n * np.log(vocabulary) + np.log(max(n_prompts, 1)) > np.log(MAX_RESPONSES) + 1e-9:
        fail(where, "prompts and length", f"give at most {MAX_RESPONSES} responses", f"{n_prompts} * {vocabulary}^{n}")
    return n


def as_scalar(where: str, name: str, x: Any) -> Tensor:
    """Guard a tensor of one floating-point number."""
    if not dense(x) or x.ndim or not x.is_floating_point():
        fail(where, name, "be a scalar tensor", got(x))
    return x


def guard_callable(where: str, name: str, f: Any) -> None:
    """Guard a function."""
    if not callable(f):
        fail(where, name, "be a function", type(f).__name__)
