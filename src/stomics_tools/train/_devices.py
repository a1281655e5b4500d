"""Devices: by name, how many, and what Lightning is told about them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import utilities

_ranks: Any = utilities.rank_zero_only  # a function with an attribute ``rank``
_ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
Devices = int | str | Sequence[int]


def resolve_device(accelerator: str = "auto", device: Devices | torch.device = "auto") -> torch.device:
    """One device, from the arguments that scvi-tools takes.

    Parameters
    ----------
    accelerator
        ``"auto"`` (CUDA where there is one, else the CPU; never MPS), ``"cpu"``, ``"gpu"`` (CUDA, else MPS), ``"cuda"``
        or ``"mps"``.
    device
        Index of the device, as a number, a text or a list of one number; ``"auto"`` or -1 for the first; or a name
        as torch has it, such as ``"cuda:1"``.

    Raises
    ------
    ValueError
        If there is no such accelerator or device on this machine.
    """
    if isinstance(device, str) and device.partition(":")[0] in ("cpu", "cuda", "mps"):
        device = torch.device(device)
    if isinstance(device, torch.device):
        if accelerator not in ("auto", device.type) and not (accelerator == "gpu" and device.type in ("cuda", "mps")):
            raise ValueError(f"`device` is '{device}', and `accelerator` is {accelerator!r}. Leave one of them out.")
        accelerator, device = device.type, "auto" if device.index is None else device.index
    kind = _type_of(accelerator)
    index = _index(device)
    if kind != "cuda":
        if index not in (None, 0, 1):  # Lightning counts: one device
            raise ValueError(f"`device`: there is one device for accelerator {accelerator!r} here, found {device!r}.")
        return torch.device(kind)
    number = torch.cuda.device_count()
    if index is not None and index >= number:
        raise ValueError(f"`device`: there are {number} GPUs, counted from 0, and {device!r} is none of them.")
    return torch.device("cuda", index or 0)


def _type_of(accelerator: str) -> str:
    """Type of a device that is there."""
    if accelerator not in _ACCELERATORS:
        raise ValueError(f"`accelerator` must be one of {list(_ACCELERATORS)}, found {accelerator!r}.")
    if accelerator == "cpu":
        return "cpu"
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if accelerator == "auto":
        return "cuda" if has_cuda else "cpu"
    kind = accelerator
    if accelerator == "gpu":
        kind = "mps" if has_mps and not has_cuda else "cuda"
    if not (has_cuda if kind == "cuda" else has_mps):
        raise ValueError(f"`accelerator={accelerator!r}`: there is no such device here. Use `accelerator='cpu'`.")
    return kind


def _index(device: Any) -> int | None:
    if isinstance(device, list | tuple) and len(device) == 1:
        (device,) = device
    if isinstance(device, str):
        device = int(device) if device.lstrip("-").isdecimal() else (-1 if device == "auto" else None)
    if isinstance(device, bool) or not hasattr(device, "__index__") or device < -1:
        raise ValueError(f"`device` must be 'auto' or the index of one device, found {device!r}.")
    return None if device == -1 else int(device)


def count_devices(devices: Devices, accelerator: str = "auto", num_nodes: int = 1) -> int:
    """How many devices Lightning would train on; ``"auto"`` is one, as in scvi-tools, and -1 is all."""
    if isinstance(devices, str):
        if "," in devices:
            devices = [int(index) for index in devices.split(",") if index.strip()]
        else:
            devices = 1 if devices == "auto" else int(devices)
    if isinstance(devices, list | tuple):
        number = len(devices)
    elif devices == -1:
        number = 1 if accelerator in ("cpu", "mps") else max(torch.cuda.device_count(), 1)
    else:
        number = int(devices)  # type: ignore[arg-type]
    return number * num_nodes


def trainer_arguments(accelerator: str, devices: Devices, trainer_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of :class:`lightning.pytorch.Trainer` for these devices.

    On one device nothing of a cluster matters: Lightning reads the variables of SLURM, torchrun, LSF and others even
    there, and refuses a job of several tasks. Several devices get a strategy that runs where we are, a script or a
    notebook, and that bears weights without a gradient: not every step uses all of them.
    """
    if accelerator == "auto":
        accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    _type_of(accelerator)
    arguments = {**trainer_kwargs, "accelerator": accelerator, "devices": 1 if devices == "auto" else devices}
    if count_devices(devices, accelerator, trainer_kwargs.get("num_nodes", 1)) == 1:
        plugins = trainer_kwargs.get("plugins") or []
        plugins = list(plugins) if isinstance(plugins, list | tuple) else [plugins]
        if not any(isinstance(plugin, ClusterEnvironment) for plugin in plugins):
            plugins.append(LightningEnvironment())
        return {**arguments, "plugins": plugins}
    n_processors = max(os.cpu_count() or 1, 2)
    if accelerator == "cpu" and count_devices(devices, accelerator) > n_processors:
        raise ValueError(
            f"`devices={devices!r}` would be as many processes, on a machine of {n_processors} processors."
        )
    strategy = trainer_kwargs.get("strategy", "auto")
    if strategy in ("auto", "ddp"):
        interactive = hasattr(sys, "ps1") or bool(sys.flags.interactive)
        strategy = "ddp_notebook" if interactive else "ddp"
    if strategy in ("ddp", "ddp_notebook", "ddp_fork", "ddp_spawn"):
        strategy = f"{strategy}_find_unused_parameters_true"
    return {**arguments, "strategy": strategy}


@contextmanager
def as_found(trainer: pl.Trainer) -> Iterator[None]:
    """Give back what Lightning changes in this process: threads, variables of the environment, who writes to loggers."""
    threads, rank = torch.get_num_threads(), _ranks.rank
    variables = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "WORLD_SIZE")}
    alone = trainer.world_size == 1
    if alone:
        _ranks.rank = 0  # a task of a cluster that trains for itself logs for itself
    try:
        yield
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        for name, value in variables.items():
            if value is None and name == "OMP_NUM_THREADS":
                os.environ.pop(name, None)
            elif value is not None:
                os.environ[name] = value
        if alone:
            _ranks.rank = rank
