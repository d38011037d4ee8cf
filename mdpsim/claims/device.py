"""Where a claim is computed: claims whose points have the axis ``device`` can be moved from the CPU to a GPU, and back.

A measure that computes with torch reads ``point["device"]`` and ``point["dtype"]``. Both are axes of the point, hence in the
key of a record: a run on a GPU is a run of its own, beside that on the CPU. Neither enters a trial's draws
(:data:`mdpsim.claims.claim.DEVICE_AXES`): both runs compute with the same random numbers. Grids are written for the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import wraps

import numpy as np

from mdpsim.arrays import as_count, fail
from mdpsim.claims.claim import DEVICE_AXES, Claim, Measure, Point
from mdpsim.versions import install_hint, lacking

DEVICES = ("cpu", "cuda")
CHOICES = ("auto", *DEVICES)
AXIS = DEVICE_AXES[0]


def check_device(function: str, argument: str, device: str, known: Sequence[str] = CHOICES) -> None:
    """Guard the name of a device."""
    if device not in known:
        fail(function, argument, f"be one of {', '.join(known)}", repr(device))


def depends_on_device(claim: Claim) -> bool:
    """Whether some point of the claim, or of a twin, has the axis ``device``."""
    return any(AXIS in point for point in _points(claim))


def devices_of(claim: Claim) -> tuple[str, ...]:
    """The devices that its points name, sorted; a claim without the axis is computed on the CPU."""
    return tuple(sorted({point.get(AXIS, "cpu") for point in _points(claim)}))


def on_device(claim: Claim, device: str) -> Claim:
    """The same claim, to be run on a device of this machine.

    Args:
        claim: one whose grids have no axis ``device`` comes back as it is, and torch is not asked.
        device: "cpu", "cuda", or "auto": CUDA where there is a device, else the CPU.
    Raises:
        ValueError: an unknown name; "cuda" on a machine without a CUDA device or without torch.
    """
    check_device("on_device", "device", device)
    return moved(claim, _resolve(device)) if depends_on_device(claim) else claim


def moved(claim: Claim, device: str) -> Claim:
    """The claim as measured on "cpu" or "cuda", whether or not this machine has it: what a store may hold."""
    check_device("moved", "device", device, DEVICES)

    def there(grid: Mapping[str, Sequence[Point]]) -> dict[str, tuple[Point, ...]]:
        return {
            preset: tuple(Point(p, **{AXIS: device}) if AXIS in p else p for p in points) for preset, points in grid.items()
        }

    if not depends_on_device(claim) or devices_of(claim) == (device,):
        return claim
    twins = tuple(t if t.grid is None else replace(t, grid=there(t.grid)) for t in claim.twins)
    return replace(claim, grid=there(claim.grid), twins=twins)


def side_by_side(n: int) -> Callable[[Measure], Measure]:
    """Mark a measure whose trials cost little more together than one alone: it is handed n keys at once, while there are many.

    The result on some keys is still that on any split of them, bit for bit: on the CPU the measure sees to it. A GPU chooses
    its routines by the number of models side by side, so that there the measure always gets n keys, the last one repeated.
    """
    as_count("side_by_side", "n", n)

    def mark(measure: Measure) -> Measure:
        @wraps(measure)
        def whole(point: Point, keys: Sequence[int]) -> Mapping[str, np.ndarray]:
            if point.get(AXIS, "cpu") == "cpu":
                return measure(point, keys)
            blocks = [list(keys[i : i + n]) for i in range(0, len(keys), n)]
            parts = [measure(point, block + block[-1:] * (n - len(block))) for block in blocks]
            return {name: np.concatenate([part[name] for part in parts])[: len(keys)] for name in parts[0]}

        whole.__dict__["side_by_side"] = n
        return whole

    return mark


def _resolve(device: str) -> str:
    """What a name means here; without torch there is the CPU alone."""
    if device == "cpu":
        return device  # torch takes seconds to load
    if not lacking(("lm",)):
        from mdpsim.lm.device import resolve_device

        return resolve_device(device)
    if device == "cuda":
        fail("on_device", "device", "be cpu or auto where torch is not installed", f"'cuda', which {install_hint(('lm',))}")
    return "cpu"


def _points(claim: Claim) -> Iterator[Point]:
    """Every point of the claim and of its twins, all presets."""
    for grid in (claim.grid, *(twin.grid for twin in claim.twins if twin.grid is not None)):
        for points in grid.values():
            yield from points
