"""How far the memory of the process rises during a piece of work."""

from __future__ import annotations

import ctypes
import gc
import threading
from typing import Any, Self

import psutil


class PeakMemory:
    """Context in which the resident memory of the process is sampled from a thread of its own.

    Before it begins, what was freed is given back to the system where the C library can do that (glibc), as the work
    would otherwise live on pages that are counted already. Memory of a GPU is no part of it.

    Parameters
    ----------
    interval
        Seconds between two samples; peaks that are shorter can be missed.
    """

    def __init__(self, interval: float = 0.02) -> None:
        self._interval = interval
        self._process = psutil.Process()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._start = self._peak = 0

    def __enter__(self) -> Self:
        gc.collect()
        _give_back()
        self._start = self._peak = self._process.memory_info().rss
        self._thread.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._done.set()
        self._thread.join()
        self._look()

    @property
    def mib(self) -> float:
        """Highest resident memory seen, less that at the beginning, in MiB."""
        return (self._peak - self._start) / 2**20

    def _look(self) -> None:
        self._peak = max(self._peak, self._process.memory_info().rss)

    def _sample(self) -> None:
        while not self._done.wait(self._interval):
            self._look()


def _give_back() -> None:
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library
        return
    trim(0)
