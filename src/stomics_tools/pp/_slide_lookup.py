"""Which image belongs to which section of an AnnData, how their coordinates go together, and whether they do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from anndata import AnnData

from stomics_tools._validate import check_key, check_number
from stomics_tools.data._libraries import image_libraries, stored_image
from stomics_tools.pp._slides import Slide, open_slide

_CORNER = 0.25  # of both sides of an image: spots that all lie within may be in other units


@dataclass(frozen=True)
class Section:
    """Spots ``rows`` of an object at ``xy`` ``(n, 2)``, in pixels of ``slide``, and the side of a pixel in it."""

    name: str | None
    rows: np.ndarray
    slide: Slide
    xy: np.ndarray
    scale: float
    pixel_size: float


def match_slides(
    adata: AnnData,
    image: Any,
    xy: np.ndarray,
    codes: np.ndarray,
    names: list[str] | None,
    *,
    scale: float | Mapping[str, float] | None,
    pixel_size: float | Mapping[str, float],
) -> list[Section]:
    """Slides of the sections, checked to be images that the spots lie inside of.

    Parameters
    ----------
    adata
        Of which only ``uns["spatial"]`` is read, if `image` is ``None``.
    image
        One image, or one for every name, or ``None``.
    xy
        ``(n_obs, 2)``, pixels (x, y) of the images of full resolution.
    codes
        ``(n_obs,)``, the section of each spot.
    names
        Of the sections, ``None`` if there is one without a name.
    scale, pixel_size
        One for all sections, or one for every name.
    """
    if isinstance(image, Mapping) and names is None:
        raise ValueError("`image` is a mapping of sections to images: name the column of sections as `section_key`.")
    if image is not None and not isinstance(image, Mapping) and names is not None and len(names) > 1:
        raise ValueError(f"`image` is one image, but there are sections {names}. Give a mapping of section to image.")
    sections = []
    for code, name in enumerate(names or [None]):
        argument = f"image[{name!r}]" if isinstance(image, Mapping) else "image"
        factor = None if scale is None else _positive(scale, name, "scale")
        if image is None:
            found, in_uns, argument = _stored_image(adata, name)
            factor = in_uns if factor is None else factor
        else:
            found = _of_section(image, name, "image")
        slide = open_slide(found, argument=argument)
        rows = np.flatnonzero(codes == code)
        _check_positions(xy[rows], slide.shape, factor, argument)
        factor = 1.0 if factor is None else factor
        size = _positive(pixel_size, name, "pixel_size") / factor
        sections.append(Section(name, rows, slide, xy[rows] * factor, factor, size))
    return sections


def _of_section(value: Any, name: str | None, argument: str) -> Any:
    """The part of an argument that is for one section."""
    if isinstance(value, Mapping):
        if name is None:
            raise ValueError(f"`{argument}` is a mapping of sections: name the column of sections as `section_key`.")
        check_key(name, value, argument="section_key", where=argument)
        return value[name]
    return value


def _positive(value: float | Mapping[str, float], name: str | None, argument: str) -> float:
    return check_number(_of_section(value, name, argument), argument=argument, low=0, open_low=True)


def _stored_image(adata: AnnData, name: str | None) -> tuple[Any, float, str]:
    """Image that squidpy and scanpy keep in ``uns``, its scale and where it was."""
    libraries = image_libraries(adata.uns, argument="image=None")
    if name is None:
        if len(libraries) != 1:
            raise ValueError(
                f"`image=None`: `adata.uns['spatial']` has the libraries {list(libraries)}. "
                "Name the column of `adata.obs` that tells them apart as `section_key`, or give `image`."
            )
        (name,) = libraries
    return stored_image(libraries, name, None, argument="image=None")


def _check_positions(xy: np.ndarray, shape: tuple[int, int], scale: float | None, argument: str) -> None:
    """Raise ``ValueError`` where spots are outside the image, or all in its corner with no `scale` given for it."""
    size = np.array(shape[::-1])
    factor = 1.0 if scale is None else scale
    low, high = xy.min(axis=0), xy.max(axis=0)
    ranges = f"x from {low[0]:.0f} to {high[0]:.0f}, y from {low[1]:.0f} to {high[1]:.0f}"
    found = f"coordinates have {ranges}, `{argument}` has {size[0]} x {size[1]} pixels (width x height)"
    fitting = float((size / np.maximum(high, 1e-9)).min())
    outside = ((xy * factor < 0) | (xy * factor > size)).any(axis=1)
    if outside.any():
        if (low >= 0).all() and (high[::-1] * factor <= size).all():
            hint = "They would fit if x and y were swapped: the columns must be (x, y)."
        elif (high * factor > 1.05 * size).any() and (low >= 0).all():
            hint = (
                "If coordinates are of another resolution, give `scale`, pixels of the image per unit of coordinates: "
                f"at most {fitting:.3g} here. Else it is another image."
            )
        else:
            hint = "Leave these spots out, or correct their coordinates."
        raise ValueError(
            f"`{argument}`: {int(outside.sum())} of {len(xy)} spots lie outside the image: {found}, "
            f"the scale between them is {factor:g}. {hint}"
        )
    if scale is None and len(xy) > 1 and (high < _CORNER * size).all():
        raise ValueError(
            f"`{argument}`: all {len(xy)} spots lie in one corner of the image: {found}. If coordinates are of another "
            f"resolution, give `scale`, pixels of the image per unit of coordinates: at most "
            f"{fitting:.3g}, and not much less if the spots cover the image. If they are right, say so by `scale=1`."
        )
