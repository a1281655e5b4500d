"""Features of a histology image around the spots, a second modality of slices that come with a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

RADIUS = 0.5  # of the window, in diameters of a spot
QUANTILES = (0.1, 0.5, 0.9)


def features(spatial: Mapping[str, Any], coordinates: np.ndarray) -> np.ndarray:
    """Standardised features ``(n_obs, 25)`` of the thumbnail.

    Five channels (red, green, blue, optical density, gradient of the density), of each in the disc of the spot the
    mean, the standard deviation and the quantiles .1, .5 and .9. In larger windows neighbouring spots would share
    pixels, and with them noise, which every method that averages or predicts from neighbours takes for signal.

    Parameters
    ----------
    spatial
        Entry of ``uns["spatial"]``, with ``images["lowres"]`` and its scale factors.
    coordinates
        ``(n_obs, 2)``: column and row of the spots in the image of full resolution.
    """
    scale = spatial["scalefactors"]["tissue_lowres_scalef"]
    diameter = spatial["scalefactors"]["spot_diameter_fullres"] * scale
    rgb = np.asarray(spatial["images"]["lowres"], dtype=np.float32)
    density = -np.log((rgb + 1) / 256).mean(axis=2)
    channels = np.dstack([rgb, density, np.hypot(*np.gradient(density))])
    column, row = np.round(coordinates * scale).astype(int).T
    reach = int(np.ceil(RADIUS * diameter))
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    inside = np.hypot(dx, dy) <= RADIUS * diameter
    padded = np.pad(channels, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    window = padded[row[:, None] + reach + dy[inside], column[:, None] + reach + dx[inside]]
    x = np.hstack([window.mean(axis=1), window.std(axis=1), *np.quantile(window, QUANTILES, axis=1)])
    return ((x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-9)).astype(np.float32)
