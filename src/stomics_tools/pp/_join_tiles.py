"""Features of the tiles of a slide, as LazySlide makes them, joined to spots by position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd
from anndata import AnnData
from scanpy import logging as logg
from scipy import sparse

from stomics_tools import _keys
from stomics_tools._params import plain_params
from stomics_tools._validate import (
    check_annotated,
    check_categories,
    check_coordinates,
    check_finite,
    check_key,
    check_new_key,
    check_number,
    check_obs_names,
    check_option,
)
from stomics_tools.pp._tile_weights import tile_pitch, tile_weights

How = Literal["nearest", "mean"]
Tiles: TypeAlias = AnnData | tuple[Any, Any]


def join_tile_features(
    adata: AnnData,
    tiles: Tiles | Mapping[str, Tiles],
    *,
    spatial_key: str = _keys.SPATIAL,
    tile_spatial_key: str = _keys.SPATIAL,
    section_key: str | None = None,
    radius: float | None = None,
    how: How = "nearest",
    encoder: str | None = None,
    key_added: str = _keys.IMAGE,
    copy: bool = False,
) -> AnnData | None:
    """Give each spot the features of the tile it lies in, or the mean of the tiles around it.

    Parameters
    ----------
    adata
        Spots; only ``obs`` and ``obsm`` are read.
    tiles
        Features of the tiles of the slide:

        - a table of LazySlide with its places, ``wsi.fetch.features_anndata("uni")``: features in ``X``, upper left
          corners of the tiles in ``obsm["spatial"]`` and their size in ``uns["tile_spec"]``, from which centres follow;
        - any other AnnData with features in ``X`` and the centres of the tiles in ``obsm[tile_spatial_key]``;
        - a pair of centres ``(n_tiles, 2)`` and features ``(n_tiles, n_features)``, an array or a data frame;
        - with `section_key`, a mapping of section to one of these.
    spatial_key
        Key of the coordinates of the spots in ``obsm``: ``(n_obs, 2)``, in the same unit as those of the tiles, which
        with LazySlide are pixels (x, y) of the slide at full resolution.
    tile_spatial_key
        Key of the coordinates in ``obsm`` of the tiles.
    section_key
        Column of ``obs`` that tells the slides apart.
    radius
        Farthest distance of the centre of a tile from a spot. Default: the pitch of the tiles, which is the median
        distance of a tile from the nearest other.
    how
        Take the ``"nearest"`` tile within the radius, or the ``"mean"`` of all tiles within it.
    encoder
        Name of what made the features, such as ``"uni"``, to be recorded.
    key_added
        Where results are written.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    The copy if `copy`, else ``None``. Written are:

    ``obsm[key_added]``
        float32 data frame ``(n_obs, n_features)``. Columns are named as the features of the tiles are.
    ``uns[key_added]["params"]``
        The settings, with ``encoder``, and ``pitch`` and ``radius`` of each slide.

    Raises
    ------
    KeyError
        If coordinates, sections, or the tiles of a section do not exist.
    ValueError
        If a spot has no tile within the radius; if features of the tiles hold missing values, do not fit their places,
        or differ between sections; if observation names repeat.
    """
    check_annotated(adata, mudata=False)
    check_new_key(key_added, argument="key_added")
    check_option(how, get_args(How), argument="how")
    if radius is not None:
        radius = check_number(radius, argument="radius", low=0, open_low=True)
    check_obs_names(adata.obs_names)
    check_key(spatial_key, adata.obsm.keys(), argument="spatial_key", where="adata.obsm")
    xy = _plane(adata.obsm[spatial_key], argument="spatial_key", where=f"adata.obsm[{spatial_key!r}]")
    start = logg.info("joining features of tiles to spots")

    columns: pd.Index | None = None
    values = np.empty((0, 0), dtype=np.float32)
    pitches, radii = [], []
    for argument, rows, own in _sections(adata, tiles, section_key):
        centres, features, found = _read_tiles(own, tile_spatial_key, argument)
        if columns is None:
            columns, values = found, np.empty((adata.n_obs, len(found)), dtype=np.float32)
        if not found.equals(columns):
            raise ValueError(
                f"`{argument}`: features differ between sections: {len(found)} beginning with {found[:2].tolist()}, in "
                f"sections before {len(columns)} beginning with {columns[:2].tolist()}. Use one encoder for all."
            )
        pitches.append(tile_pitch(centres))
        if radius is None and len(centres) == 1:
            raise ValueError(f"`{argument}`: a single tile has no pitch. Give a `radius`.")
        radii.append(pitches[-1] if radius is None else radius)
        weights = tile_weights(xy[rows], centres, radius=radii[-1], pitch=pitches[-1], how=how, argument=argument)
        mixed = weights @ features
        values[rows] = mixed.toarray() if sparse.issparse(mixed) else mixed

    adata = adata.copy() if copy else adata
    adata.obsm[key_added] = pd.DataFrame(values, index=adata.obs_names, columns=columns)
    params = {
        "encoder": encoder,
        "how": how,
        "spatial_key": spatial_key,
        "section_key": section_key,
        "radius": radii,
        "pitch": pitches,
    }
    adata.uns[key_added] = {"params": plain_params(params)}
    logg.info("    finished", time=start, deep=f"added\n    `obsm[{key_added!r}]`, `uns[{key_added!r}]`")
    return adata if copy else None


def _sections(adata: AnnData, tiles: Any, section_key: str | None) -> list[tuple[str, np.ndarray, Any]]:
    """Name for messages, rows and tiles of each section."""
    if section_key is None:
        if isinstance(tiles, Mapping):
            raise ValueError("`tiles` is a mapping of sections: name the column of sections as `section_key`.")
        return [("tiles", np.arange(adata.n_obs), tiles)]
    check_key(section_key, adata.obs.columns, argument="section_key", where="adata.obs")
    codes, names = check_categories(adata.obs[section_key], argument="section_key", where=f"adata.obs[{section_key!r}]")
    if not isinstance(tiles, Mapping):
        raise ValueError(
            f"`tiles` must be a mapping of the sections {names} to their tiles, as `section_key` names them."
        )
    for name in names:
        check_key(name, tiles, argument="section_key", where="tiles")
    return [(f"tiles[{name!r}]", np.flatnonzero(codes == code), tiles[name]) for code, name in enumerate(names)]


def _plane(coordinates: Any, *, argument: str, where: str) -> np.ndarray:
    xy = check_coordinates(coordinates, argument=argument, where=where)
    if xy.shape[1] != 2:
        raise ValueError(f"`{argument}`: `{where}` must have 2 columns (x, y), found {xy.shape[1]}.")
    return xy


def _read_tiles(tiles: Any, spatial_key: str, argument: str) -> tuple[np.ndarray, Any, pd.Index]:
    """Centres ``(n_tiles, 2)`` of tiles, a dense or sparse array of their features, and the names of these."""
    if isinstance(tiles, AnnData):
        if spatial_key not in tiles.obsm:
            raise KeyError(
                f"`tile_spatial_key`: key {spatial_key!r} not found in `{argument}.obsm`. Available keys: "
                f"{list(tiles.obsm.keys())}. LazySlide's table with places is `wsi.fetch.features_anndata(key)`."
            )
        centres = _plane(tiles.obsm[spatial_key], argument="tiles", where=f"{argument}.obsm[{spatial_key!r}]")
        if "tile_spec" in tiles.uns:
            spec = tiles.uns["tile_spec"]
            centres = centres + np.array([spec["width"], spec["height"]]) * spec["base_downsample"] / 2
        features, names = tiles.X, tiles.var_names
    elif isinstance(tiles, tuple) and len(tiles) == 2:
        centres = _plane(tiles[0], argument="tiles", where=f"{argument}[0]")
        features = tiles[1]
        named = isinstance(features, pd.DataFrame)
        names = (
            features.columns.astype(str) if named else pd.Index([f"feature{j}" for j in range(np.shape(features)[-1])])
        )
    else:
        raise TypeError(f"`{argument}` must be an AnnData or a pair (centres, features), found {type(tiles).__name__}.")
    features = features.astype(np.float32) if sparse.issparse(features) else np.asarray(features, dtype=np.float32)
    if features.ndim != 2 or len(centres) != features.shape[0] or not len(centres):
        raise ValueError(
            f"`{argument}`: features must be an array (n_tiles, n_features) of as many tiles as there are centres, "
            f"found the shape {features.shape} and {len(centres)} centres."
        )
    check_finite(features, argument="tiles", where=f"features of {argument}")
    return centres, features, names
