"""Ctrl-C, SIGTERM and SIGHUP while trials run: what is under way is finished and kept; a second one ends at once.

An exception in the middle of a measure throws away what the measure has computed, and one in the middle of compiled code or of
a write is nobody's wish. So the first Ctrl-C is only noted: no chunk is begun any more, those under way are finished and
stored, then KeyboardInterrupt is raised. The second raises it where it strikes, but for a write to the store, which ends first.
SIGTERM (what a batch system sends before it kills) and SIGHUP (a terminal that closes) do the same.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_TOLD = b"interrupted: what is under way is finished and kept; Ctrl-C again ends at once\n"
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interrupts:
    """Notes Ctrl-C while the context is open.

    Only in the main thread, and of the signals that nobody else handles or ignores. ``noted`` counts; without a handler of ours
    it stays 0, and whatever is raised is raised.
    """

    def __init__(self) -> None:
        self.noted = 0
        self._held = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if (before := signal.getsignal(number)) in (signal.default_int_handler, signal.SIG_DFL):
                    self._before[number] = before
                    signal.signal(number, self._note)
        return self

    def __exit__(self, kind: object, *exc: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        if kind is None and self.noted:  # it came when all was done, while worker processes ended
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.noted += 1
        if self.noted == 1:
            with contextlib.suppress(OSError):
                os.write(2, _TOLD)  # not sys.stderr: the signal may have come while that was writing
        elif not self._held:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Nothing is raised in here, but at the end where a second Ctrl-C came."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self.noted > 1:
            raise KeyboardInterrupt
