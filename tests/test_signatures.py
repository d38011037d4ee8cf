"""After the whole suite: every kernel was compiled for one signature only (conftest runs this file last)."""

from __future__ import annotations

import pytest

from mdpsim.kernels import _jit


@pytest.mark.parametrize("kernel", _jit.KERNELS, ids=lambda k: k.py_func.__name__)
def test_one_signature(kernel: object) -> None:
    signatures = kernel.signatures  # type: ignore[attr-defined]
    assert len(signatures) <= 1, f"compiled for {signatures}: a wrapper passes writable, strided or other-typed arrays"
