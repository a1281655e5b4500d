"""Colour, stains, nuclei and texture of one RGB patch, without any trained weights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import ndimage
from skimage.color import rgb2gray, rgb2hed
from skimage.feature import graycomatrix, graycoprops, local_binary_pattern
from skimage.filters import threshold_otsu

HANDCRAFTED = "handcrafted"
"""What is recorded as the encoder of these features."""

_REACH = 4  # pixels, the largest radius or distance of a texture
_LBP_POINTS = 8  # on a circle of radius _REACH
_GLCM_DISTANCES = (1, _REACH)
_GLCM_ANGLES = (0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
_GLCM_LEVELS = 32
_GLCM_PROPERTIES = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation")
_SIGMAS = tuple(2.0 ** (i / 2) for i in range(8))  # 1 to 11 pixels
_GRADIENT_SIGMAS = (1.0, 2.0, 4.0)
_MAX_DENSITY = 0.3  # haematoxylin that the darkest nuclei reach in units of rgb2hed
_WHITE = 0.8  # of the darkest channel, above which a pixel shows glass
_STAINED = 0.03  # least haematoxylin of a nucleus, so that noise on glass is none
_NUCLEUS_SIGMA = 1.5  # pixels of smoothing before nuclei are told apart


def describe_patch(rgb: np.ndarray) -> dict[str, float]:
    """Named features of a patch, the same names for every patch.

    Parameters
    ----------
    rgb
        ``(height, width, 3)`` in [0, 1], at least 5 pixels a side. Every length in the names below is in pixels.

    Returns
    -------
    Of each colour channel ``R``, ``G``, ``B`` and each density of haematoxylin ``H``, eosin ``E`` and the residual
    stain ``D`` (fixed matrix of Ruifrok and Johnston, 2001) mean and standard deviation; the share of white; share,
    number, size and density of nuclei-like areas; of grey and of haematoxylin the energy in eight bands of scale, the
    size of gradients at three scales, and properties of co-occurrence matrices (Haralick et al., 1973); of grey the
    histogram of local binary patterns (Ojala et al., 2002).
    """
    rgb = np.asarray(rgb, dtype=np.float32)
    grey = rgb2gray(rgb)
    stains = rgb2hed(rgb)
    haematoxylin = stains[..., 0]
    features: dict[str, float] = {}
    for names, channels in (("RGB", rgb), ("HED", stains)):
        features.update(_distributions(names, channels))
    features["white"] = float((rgb.min(axis=2) > _WHITE).mean())
    features.update(_nuclei(haematoxylin))
    for name, plane, top in (("grey", grey, 1.0), ("H", haematoxylin, _MAX_DENSITY)):
        features.update((f"{name}_{key}", value) for key, value in _scales(plane))
        levels = np.clip(plane / top * _GLCM_LEVELS, 0, _GLCM_LEVELS - 1).astype(np.uint8)
        features.update((f"{name}_{key}", value) for key, value in _cooccurrence(levels))
    features.update((f"grey_{key}", value) for key, value in _binary_patterns(np.round(grey * 255).astype(np.uint8)))
    return features


def describe_patches(patches: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Names and values ``(n, n_features)`` of :func:`describe_patch` of patches ``(n, height, width, 3)``."""
    described = [describe_patch(patch) for patch in patches]
    return list(described[0]), np.array([list(features.values()) for features in described], dtype=np.float32)


def _distributions(names: str, channels: np.ndarray) -> Iterator[tuple[str, float]]:
    values = channels.reshape(-1, len(names))
    for i, name in enumerate(names):
        yield f"{name}_mean", float(values[:, i].mean())
        yield f"{name}_sd", float(values[:, i].std())


def _nuclei(haematoxylin: np.ndarray) -> Iterator[tuple[str, float]]:
    """Areas darker in haematoxylin than Otsu's threshold of the patch; counts are a pixel of the patch."""
    smooth = ndimage.gaussian_filter(haematoxylin, _NUCLEUS_SIGMA)
    dark = smooth > max(float(threshold_otsu(smooth)), _STAINED)
    labels, n_areas = ndimage.label(dark)
    sizes = np.bincount(labels.ravel(), minlength=n_areas + 1)[1:]
    log_sizes = np.log(sizes[sizes >= 2 * np.pi * _NUCLEUS_SIGMA**2])
    peaks = dark & (smooth == ndimage.maximum_filter(smooth, size=2 * _REACH + 1))
    yield "nuclei_share", float(dark.mean())
    yield "nuclei_number", len(log_sizes) / dark.size
    yield "nuclei_peaks", float(peaks.mean())
    yield "nuclei_log_size", float(log_sizes.mean()) if len(log_sizes) else 0.0
    yield "nuclei_log_size_sd", float(log_sizes.std()) if len(log_sizes) else 0.0
    yield "nuclei_density", float(haematoxylin[dark].mean()) if dark.any() else 0.0


def _scales(plane: np.ndarray) -> Iterator[tuple[str, float]]:
    """Energy and gradients at each scale: log standard deviation of the band, mean and deviation of gradients."""
    fine, blur = plane, 0.0
    for sigma in _SIGMAS:
        coarse = ndimage.gaussian_filter(fine, np.sqrt(sigma**2 - blur**2))
        yield f"band{sigma:.1f}", float(np.log10((fine - coarse).std() + 1e-4))
        if sigma in _GRADIENT_SIGMAS:
            dy, dx = np.gradient(coarse)
            size = np.hypot(dy, dx)
            yield f"gradient{sigma:g}_mean", float(size.mean())
            yield f"gradient{sigma:g}_sd", float(size.std())
        fine, blur = coarse, sigma


def _binary_patterns(grey: np.ndarray) -> Iterator[tuple[str, float]]:
    codes = local_binary_pattern(grey, _LBP_POINTS, _REACH, method="uniform").astype(int)
    share = np.bincount(codes.ravel(), minlength=_LBP_POINTS + 2) / codes.size
    yield from ((f"lbp_{code}", float(value)) for code, value in enumerate(share))


def _cooccurrence(levels: np.ndarray) -> Iterator[tuple[str, float]]:
    matrix = graycomatrix(levels, _GLCM_DISTANCES, _GLCM_ANGLES, levels=_GLCM_LEVELS, symmetric=True, normed=True)
    for name in _GLCM_PROPERTIES:
        values = graycoprops(matrix, name).mean(axis=1)
        yield from ((f"{name}{d}", float(v)) for d, v in zip(_GLCM_DISTANCES, values, strict=True))
