"""Files and lines that a command leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def check_not_input(input: Path | None, outputs: list[Path], *, argument: str = "output_dir") -> None:
    """Raise ``ValueError`` if one of the outputs, which `argument` names, would be written over the input."""
    for output in outputs:
        if input is not None and output.resolve() == input.resolve():
            raise ValueError(f"`{argument}`: '{output}' is the input and would be overwritten. Choose another.")


def one_line(error: Exception) -> str:
    """Message of an error, without the quotes that a ``KeyError`` puts around it, and the notes that were added to it."""
    message = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    message = " ".join([message, *getattr(error, "__notes__", [])])
    expected = isinstance(error, (KeyError, TypeError, ValueError, OSError))
    hint = "" if expected else f" ({type(error).__name__}; run again with --debug for the traceback)"
    return " ".join(message.split()) + hint


def losses(history: Mapping[str, pd.DataFrame], key: str = "train_loss") -> str:
    """Number of epochs, first and last loss of a training."""
    loss = history[key][key]
    return f"{len(loss)} epochs, loss {loss.iloc[0]:.3g} to {loss.iloc[-1]:.3g}"


class Clock:
    """Prints what each step of a command did and how long it took."""

    def __init__(self) -> None:
        self._begin = self._last = perf_counter()

    def step(self, name: str, what: str) -> None:
        """Print that step `name` has just ended."""
        now = perf_counter()
        print(f"{name:10}{now - self._last:7.1f} s  {what}", flush=True)
        self._last = now

    def say(self, name: str, what: str) -> None:
        """Print something that took no time."""
        print(f"{name:10}{'':9}  {what}", flush=True)

    @property
    def total(self) -> float:
        """Seconds since the beginning."""
        return perf_counter() - self._begin
