"""Labelled slices, of the folder ``STOMICS_DATA`` or simulated, and the recipes that prepare them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _image
import anndata as ad
import numpy as np
import pandas as pd
from mudata import MuData

from stomics_tools import pp
from stomics_tools.datasets import simulate_multiomics

COMPONENTS = {"rna": "X_pca", "protein": "X_protein", "image": "X_image"}
TRUTH, BATCH = "truth", "slice"


@dataclass(frozen=True)
class Source:
    """File of each modality, column of the labels, the section if the file holds several, whether there is a picture."""

    files: Mapping[str, str]
    label: str
    section: str | None = None
    image: bool = False

    @property
    def paired(self) -> bool:
        """Whether there are two modalities."""
        return len(self.files) + self.image > 1

    def read(self, seed: int) -> MuData:
        if "STOMICS_DATA" not in os.environ:
            raise SystemExit("Set STOMICS_DATA to the folder of the data sets.")
        parts = {}
        for modality, file in self.files.items():
            adata = ad.read_h5ad(Path(os.environ["STOMICS_DATA"]) / file)
            parts[modality] = adata if self.section is None else adata[adata.obs["section"] == self.section].copy()
        first = next(iter(parts.values()))
        coordinates, truth = np.asarray(first.obsm["spatial"]), first.obs[self.label].astype(object)
        if self.image:
            (picture,) = first.uns["spatial"].values()
            parts["image"] = ad.AnnData(_image.features(picture, coordinates), obs=first.obs[[]])
        return _joined(parts, coordinates, truth.where(truth != "undetermined"))


@dataclass(frozen=True)
class Simulation:
    """Arguments of :func:`~stomics_tools.datasets.simulate_multiomics`; the seed is that of the run."""

    arguments: Mapping[str, Any]
    paired = True

    def read(self, seed: int) -> MuData:
        mdata = simulate_multiomics(**self.arguments, seed=seed)
        batch, coordinates = mdata.obs["slice"], np.array(mdata.obsm["spatial"])
        # Slices lie side by side, for methods that know nothing of them.
        coordinates[:, 0] += 2 * np.ptp(coordinates[:, 0]) * batch.cat.codes.to_numpy()
        joined = _joined(mdata.mod, coordinates, mdata.obs["domain"].astype(object))
        if batch.nunique() > 1:
            joined.obs[BATCH] = batch
        return joined


def _joined(parts: Mapping[str, ad.AnnData], coordinates: np.ndarray, truth: pd.Series) -> MuData:
    """Counts and labels alone; a gene and a protein may share their name."""
    mods = {name: ad.AnnData(a.X, obs=a.obs[[]], var=a.var[[]]) for name, a in parts.items()}
    for name, part in mods.items():
        part.var_names = f"{name}:" + part.var_names
    mdata = MuData(mods)
    mdata.obs[TRUTH], mdata.obsm["spatial"] = truth.reindex(mdata.obs_names), coordinates
    return mdata


def _paired(name: str) -> Source:
    files = {"rna": f"sim_spamosaic_{name}_rna.h5ad", "protein": f"sim_spamosaic_{name}_adt.h5ad"}
    return Source(files, "gt")


def _rna(file: str, label: str, section: str | None = None, *, image: bool = False) -> Source:
    return Source({"rna": f"{file}.h5ad"}, label, section, image)


SLICES: dict[str, Source | Simulation] = {
    "r1": _paired("r1"),
    "r2": _paired("r2"),
    "151673": _rna("dlpfc_151673", "layer"),
    "151675": _rna("dlpfc_151675", "layer"),
    "151673_he": _rna("dlpfc_151673", "layer", image=True),
    "151675_he": _rna("dlpfc_151675", "layer", image=True),
    "starmap_BZ5": _rna("starmap_mpfc_3sections", "region", "20180417_BZ5_control"),
    "starmap_BZ9": _rna("starmap_mpfc_3sections", "region", "20180419_BZ9_control"),
    "starmap_BZ14": _rna("starmap_mpfc_3sections", "region", "20180424_BZ14_control"),
    "starmap_vc": _rna("starmap_visual_cortex", "layer"),
    "osmfish": _rna("osmfish_sscortex", "region"),
    "mob": _rna("mob_st_rep12", "layer"),
    "hln_protein": Source({"protein": "hln_s1_adt_only.h5ad"}, "final_annot"),
    **{f"her2st_{s}": _rna("her2st_labelled_AtoF", "pathology", s) for s in ("A1", "B1", "C1", "D1", "E1", "F1")},
    "sim_noise": Simulation({"n_obs": 1500, "n_domains": 6, "noise": 2.0}),
    "sim_batches": Simulation({"n_obs": 2400, "n_domains": 6, "n_batches": 3}),
    "sim_uneven": Simulation({"n_obs": 1500, "n_domains": 10}),
    "sim_one_modality": Simulation({"n_obs": 1500, "n_domains": 6}),
    "sim_mixture": Simulation({"n_obs": 2000, "n_domains": 6, "mode": "mixture", "layout": "cells"}),
}

# Arguments of `pp.rna` and `pp.protein`, and the components of the image's features (all of them by default).
# ``paired`` stands for one component less than the other modality has features.
RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "default": {"rna": {}, "protein": {}},
    "baseline": {"rna": {"target_sum": 1e4, "n_comps": 20}, "protein": {"n_comps": 20}},
    "published": {
        "rna": {"min_cells": 10, "target_sum": 1e4, "scale": True, "n_comps": "paired"},
        "protein": {"n_comps": "paired", "scale": True},
    },
    "published_unscaled": {
        "rna": {"min_cells": 10, "target_sum": 1e4, "n_comps": "paired"},
        "protein": {"n_comps": "paired"},
    },
}


def read(name: str, seed: int = 0) -> MuData:
    """Counts of a slice: one or two modalities, ``obsm["spatial"]`` and ``obs["truth"]`` (NaN where unlabelled).

    Slices of one tissue are told apart by ``obs["slice"]``.
    """
    return SLICES[name].read(seed)


def batch_key(mdata: MuData) -> str | None:
    """Column of the slices, if there are several."""
    return BATCH if BATCH in mdata.obs else None


def prepare(mdata: MuData, recipe: str) -> None:
    """Write the components of each modality into its ``obsm``, at the keys of :data:`COMPONENTS`."""
    n_paired = mdata["protein"].n_vars - 1 if "protein" in mdata.mod else 50
    for name, adata in mdata.mod.items():
        if name == "image":
            adata.obsm["X_image"] = adata.X
            continue
        arguments = dict(RECIPES[recipe][name])
        if arguments.get("n_comps") == "paired":
            arguments["n_comps"] = min(n_paired, adata.n_vars - 1)
        (pp.rna if name == "rna" else pp.protein)(adata, **arguments)


def components(mdata: MuData) -> list[np.ndarray]:
    """Components of each modality."""
    return [adata.obsm[COMPONENTS[name]] for name, adata in mdata.mod.items()]
