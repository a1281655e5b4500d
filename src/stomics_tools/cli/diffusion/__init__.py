"""``stomics diffusion``: from sections of cells to a trained model, its scores and its draws."""

from __future__ import annotations

from collections.abc import Callable

from stomics_tools.cli.diffusion._evaluate import evaluate
from stomics_tools.cli.diffusion._preprocess import preprocess
from stomics_tools.cli.diffusion._sample import sample
from stomics_tools.cli.diffusion._train import config, train

COMMANDS: dict[str, Callable[..., None]] = {
    "preprocess": preprocess,
    "config": config,
    "train": train,
    "test": evaluate,
    "sample": sample,
}

__all__ = ["COMMANDS"]
