"""RGB images of slides, in memory, in a file or lazily sliceable, and square patches of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tifffile import TiffFile, TiffFileError, imread

from stomics_tools._paths import user_path

_TIFF = (".tif", ".tiff", ".svs", ".btf", ".ndpi", ".scn")
_BLOCK_ROWS = 512


@dataclass(frozen=True)
class Slide:
    """An image that is opened but, where it is a file, not yet decoded.

    ``shape`` is (height, width); ``load()`` gives a sliceable ``(height, width, 3)`` of uint8 or of floats in [0, 1].
    """

    shape: tuple[int, int]
    load: Callable[[], Any]


def open_slide(image: Any, *, argument: str) -> Slide:
    """Open an array or file as a slide.

    Parameters
    ----------
    image
        Array, tensor or lazily sliceable array ``(height, width, 3)``, uint8 or floats in [0, 1], or the path of a JPEG, PNG
        or other file that Pillow reads, which is decoded as a whole when loaded, or of a TIFF, which is read piecewise.
    argument
        What the caller named it, for the messages.

    Raises
    ------
    FileNotFoundError
        If there is no file of that path.
    ValueError
        If the file cannot be read or the image is not RGB, has other values than described or NaN.
    """
    if isinstance(image, str | Path):
        return _open_file(user_path(image), argument)
    if hasattr(image, "detach"):  # a tensor of torch
        image = image.detach().cpu().numpy()
    if not all(hasattr(image, name) for name in ("shape", "dtype", "__getitem__")):
        raise TypeError(f"`{argument}` must be an array or the path of a file, found {type(image).__name__}.")
    try:
        dtype = np.dtype(image.dtype)
    except TypeError as error:
        raise TypeError(
            f"`{argument}` must be an array with a dtype of NumPy, found {type(image).__name__} of {image.dtype}. Convert "
            "it by `numpy.asarray`."
        ) from error
    return _checked(tuple(image.shape), dtype, lambda: image, argument)


def _open_file(path: Path, argument: str) -> Slide:
    if not path.is_file():
        raise FileNotFoundError(f"`{argument}`: there is no file {str(path)!r}.")
    try:
        if path.suffix.lower() in _TIFF:
            with TiffFile(path) as tiff:
                shape, dtype = tiff.series[0].shape, tiff.series[0].dtype
            return _checked(tuple(shape), np.dtype(dtype), lambda: _lazy_tiff(path), argument)
        with _any_size(), Image.open(path) as picture:
            mode, (width, height) = picture.mode, picture.size
    except (OSError, IndexError, TiffFileError) as error:
        raise ValueError(f"`{argument}`: {str(path)!r} could not be read as an image ({error}).") from error
    if mode != "RGB":
        raise ValueError(f"`{argument}` must be an RGB image, {str(path)!r} is of mode {mode!r}. Convert it first.")
    return Slide((height, width), lambda: _decode(path))


def _lazy_tiff(path: Path) -> Any:
    import zarr

    return zarr.open(imread(path, aszarr=True, series=0, level=0), mode="r")


def _decode(path: Path) -> np.ndarray:
    with _any_size(), Image.open(path) as picture:
        return np.asarray(picture)


@contextmanager
def _any_size() -> Iterator[None]:
    """Without Pillow's limit of pixels, which whole slides exceed and which is there for files of unknown origin."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _checked(shape: tuple[int, ...], dtype: np.dtype, load: Callable[[], Any], argument: str) -> Slide:
    if len(shape) != 3 or shape[2] != 3:
        hint = ""
        if len(shape) == 3 and shape[2] == 4:
            hint = " Drop the transparency by `image[..., :3]`."
        elif len(shape) == 3 and shape[0] == 3:
            hint = " Move the channels to the last axis."
        raise ValueError(f"`{argument}` must be an RGB image of shape (height, width, 3), found shape {shape}.{hint}")
    if dtype != np.uint8 and dtype.kind != "f":
        raise ValueError(f"`{argument}` must be uint8 or floats in [0, 1], found dtype {dtype}. Convert it first.")
    if dtype.kind == "f":
        _check_unit_interval(load(), shape[0], argument)
    return Slide((shape[0], shape[1]), load)


def _check_unit_interval(pixels: Any, height: int, argument: str) -> None:
    low, high = np.inf, -np.inf
    for top in range(0, height, _BLOCK_ROWS):
        block = np.asarray(pixels[top : top + _BLOCK_ROWS])
        low, high = min(low, block.min()), max(high, block.max())  # NaN if there are any
        if not np.isfinite(block).all():
            raise ValueError(f"`{argument}` holds NaN or infinite values. Fill them first.")
    if low < 0 or high > 1:
        hint = " Divide by 255." if 0 <= low and 1 < high <= 255 else ""
        raise ValueError(f"`{argument}` of floats must be in [0, 1], found values from {low:g} to {high:g}.{hint}")


def read_patches(pixels: Any, shape: tuple[int, int], centre: np.ndarray, sides: Sequence[int]) -> list[np.ndarray]:
    """Square patches of several sides around one point, from one slice of the image.

    Parameters
    ----------
    pixels
        Sliceable ``(height, width, 3)``, uint8 or floats in [0, 1].
    shape
        Its (height, width), no side of a patch being longer.
    centre
        (x, y) in its pixels, inside the image.
    sides
        In pixels.

    Returns
    -------
    For each side a float32 array ``(side, side, 3)`` in [0, 1]. What lies beyond the border of the image is its mirror
    image, the outermost pixel not repeated.
    """
    corners = [np.floor(centre[::-1] - side / 2 + 0.5).astype(int) for side in sides]  # (row, column)
    low = np.min(corners, axis=0)
    high = np.max([corner + side for corner, side in zip(corners, sides, strict=True)], axis=0)
    rows, columns = (_mirrored(*span) for span in zip(low, high, shape, strict=True))
    window = np.asarray(pixels[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1])
    window = window[np.ix_(rows - rows.min(), columns - columns.min())]
    window = window.astype(np.float32) / (255 if window.dtype == np.uint8 else 1)
    starts = [corner - low for corner in corners]
    return [window[r : r + side, c : c + side] for (r, c), side in zip(starts, sides, strict=True)]


def _mirrored(start: int, stop: int, n: int) -> np.ndarray:
    """Positions ``start .. stop - 1`` along an axis of `n` pixels, mirrored at its ends."""
    position = np.abs(np.arange(start, stop))
    return np.where(position < n, position, 2 * (n - 1) - position)
