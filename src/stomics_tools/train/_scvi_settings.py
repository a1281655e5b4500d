"""What of ``scvi.settings`` holds for the models here as well: seed, verbosity and style of progress bars."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from rich.console import Console
from scvi import settings
from tqdm import TqdmExperimentalWarning
from tqdm.auto import tqdm


def seed_or_default(seed: int | None) -> int:
    """`seed`; where it is None ``scvi.settings.seed``, and 0 where that is not set either."""
    if seed is not None:
        return seed
    return 0 if settings.seed is None else settings.seed


def follow_verbosity(logger: logging.Logger) -> None:
    """Hold back what ``scvi.settings.verbosity`` holds back; whatever passes goes where logging was told to send it."""
    logger.addFilter(_as_scvi_tools)


def _as_scvi_tools(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.getLogger("scvi").getEffectiveLevel()


def progress_bar(**kwargs: Any) -> tqdm:
    """A bar of tqdm, in ``scvi.settings.progress_bar_style``."""
    if settings.progress_bar_style != "rich":
        return tqdm(**kwargs)
    from tqdm.rich import tqdm as rich_tqdm

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmExperimentalWarning)
        return rich_tqdm(**kwargs, options={"console": Console(stderr=True)})
