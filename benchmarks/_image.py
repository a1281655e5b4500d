"""Features of a histology image around the spots, a second modality of slices that come with a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from skimage.color import rgb2hed

RADIUS = 0.5  # of the window, in diameters of a spot


def features(spatial: Mapping[str, Any], coordinates: np.ndarray) -> np.ndarray:
    """Haematoxylin and eosin of each spot, standardised: ``(n_obs, 2)``.

    The densities of the two stains (colour deconvolution, Ruifrok & Johnston 2001) in the thumbnail, their mean over
    the disc of the spot: at this resolution it has some fifteen pixels, too few to tell of texture. In larger windows
    neighbouring spots would share pixels, and with them noise, which every method that averages or predicts from
    neighbours takes for signal.

    Parameters
    ----------
    spatial
        Entry of ``uns["spatial"]``, with ``images["lowres"]`` (0 to 255) and its scale factors.
    coordinates
        ``(n_obs, 2)``: column and row of the spots in the image of full resolution.
    """
    scale = spatial["scalefactors"]["tissue_lowres_scalef"]
    diameter = spatial["scalefactors"]["spot_diameter_fullres"] * scale
    rgb = np.asarray(spatial["images"]["lowres"], dtype=np.float32)
    stains = rgb2hed(rgb / 255)[..., :2]
    column, row = np.round(coordinates * scale).astype(int).T
    reach = int(np.ceil(RADIUS * diameter))
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    inside = np.hypot(dx, dy) <= RADIUS * diameter
    padded = np.pad(stains, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    x = padded[row[:, None] + reach + dy[inside], column[:, None] + reach + dx[inside]].mean(axis=1)
    return ((x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-9)).astype(np.float32)
