"""Where torch computes (stand-in)."""

from __future__ import annotations

import torch

from mdpsim.arrays import fail


def resolve_device(name: str) -> str:
    """The device that a name means on this machine."""
    here = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    if name == "auto":
        return here[-1]
    if name not in here:
        fail("resolve_device", "device", "be one of this machine's or 'auto'", f"{name!r} (here: {', '.join(here)})")
    return name
