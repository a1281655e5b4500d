"""Features of the image around each spot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scanpy import logging as logg

from stomics_tools import _keys
from stomics_tools._params import plain_params
from stomics_tools._validate import (
    check_annotated,
    check_categories,
    check_coordinates,
    check_integer,
    check_key,
    check_new_key,
    check_number,
    check_obs_names,
)
from stomics_tools.data._graphs import spatial_knn
from stomics_tools.pp._patch_stream import SMALLEST, Describe, check_sides, stream_features
from stomics_tools.pp._patch_texture import HANDCRAFTED, describe_patches
from stomics_tools.pp._slide_lookup import match_slides


def patch_features(
    adata: AnnData,
    image: Any = None,
    *,
    spatial_key: str = _keys.SPATIAL,
    section_key: str | None = None,
    scale: float | Mapping[str, float] | None = None,
    patch_sizes: Sequence[float] = (160.0, 320.0),
    pixel_size: float | Mapping[str, float] = 1.0,
    n_pixels: int | None = None,
    encoder: str | Callable[..., Any] | None = None,
    weights: str | Path | None = None,
    n_neighbors: int = 6,
    batch_size: int = 32,
    show_progress_bar: bool = True,
    key_added: str = _keys.IMAGE,
    copy: bool = False,
) -> AnnData | None:
    """Features of square patches of a histology image around each spot.

    By default they are computed without any trained weights: colours, densities of the stains of H&E, nuclei-like
    areas and texture, more than three hundred named columns. A pretrained network can take their place.

    Parameters
    ----------
    adata
        Annotated data; only ``obs``, ``obsm`` and, without `image`, ``uns["spatial"]`` are read.
    image
        RGB image of the slide, as

        - an array ``(height, width, 3)``, uint8 or floats in [0, 1], in memory or lazily sliceable (dask, zarr),
        - the path of a JPEG or PNG (decoded once) or of a TIFF (read patch by patch),
        - a mapping of section to image, for the sections that `section_key` tells apart,
        - ``None``: the image in ``uns["spatial"][library]["images"]``, "hires" or else "lowres". It shows little of
          the texture that a full-resolution image has. With `section_key`, sections are the names of the libraries.
    spatial_key
        Key of the coordinates in ``obsm``: ``(n_obs, 2)``, pixels (x, y) of the image of full resolution.
    section_key
        Column of ``obs`` that tells the slides apart; neighbours are of the same slide.
    scale
        Pixels of `image` per pixel of full resolution, or a mapping of section to that. Default: 1, or that of the
        image in ``uns``. If given, it is taken on trust that coordinates are right.
    patch_sizes
        Sides of the patches, in pixels of full resolution; in micrometres if `pixel_size` is in micrometres.
    pixel_size
        Side of a pixel of full resolution in the unit of `patch_sizes`, or a mapping of section to that.
    n_pixels
        Resample patches of all sizes to so many pixels a side. Default: those that the smallest patch has, so that
        larger patches show coarser texture. Slides scanned at different magnifications can be compared if both
        `pixel_size` and `n_pixels` are given.
    encoder
        ``None`` for the handcrafted features; a callable from a float32 tensor ``(n, 3, side, side)`` in [0, 1] to a
        tensor or array ``(n, d)``, such as a torch module; ``"timm:<model>"`` or ``"open_clip:<model>"``, which need
        the extra ``stomics-tools[histology]`` and `weights`, resize patches to the model's input and normalise them.
    weights
        Of an encoder given by name: a file; or, to let the package take weights from its cache or download them,
        ``"pretrained"`` (timm) or one of the model's tags (open_clip).
    n_neighbors
        Append the mean features of so many nearest spots of the slide, the spot itself not counted. 0: do not.
    batch_size
        Spots whose patches are held in memory, and handed to the encoder, at once.
    show_progress_bar
        Whether to show progress.
    key_added
        Where results are written.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    The copy if `copy`, else ``None``. Written are:

    ``obsm[key_added]``
        float32 ``(n_obs, n_features)``. The handcrafted features are a data frame, its columns named
        ``p<patch size>_<feature>``, those of the neighbours ``nb_p<patch size>_<feature>``. The features of an encoder,
        which have no names, are an array (h5ad files do not hold data frames of several thousand columns), patch size
        after patch size, then those of the neighbours.
    ``uns[key_added]["params"]``
        The settings; ``encoder`` is ``"handcrafted"`` or the name of the encoder.

    Raises
    ------
    KeyError
        If coordinates, sections or the image in ``uns`` do not exist.
    ValueError
        If the image is not RGB, is smaller than a patch or has fewer than 5 pixels a patch; if spots are outside of
        it, or all in one corner of it with no `scale` given; for missing values; if observation names repeat.
    ImportError
        If the package of the encoder is not installed.

    Notes
    -----
    Where a patch reaches over the border of the image it is continued by its mirror image. Memory beside image and
    result is that of the patches of one batch. The handcrafted features are described at
    :doc:`/user_guide/histology_features`.
    """
    check_annotated(adata, mudata=False)
    check_new_key(key_added, argument="key_added")
    check_obs_names(adata.obs_names)
    check_integer(n_neighbors, argument="n_neighbors", minimum=0)
    check_integer(batch_size, argument="batch_size")
    sizes = [check_number(size, argument="patch_sizes", low=0, open_low=True) for size in patch_sizes]
    if not sizes or len(set(sizes)) < len(sizes):
        raise ValueError(f"`patch_sizes` must be one or more different sizes, found {list(patch_sizes)}.")
    if n_pixels is not None:
        check_integer(n_pixels, argument="n_pixels", minimum=SMALLEST)
    check_key(spatial_key, adata.obsm.keys(), argument="spatial_key", where="adata.obsm")
    xy = check_coordinates(adata.obsm[spatial_key], argument="spatial_key", where=f"adata.obsm[{spatial_key!r}]")
    if xy.shape[1] != 2:
        raise ValueError(
            f"`spatial_key`: `adata.obsm[{spatial_key!r}]` must be pixels (x, y) of the image, "
            f"found {xy.shape[1]} columns. Store these two columns under a key of their own."
        )
    codes, names = np.zeros(adata.n_obs, dtype=np.int64), None
    if section_key is not None:
        check_key(section_key, adata.obs.columns, argument="section_key", where="adata.obs")
        codes, names = check_categories(
            adata.obs[section_key], argument="section_key", where=f"adata.obs[{section_key!r}]"
        )
    neighbors = None
    if n_neighbors:
        neighbors = spatial_knn(xy, n_neighbors, codes).indices.reshape(adata.n_obs, n_neighbors)
    sections = match_slides(adata, image, xy, codes, names, scale=scale, pixel_size=pixel_size)
    for section in sections:
        check_sides(section, sizes)
    encoder_name = HANDCRAFTED
    describe: Describe = describe_patches
    if encoder is not None or weights is not None:
        from stomics_tools.pp._patch_networks import resolve_encoder  # imports torch

        encoder_name, describe = resolve_encoder(encoder, weights)

    start = logg.info(f"computing {encoder_name} features of patches")
    columns, values = stream_features(
        sections,
        describe,
        sizes,
        n_pixels=n_pixels,
        neighbors=neighbors,
        batch_size=batch_size,
        show_progress_bar=show_progress_bar,
    )
    adata = adata.copy() if copy else adata
    named = encoder is None
    adata.obsm[key_added] = (
        pd.DataFrame(values, index=adata.obs_names, columns=columns, copy=False) if named else values
    )
    params = {
        "encoder": encoder_name,
        "weights": None if weights is None else str(weights),
        "patch_sizes": sizes,
        "n_pixels": n_pixels,
        "n_neighbors": n_neighbors,
        "spatial_key": spatial_key,
        "section_key": section_key,
        "sections": names,
        "scale": [section.scale for section in sections],
        "pixel_size": [section.pixel_size * section.scale for section in sections],
    }
    adata.uns[key_added] = {"params": plain_params(params)}
    logg.info("    finished", time=start, deep=f"added\n    `obsm[{key_added!r}]`, `uns[{key_added!r}]`")
    return adata if copy else None
