"""One call around Lightning's trainer: seeds, callbacks, warnings."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning.pytorch as pl
import pandas as pd
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

from stomics_tools._paths import user_path
from stomics_tools._random import local_seed
from stomics_tools.train._checkpoint import FILE_NAME, EpochCheckpoint
from stomics_tools.train._devices import Devices, as_found, trainer_arguments
from stomics_tools.train._generators import Generators
from stomics_tools.train._history import BringBack, History
from stomics_tools.train._plan import Plan
from stomics_tools.train._progress import EpochProgress
from stomics_tools.train._threads import before_fork

_CHECKPOINT_EVERY = 10  # epochs


def check_callbacks(callbacks: Any) -> list[pl.Callback]:
    """Callbacks of Lightning as a list; ``TypeError`` for anything else."""
    found = list(callbacks) if isinstance(callbacks, list | tuple) else [callbacks]
    for callback in found:
        if not isinstance(callback, pl.Callback):
            raise TypeError(f"`callbacks` must be callbacks of Lightning, found {callback!r}.")
    return found


def fit(
    plan: Plan,
    data: Any,
    *,
    max_epochs: int,
    seed: int,
    accelerator: str = "auto",
    devices: Devices = "auto",
    patience: int | None = None,
    clip_grad: float | None = None,
    checkpoint_dir: str | Path | None = None,
    checkpoint_every: int = _CHECKPOINT_EVERY,
    ckpt_path: str | Path | None = None,
    history: dict[str, pd.DataFrame] | None = None,
    callbacks: Sequence[pl.Callback] = (),
    logger: Any = False,
    enable_progress_bar: bool = True,
    **trainer_kwargs: Any,
) -> dict[str, pd.DataFrame]:
    """Train `plan` on `data` and return the history, one table a logged quantity.

    Torch's generators are seeded for the call and given back as they were; trainings of several threads go one after the
    other. ``accelerator="auto"`` is a GPU by CUDA where there is one, else the CPU (never MPS: asked for by name only, as
    in scvi-tools). `patience` stops when the training loss has not fallen for so many epochs. Several devices each run
    the calling script, or are processes forked from a notebook, see :func:`trainer_arguments`. An interruption is a
    ``KeyboardInterrupt``, after which the process lives on as it was. Other arguments go to
    :class:`lightning.pytorch.Trainer`. In the end the module is on the CPU; ``plan.trained_on`` is where it was.
    """
    if checkpoint_dir is None and checkpoint_every != _CHECKPOINT_EVERY:
        raise ValueError(f"`checkpoint_every={checkpoint_every}` has no effect unless `checkpoint_dir` names a folder.")
    keep = History(history)
    every: list[pl.Callback] = [*check_callbacks(callbacks), keep, Generators(seed)]
    if patience is not None:
        every.append(EarlyStopping(monitor=plan.monitor, patience=patience, mode="min", check_on_train_epoch_end=True))
    if checkpoint_dir is not None:
        every.append(EpochCheckpoint(checkpoint_dir, checkpoint_every))
    if enable_progress_bar:
        every.append(EpochProgress(plan.monitor))
    if ckpt_path is not None:
        ckpt_path = user_path(ckpt_path)
        ckpt_path = ckpt_path / FILE_NAME if ckpt_path.is_dir() else ckpt_path
    with _quiet(), TemporaryDirectory() as folder:
        brought = BringBack(every, Path(folder))
        trainer = pl.Trainer(
            max_epochs=max_epochs,
            gradient_clip_val=clip_grad,
            callbacks=[*every, brought],
            logger=logger,
            enable_checkpointing=checkpoint_dir is not None,
            enable_model_summary=False,
            enable_progress_bar=enable_progress_bar,
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            **trainer_arguments(accelerator, devices, trainer_kwargs),
        )
        plan.trained_on = trainer.strategy.root_device
        forked = isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)
        if forked:
            before_fork()
        # A process that has started CUDA cannot fork others that use it.
        with local_seed(seed, "cpu" if forked else plan.trained_on), as_found(trainer), _interruptible():
            plan.train()
            trainer.fit(plan, data, ckpt_path=None if ckpt_path is None else str(ckpt_path), weights_only=True)
        if forked:
            brought.restore()
    return keep.tables()


@contextmanager
def _interruptible() -> Iterator[None]:
    """An interruption stays one: Lightning would end the process, and ignore every further one from then on."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as end:
        if not isinstance(end.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        raise end.__context__ from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's hints on devices, workers and loggers speak of choices that the user does not have here."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in (
                ".*does not have many workers.*",
                ".*The number of training batches.*",
                ".*callbacks used to create the checkpoint.*",
                ".*in eval mode at the start of training.*",
            ):
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        logger.setLevel(level)
