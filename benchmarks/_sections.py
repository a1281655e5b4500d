"""Sections of cells with positions, and which of them are held out. See README.md."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
from anndata import AnnData

from stomics_tools import datasets
from stomics_tools.data import total_counts, variable_genes
from stomics_tools.model import MaskedDiffusion

HELD_OUT = {
    "starmap_1": ("starmap", 0),
    "starmap_2": ("starmap", 1),
    "starmap_3": ("starmap", 2),
    "merfish": ("merfish", 1),
    "dlpfc": ("dlpfc", 1),
    "simulation": ("simulation", 3),
}
N_GENES = 1000
SIZE = {"width": 128, "n_layers": 4, "n_hidden": 512}


@lru_cache(maxsize=1)
def read(name: str) -> AnnData:
    """Cells of all sections; ``obs``: ``section`` and, but for the simulation, ``cell_type`` (layers of DLPFC)."""
    if name == "simulation":
        return datasets.simulate_sections()
    if "STOMICS_DATA" not in os.environ:
        raise SystemExit("Set STOMICS_DATA to the folder of the data sets.")
    folder = Path(os.environ["STOMICS_DATA"])
    if name != "dlpfc":
        file = {"starmap": "starmap_mpfc_3sections.h5ad", "merfish": "merfish_hypothalamus_2sections.h5ad"}[name]
        return ad.read_h5ad(folder / file)
    slices = {number: ad.read_h5ad(folder / f"dlpfc_{number}.h5ad") for number in ("151673", "151675")}
    both = ad.concat(slices, label="section", index_unique="-")
    both.obs["cell_type"] = both.obs["layer"].astype(str)
    training = both[both.obs["section"] == "151673"].X.tocsr()
    return both[:, np.sort(variable_genes(training, total_counts(training), N_GENES))].copy()


def split(dataset: str) -> tuple[AnnData, AnnData]:
    """Sections to train on, and the one held out whole."""
    name, number = HELD_OUT[dataset]
    adata = read(name)
    sections = sorted(adata.obs["section"].astype(str).unique())
    held_out = (adata.obs["section"].astype(str) == sections[number]).to_numpy()
    return adata[~held_out].copy(), adata[held_out].copy()


def features(training: AnnData, test: AnnData) -> tuple[np.ndarray, np.ndarray]:
    """Expression for the baselines: log of counts scaled to the median total, or as it is where these are no counts."""

    def dense(adata: AnnData) -> np.ndarray:
        return np.asarray(adata.X.toarray() if hasattr(adata.X, "toarray") else adata.X, dtype=np.float64)

    x, y = dense(training), dense(test)
    if not np.array_equal(x, np.round(x)):
        return x, y
    target = np.median(x.sum(axis=1))
    return tuple(np.log1p(part * (target / np.maximum(part.sum(axis=1, keepdims=True), 1))) for part in (x, y))


def trained(dataset: str, seed: int, folder: Path | None, arguments: dict[str, Any]) -> MaskedDiffusion:
    """A model of the sections to train on, of `SIZE` but for `arguments`.

    With a `folder` it is kept there as ``<dataset>_<seed>``, and read from there, whatever its arguments were, if it was.
    """
    kept = None if folder is None else folder / f"{dataset}_{seed}"
    if kept is not None and kept.exists():
        return MaskedDiffusion.load(kept)
    training, _ = split(dataset)
    MaskedDiffusion.setup_anndata(training, batch_key="section")
    model = MaskedDiffusion(training, **{**SIZE, **arguments})
    model.train(seed=seed, key_added=None, enable_progress_bar=False)
    if kept is not None:
        model.save(kept, overwrite=True)  # another script may have kept its own meanwhile
    return model
