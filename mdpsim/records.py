"""Records of read-only arrays that stay so: what copy, deepcopy and pickle make of them.

numpy gives a copied or unpickled array back as a writable one. A record's arrays must not be: whoever changed one would have
a record that no guard has seen, and kernels would be compiled again for writable arguments. So every record (a frozen
dataclass or a NamedTuple that holds arrays) is decorated with ``record``: ``copy`` of what cannot change is the thing itself,
``deepcopy`` and ``pickle`` give equal arrays, read-only, in memory of their own.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from mdpsim.arrays import shareable

T = TypeVar("T")


def record(cls: type[T]) -> type[T]:
    """Make the copies of a frozen dataclass or NamedTuple hold read-only arrays (a class decorator, outermost)."""
    cls.__copy__ = _same  # type: ignore[attr-defined]
    cls.__reduce__ = _reduce_tuple if issubclass(cls, tuple) else _reduce  # type: ignore[method-assign, assignment]
    return cls


def _same(self: T) -> T:
    return self


def _reduce(self: Any) -> tuple[Any, ...]:
    return _remade, (type(self), dict(self.__dict__))


def _reduce_tuple(self: Any) -> tuple[Any, ...]:
    return _remade_tuple, (type(self), tuple(self))


def _remade(cls: type[T], fields: dict[str, Any]) -> T:
    made = object.__new__(cls)
    for name, value in fields.items():
        object.__setattr__(made, name, _sealed(value))
    return made


def _remade_tuple(cls: Any, values: tuple[Any, ...]) -> Any:
    return cls(*map(_sealed, values))


def _sealed(x: Any) -> Any:
    """Arrays that nobody can write to, in tuples, lists and dicts too; other records have seen to their own."""
    if type(x) is np.ndarray:
        if shareable(x):
            return x
        x = x.copy(order="K")
        x.flags.writeable = False
    elif type(x) in (tuple, list):
        return type(x)(map(_sealed, x))
    elif type(x) is dict:
        return {name: _sealed(value) for name, value in x.items()}
    return x
