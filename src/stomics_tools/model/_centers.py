"""Centers of slices: what is subtracted from spots, and comes back in results."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def subtract_centers(
    x: Tensor, center: Tensor, segments: Sequence[int], *, by_slice: bool, present: Tensor | None = None
) -> Tensor:
    """Center spots in place, slice by slice or all by one center.

    Parameters
    ----------
    x
        ``(n_obs, n_features)``, slice after slice.
    center
        ``(n_features,)``: of all spots, and of slices of which it is not known, as no spot was measured.
    segments
        First row of each slice, and the number of rows.
    by_slice
        Whether a slice is centered by its own mean.
    present
        Whether a spot was measured, bool ``(n_obs,)``; by default all were.

    Returns
    -------
    What was subtracted from the spots of each slice, ``(n_slices, n_features)``.
    """
    x -= center
    subtracted = center.repeat(len(segments) - 1, 1)
    for i, (first, last) in enumerate(zip(segments[:-1], segments[1:], strict=True) if by_slice else []):
        part = x[first:last]
        measured = part if present is None else part[present[first:last]]
        if len(measured):
            mean = measured.mean(0)
            part -= mean
            subtracted[i] += mean
    return subtracted


def add_centers(x: Tensor, centers: Tensor, segments: Sequence[int]) -> Tensor:
    """Add back what :func:`subtract_centers` returned, in place."""
    for center, first, last in zip(centers, segments[:-1], segments[1:], strict=True):
        x[first:last] += center
    return x


def slice_sums(x: Tensor, segments: Sequence[int]) -> Tensor:
    """For each spot the sum over its slice, ``(n_obs, width)``."""
    lengths = torch.tensor(segments, device=x.device).diff()
    sums = torch.stack([part.sum(0) for part in x.split(lengths.tolist())])
    return sums.repeat_interleave(lengths, dim=0)
