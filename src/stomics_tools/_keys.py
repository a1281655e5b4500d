"""Every key that stomics-tools writes into an AnnData or MuData, in one place."""

from __future__ import annotations

PRAGA = "praga"
PRAGA_SPIKE = "praga_spike"
"""Names of the results of these models."""

SPATIAL = "spatial"
"""Default ``obsm`` key of the coordinates (squidpy's)."""

IMAGE = "X_image"
PCA = "X_pca"
PROTEIN = "X_protein"
LSI = "X_lsi"
SMOOTH = "X_smooth"
SPATIAL_COMPONENTS = "spatial_components"
"""Name of the results of :func:`stomics_tools.tl.spatial_components`."""

DOMAIN = "spatial_domain"
"""Column of the domains that were found."""

TRUTH = "domain"
"""Column of the true domains of simulated and public slices."""


def latent(key: str, modality: str | None = None) -> str:
    """``obsm`` key of a latent representation, of all modalities together or of one."""
    return f"X_{key}" if modality is None else f"X_{key}_{modality}"


def connectivities(key: str, modality: str | None = None) -> str:
    """``obsp`` key of a graph, as squidpy and scanpy spell it."""
    return f"{key}_connectivities" if modality is None else f"{key}_{modality}_connectivities"


def table(key: str, name: str) -> str:
    """``obsm`` key of a table of weights."""
    return f"{key}_{name}"
