"""Features of the patches of slides, a batch of spots at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from skimage.transform import resize
from tqdm.auto import tqdm

from stomics_tools.pp._slide_lookup import Section
from stomics_tools.pp._slides import read_patches

SMALLEST = 5
"""Least side of a patch in pixels, that the textures of largest reach fit into."""

Describe = Callable[[np.ndarray], tuple[list[str], np.ndarray]]
"""From patches, float32 ``(n, side, side, 3)`` in [0, 1], to names of ``d`` features and values ``(n, d)``."""


def check_sides(section: Section, sizes: Sequence[float]) -> None:
    """Raise ``ValueError`` if a patch is larger than the image or has too few pixels."""
    height, width = section.slide.shape
    where = "the image" if section.name is None else f"the image of section {section.name!r}"
    for size in sizes:
        side = _side(size, section.pixel_size)
        if side > min(height, width):
            raise ValueError(
                f"`patch_sizes`: {where} of {width} x {height} pixels (width x height) is smaller than a patch of "
                f"{size:g}, which has {side} pixels a side. Give smaller patches or check `scale` and `pixel_size`."
            )
        if side < SMALLEST:
            raise ValueError(
                f"`patch_sizes`: a patch of {size:g} has {side} pixels a side in {where}, at least {SMALLEST} are needed. "
                "Give larger patches or an image of higher resolution."
            )


def stream_features(
    sections: Sequence[Section],
    describe: Describe,
    sizes: Sequence[float],
    *,
    n_pixels: int | None = None,
    neighbors: np.ndarray | None = None,
    batch_size: int = 32,
    show_progress_bar: bool = False,
) -> tuple[list[str], np.ndarray]:
    """Features of every spot of every section.

    Parameters
    ----------
    sections
        Whose ``rows`` together are ``0 .. n_obs - 1``.
    describe
        What turns patches into features.
    sizes
        Of the patches, in the unit of the sections' ``pixel_size``.
    n_pixels
        Side that patches of all sizes are resampled to. Default: that of the smallest.
    neighbors
        Spots ``(n_obs, k)`` whose mean features are appended to those of each spot.
    batch_size
        Spots whose patches are held in memory at once.
    show_progress_bar
        Whether to show progress.

    Returns
    -------
    Names ``p<size>_<feature>`` of the features, those of the neighbours with ``nb_`` before it, and their float32
    values ``(n_obs, n_features)``.
    """
    names: list[str] = []
    values = np.empty((0, 0), dtype=np.float32)  # of the width that the first batch turns out to have
    n_obs = sum(len(section.rows) for section in sections)
    with tqdm(total=n_obs, disable=not show_progress_bar, unit="spot") as progress:
        for section in sections:
            for rows, patches in _batches(section, sizes, n_pixels, batch_size):
                described = [describe(of_size) for of_size in patches]
                if not names:
                    names = [f"p{size:g}_{name}" for size, (of, _) in zip(sizes, described, strict=True) for name in of]
                    values = np.empty((n_obs, len(names) * (1 if neighbors is None else 2)), dtype=np.float32)
                values[rows, : len(names)] = np.hstack([of_size for _, of_size in described])
                progress.update(len(rows))
    if neighbors is None:
        return names, values
    own, around = values[:, : len(names)], values[:, len(names) :]
    for start in range(0, n_obs, batch_size):
        part = slice(start, start + batch_size)
        own[neighbors[part]].mean(axis=1, out=around[part])
    return names + [f"nb_{name}" for name in names], values


def _batches(
    section: Section, sizes: Sequence[float], n_pixels: int | None, batch_size: int
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Rows of a batch of spots and, for each size, their patches ``(n, side, side, 3)``."""
    sides = [_side(size, section.pixel_size) for size in sizes]
    common = min(sides) if n_pixels is None else n_pixels
    pixels = section.slide.load()
    for start in range(0, len(section.rows), batch_size):
        part = slice(start, start + batch_size)
        read = [read_patches(pixels, section.slide.shape, centre, sides) for centre in section.xy[part]]
        stacks = [np.stack(of_size) for of_size in zip(*read, strict=True)]
        yield section.rows[part], [_resample(patches, common) for patches in stacks]


def _side(size: float, pixel_size: float) -> int:
    return int(size / pixel_size + 0.5)


def _resample(patches: np.ndarray, side: int) -> np.ndarray:
    if patches.shape[1] == side:
        return patches
    return np.stack([resize(patch, (side, side), anti_aliasing=True) for patch in patches])
