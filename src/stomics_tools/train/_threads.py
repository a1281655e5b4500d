"""Threads that make room for other processes while they wait for each other."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def yielding() -> Iterator[None]:
    """Let torch's threads sleep while they wait, instead of spinning; nothing else changes, and nothing stays changed.

    At the end of every parallel loop the threads of GNU's OpenMP wait for the last one. They spin for milliseconds, and
    on a machine where other processes compute, that one is held up by those that spin: a training can take ten times as
    long. ``OMP_WAIT_POLICY=passive`` would prevent it, but is read when torch is loaded, long before a notebook comes
    here. What libgomp heeds later, as its manual says of ``GOMP_SPINCOUNT``, is whether it manages more threads than there
    are processors: then they hardly spin. So a thread that sleeps holds a team of its own until the end.

    Numbers of threads, and with them results, are the same as without. Does nothing where torch runs on one thread, or on
    another OpenMP, whose threads give way by themselves.
    """
    gomp = _gomp()
    n_threads = torch.get_num_threads()
    if gomp is None or n_threads == 1:
        yield
        return
    # libgomp counts n_threads for the team of the caller, and all but one of the team here: one more than processors.
    size = max(_n_processors() - n_threads + 2, 2)
    done, ready = threading.Event(), threading.Event()

    def hold() -> None:
        gomp.GOMP_parallel(ctypes.cast(gomp.omp_get_thread_num, ctypes.c_void_p), None, size, 0)
        ready.set()
        done.wait()  # libgomp keeps a team as long as the thread that made it lives

    holder = threading.Thread(target=hold, name="stomics-tools-yielding", daemon=True)
    holder.start()
    ready.wait()
    try:
        yield
    finally:
        done.set()
        holder.join()


def before_fork() -> None:
    """End torch's idle threads, which come back when they are needed: a forked process would wait for them forever."""
    gomp = _gomp()
    if gomp is not None and hasattr(gomp, "omp_pause_resource_all"):
        gomp.omp_pause_resource_all(2)


def _gomp() -> ctypes.CDLL | None:
    """Library in which the functions of the OpenMP that torch runs on are found, if it is GNU's."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL(torch._C.__file__)  # symbols are looked up in what it was linked to as well
        library.GOMP_parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        library.GOMP_parallel.restype = None
        library.omp_get_thread_num  # noqa: B018
    except (OSError, AttributeError):
        return None
    return None if hasattr(library, "kmp_set_blocktime") else library  # LLVM's and Intel's


def _n_processors() -> int:
    return max(len(os.sched_getaffinity(0)), os.cpu_count() or 1) if hasattr(os, "sched_getaffinity") else 1
