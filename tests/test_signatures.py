"""Every kernel is compiled for one signature only: conftest looks when a process of the suite ends; here, that it sees."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from conftest import beyond_one_signature
from mdpsim.kernels import _jit, bellman, finite_class, softmax


def fake(n: int) -> SimpleNamespace:
    return SimpleNamespace(signatures=[("float64[::1]",)] * n, py_func=SimpleNamespace(__module__="m", __name__=f"kernel_{n}"))


def test_a_second_signature_is_seen() -> None:
    assert list(beyond_one_signature([fake(0), fake(1), fake(2), fake(3)])) == ["m.kernel_2", "m.kernel_3"]


@pytest.mark.parametrize("kernel", [bellman.soft_induction, softmax.log_softmax, finite_class.run_class])
def test_the_registry_has_the_kernels(kernel: object) -> None:
    assert any(k is kernel for k in _jit.KERNELS)
