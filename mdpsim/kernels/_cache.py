"""Where compiled kernels lie: a directory of the user's own, for what is in it is code that will be run.

The base directory is ``$MDPSIM_CACHE_DIR``, else ``$NUMBA_CACHE_DIR`` (a leading ~ is the home directory), else the user's
cache directory; where none can be written, or there is no home, a directory in the system's temporary folder. numba's files are
pickles: whoever can write them can run anything as the user. So the directory is made for its owner only (mode 0700); one that
belongs to somebody else, that others can write to, or that is a link is passed over.

A cache is no source: a file of it that is cut, empty or cannot be written is told once, and the kernel compiled again.
"""

from __future__ import annotations

import os
import stat
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from numba.core.caching import FunctionCache

_told: list[str] = []


class CacheWarning(UserWarning):
    """The cache of compiled kernels is of no use: what is wrong with it."""


def home() -> str | None:
    """The user's home directory; None where there is none (in a container, a user without an entry in the password file)."""
    found = os.environ.get("HOME")
    if not found and os.name == "nt":
        found = os.path.expanduser("~")
    elif not found:
        try:
            import pwd

            found = pwd.getpwuid(os.getuid()).pw_dir
        except (ImportError, KeyError):
            return None
    return found if os.path.isabs(found) else None


def expanded(path: str) -> str | None:
    """A path with the home directory in the place of its leading ~; None where that is asked for and there is none."""
    if path[:1] == "~" and path[1:2] in ("", os.sep):
        own = home()
        return own and os.path.join(own, path[2:])
    return os.path.expanduser(path)  # ~somebody


def _bases() -> Iterator[str | None]:
    """Where compiled kernels may lie, best first; None for what is not known here. $XDG_CACHE_HOME counts if it is absolute."""
    if named := os.environ.get("MDPSIM_CACHE_DIR") or os.environ.get("NUMBA_CACHE_DIR"):
        yield expanded(named)
    cache = os.environ.get("XDG_CACHE_HOME") or ""
    yield os.path.join(cache, "mdpsim") if os.path.isabs(cache) else expanded(os.path.join("~", ".cache", "mdpsim"))
    with suppress(OSError):  # no temporary directory that can be written
        yield os.path.join(tempfile.gettempdir(), f"mdpsim-{os.getuid() if hasattr(os, 'getuid') else 'user'}")


def private_directory(name: str) -> str:
    """A directory of that name in the first base where one can be made, or stands, that is this user's alone."""
    for base in filter(None, _bases()):
        base = os.path.abspath(base)  # absolute: a measure may change the working directory
        path = os.path.join(base, name)
        with suppress(OSError):
            os.makedirs(base, 0o700, exist_ok=True)
            with suppress(FileExistsError):
                os.mkdir(path, 0o700)
            if _is_safe(os.stat(base)) and _is_private(os.lstat(path)) and os.access(path, os.W_OK | os.X_OK):
                return path
    try:
        return tempfile.mkdtemp(prefix="mdpsim-")  # for this process: nobody finds it again
    except OSError:
        message = "mdpsim: no directory for compiled kernels can be written; set MDPSIM_CACHE_DIR to one that can"
        raise OSError(message) from None


def _is_safe(base: os.stat_result) -> bool:
    """Whether nobody else can exchange what lies in a directory: this user's or root's, and open to all only if sticky."""
    if not hasattr(os, "geteuid"):
        return True
    return base.st_uid in (0, os.geteuid()) and (not base.st_mode & stat.S_IWOTH or bool(base.st_mode & stat.S_ISVTX))


def _is_private(found: os.stat_result) -> bool:
    """Whether what was found is a directory, not a link to one, that only this user can write to."""
    if not stat.S_ISDIR(found.st_mode):
        return False
    return not hasattr(os, "geteuid") or (found.st_uid == os.geteuid() and not found.st_mode & 0o022)


class ForgivingCache(FunctionCache):
    """numba's cache of one function, whose files may be cut, empty, or on a full disk."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What was compiled, None where nothing was or it cannot be read."""
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # unpickling raises whatever the bytes make it
            self._tell(error)
            with suppress(Exception):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was compiled, if that can be."""
        try:
            super().save_overload(sig, data)
        except Exception as error:
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        if not _told:
            _told.append(self.cache_path)
            warnings.warn(
                f"the cache of compiled kernels in {self.cache_path} cannot be used ({type(error).__name__}: {error}); what is "
                "damaged there is compiled again", CacheWarning, stacklevel=2,
            )
