"""Torch's global generators: seeded for a while, by one thread at a time, and given back as they were."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_lock = threading.RLock()


@contextmanager
def local_seed(seed: int | None, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed torch's generator of the CPU and that of `device`, and leave both as they were found.

    No other device is touched: reading the generator of a GPU starts it, and in exclusive mode that fails. Threads that
    come here at the same time go one after the other, so that each draws what it would draw alone.

    Parameters
    ----------
    seed
        None to go on from the state there is.
    device
        Where random numbers are drawn, beside the CPU.
    """
    with _lock:
        before = generator_states(device)
        try:
            if seed is not None:
                seed_generators(seed, device)
            yield
        finally:
            set_generator_states(before, device)


def generator_states(device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """States of the generators of the CPU and of `device`, by the type of the device."""
    device = torch.device(device)
    states = {"cpu": torch.default_generator.get_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_generator_states(states: dict[str, Tensor], device: torch.device | str = "cpu") -> None:
    """Take up states of :func:`generator_states`; those of a type of device that is not in use are left out."""
    device = torch.device(device)
    torch.default_generator.set_state(states["cpu"].cpu())
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
    elif device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"].cpu())


def seed_generators(seed: int, device: torch.device | str = "cpu") -> None:
    """Seed the generators of the CPU and of `device`; ``torch.manual_seed`` seeds those of all devices."""
    device = torch.device(device)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def _new_lock() -> None:
    global _lock
    _lock = threading.RLock()


# A process that was forked while another thread held the lock would wait for it forever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)
