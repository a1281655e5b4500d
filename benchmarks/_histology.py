"""HER2ST sections with the features of their images, of the folder ``STOMICS_DATA``."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import anndata as ad
import numpy as np
from anndata import AnnData

SECTIONS = ("C2", "C3", "C4", "C5", "B4")
ONE_PATIENT = SECTIONS[:4]
FEATURES, DEPTH = "X_image", "X_log_depth"


@lru_cache(maxsize=1)
def read_sections() -> AnnData:
    """Counts of all genes, ``obsm["X_image"]`` (452 handcrafted features), and log-depth as a feature of its own."""
    if "STOMICS_DATA" not in os.environ:
        raise SystemExit("Set STOMICS_DATA to the folder of the data sets.")
    folder = Path(os.environ["STOMICS_DATA"])
    parts = []
    for name in SECTIONS:
        part = ad.read_h5ad(folder / f"her2st_{name}_image.h5ad")
        part.obsm[FEATURES] = np.load(folder / "features" / f"her2st_{name}_handcrafted.npy")
        parts.append(part)
    # Each file leaves out the genes that its section has no counts of.
    adata = ad.concat(parts, join="outer", fill_value=0)
    adata.obsm[DEPTH] = np.log1p(np.asarray(adata.X.sum(axis=1)))
    return adata
