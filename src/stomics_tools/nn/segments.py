"""Rows of several sets that lie one after the other, and who reads from whom within a set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def segment_lengths(segments: Tensor | None, n_rows: int) -> list[int]:
    """Number of rows of each segment.

    Parameters
    ----------
    segments
        Row numbers at which segments begin, and `n_rows` at the end, integer ``(n_segments + 1,)``; None: one segment.
    n_rows
        Number of rows in all.

    Raises
    ------
    ValueError
        If the row numbers do not rise from 0 to `n_rows`.
    """
    if segments is None:
        return [n_rows]
    lengths = segments.diff().tolist()
    if len(segments) < 2 or segments[0] != 0 or segments[-1] != n_rows or min(lengths) < 0:
        raise ValueError(
            f"`segments` must rise from 0 to the number of rows, {n_rows}, found {segments.tolist()[:10]}."
        )
    return lengths


def segment_of_rows(lengths: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Number of the segment that each row belongs to, int64 ``(n_rows,)``."""
    return torch.arange(len(lengths), device=device).repeat_interleave(torch.tensor(lengths, device=device))


def within(weights: Tensor, rows: Tensor, parts: Tensor) -> Tensor:
    """Weights of chosen rows over those of their own part, each row of them divided by its sum.

    Parameters
    ----------
    weights
        ``(..., n_query, n)``, not negative.
    rows
        Which rows ask, int64 ``(n_query,)``.
    parts
        Part (segment or window) of each row, int64 ``(n,)``.

    Returns
    -------
    The shape of `weights`; a row that reads nothing stays 0.
    """
    weights = weights * (parts[rows, None] == parts)
    return weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode within a ``with`` block, then the modes there were before."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
