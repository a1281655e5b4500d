"""Spots as circles on the tissue, and the image of the tissue below them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from mpl_toolkits.mplot3d import Axes3D
from mudata import MuData
from sklearn.neighbors import NearestNeighbors

from stomics_tools._validate import check_number
from stomics_tools.data._libraries import image_libraries, stored_image
from stomics_tools.pl._lookup import holders


@dataclass(frozen=True)
class Picture:
    """Image of a slice ``(height, width)`` or ``(height, width, 3 or 4)``, `scale` pixels per unit of coordinates."""

    pixels: np.ndarray
    scale: float

    def draw(self, ax: Axes) -> None:
        """Draw the image in the coordinates of the spots, the centre of its first pixel at the origin."""
        if isinstance(ax, Axes3D):
            raise ValueError("`img_key`: the spots fill three dimensions, and an image is flat. Leave it out.")
        height, width = self.pixels.shape[:2]
        extent = tuple(edge / self.scale for edge in (-0.5, width - 0.5, height - 0.5, -0.5))
        ax.imshow(self.pixels, extent=extent, cmap="gray", zorder=0)  # type: ignore[arg-type]


def slice_pictures(
    adata: AnnData | MuData,
    slices: Iterable[str],
    *,
    img_key: str | None,
    library_id: str | Mapping[str, str] | None,
    batch_key: str | None,
) -> dict[str, Picture]:
    """Image of each slice, of the library that has its name, or of the only one; empty if none is asked for.

    Raises
    ------
    KeyError
        If there is no such library or image.
    ValueError
        If it is not clear which library is meant, or what is stored is no image.
    """
    if img_key is None and library_id is None:
        return {}
    argument = "img_key" if library_id is None else "library_id"
    uns = next((part.uns for part in holders(adata).values() if "spatial" in part.uns), adata.uns)
    libraries = image_libraries(uns, argument=argument)
    pictures = {}
    for name in slices:
        library = library_id.get(name, name) if isinstance(library_id, Mapping) else library_id
        if library is None:
            library = name if batch_key is not None and name in libraries else None
        if library is None:
            if len(libraries) > 1:
                hint = (
                    f"its slice {name!r} is none of them" if batch_key else "name the column of slices as `batch_key`"
                )
                raise ValueError(
                    f"`{argument}`: `adata.uns['spatial']` has the libraries {list(libraries)}; {hint}. "
                    "Give `library_id`."
                )
            (library,) = libraries
        pixels, scale, where = stored_image(libraries, library, img_key, argument=argument)
        pixels = np.asarray(pixels)
        if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
            raise ValueError(
                f"`{argument}`: `{where}` must have shape (height, width) or (height, width, 3 or 4), "
                f"found {pixels.shape}."
            )
        pictures[name] = Picture(pixels, scale)
    return pictures


def is_solid(xyz: np.ndarray) -> bool:
    """Whether spots fill three dimensions; a slice has one z."""
    return xyz.shape[1] == 3 and np.ptp(xyz[:, 2]) > 0


def panel_grid(
    solid: Sequence[bool], ncols: int, margin: float, *, panel: tuple[float, float] = (4.2, 4.0)
) -> list[Axes]:
    """A panel for each slice, with axes for three dimensions where they are `solid`; `margin` and `panel` in inches."""
    columns = min(ncols, len(solid))
    rows = -(-len(solid) // columns)
    figure = plt.figure(figsize=(panel[0] * columns + margin, panel[1] * rows), layout="constrained")
    return [
        figure.add_subplot(rows, columns, i + 1, projection="3d" if is_solid else None)
        for i, is_solid in enumerate(solid)
    ]


def pitch(xyz: np.ndarray) -> float:
    """Typical distance between neighbours: on a lattice its spacing, of spots on one point none."""
    points = np.unique(xyz, axis=0)
    n_neighbors = min(4, len(points) - 1)
    if n_neighbors < 1:
        return 1.0
    distances, _ = NearestNeighbors(n_neighbors=n_neighbors, algorithm="kd_tree").fit(points).kneighbors()
    return float(np.median(distances))


def draw_spots(
    ax: Axes,
    xyz: np.ndarray,
    rgba: np.ndarray,
    size: float,
    *,
    unit: float | None = None,
    picture: Picture | None = None,
) -> None:
    """Draw circles of colours `rgba` ``(n_obs, 4)``, as wide as `size` times the distance between neighbours.

    `unit` is the distance to be used in place of that. A `picture` is drawn below them.
    """
    check_number(size, argument="size", low=0, open_low=True)
    if picture is not None:
        picture.draw(ax)
    if unit is None:
        unit = pitch(xyz if isinstance(ax, Axes3D) else xyz[:, :2])
    if isinstance(ax, Axes3D):
        # Points of a 3-D plot have a size on paper only.
        area = 0.5 * (size * 200 * unit / np.ptp(xyz, axis=0).max()) ** 2
        ax.scatter(*xyz.T, c=rgba, s=area, depthshade=False, linewidths=0)
        ax.set_box_aspect(np.ptp(xyz, axis=0))
        ax.set(xticklabels=[], yticklabels=[], zticklabels=[])
        return
    xy = xyz[:, :2]
    width = np.full(len(xy), size * unit)
    spots = EllipseCollection(
        width, width, np.zeros(len(xy)), units="xy", offsets=xy, offset_transform=ax.transData, facecolors=rgba
    )
    spots.set_linewidth(0)
    ax.add_collection(spots, autolim=False)
    low, high = xy.min(axis=0) - width[0], xy.max(axis=0) + width[0]
    ax.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]), xticks=[], yticks=[], aspect="equal")
