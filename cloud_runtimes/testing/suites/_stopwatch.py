"""Seconds without those in which a busy machine stood still."""

from __future__ import annotations

import threading
import time
from typing import Final

_TICK: Final = 0.01
_LONG: Final = 0.1


class Stopwatch:
    """Counts the seconds of a block: ``with Stopwatch() as watch: …; assert watch.seconds < 1``.

    A thread beside it sleeps for a moment, again and again. Where such a moment is long, nothing went on in this process, and the time is not counted.
    """

    def __init__(self) -> None:
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="stopwatch", daemon=True)
        self._seconds = self._looked = 0.0

    def __enter__(self) -> Stopwatch:
        self._looked = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(_TICK):
            self._look()

    def _look(self) -> float:
        with self._lock:
            now = time.monotonic()
            went_by, self._looked = now - self._looked, now
            self._seconds += went_by if went_by < _LONG else _TICK
            return self._seconds

    @property
    def seconds(self) -> float:
        """How many so far."""
        return self._look()
