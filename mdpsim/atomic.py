"""Files that are written whole or not at all: readers see the old one or the new, never a half."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A name in the folder of ``path`` to write to; when the block ends well, that file takes the place of ``path``.

    A link that stands there is replaced, not followed: what it pointed to stays as it was. The file gets the permissions that
    the process gives to new files. Where the block raises nothing is left.
    """
    target = Path(path)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=target.suffix)
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o666 & ~_umask())  # mkstemp's are for its owner only
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise


def _umask() -> int:
    """The process's mask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8; a lone surrogate, which has no bytes, becomes its escape."""
    with replacing(path) as name:
        name.write_bytes(text.encode("utf-8", "backslashreplace"))
