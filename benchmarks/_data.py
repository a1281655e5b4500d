"""Labelled slices of the folder ``STOMICS_DATA``, and the recipes that prepare them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
from mudata import MuData

from stomics_tools import pp

COMPONENTS = {"rna": "X_pca", "protein": "X_protein"}
TRUTH = "truth"


@dataclass(frozen=True)
class Source:
    """File of each modality, column of the labels, and the section if the file holds several."""

    files: Mapping[str, str]
    label: str
    section: str | None = None


def _simulation(name: str) -> Source:
    files = {"rna": f"sim_spamosaic_{name}_rna.h5ad", "protein": f"sim_spamosaic_{name}_adt.h5ad"}
    return Source(files, "gt")


SLICES = {
    "r1": _simulation("r1"),
    "r2": _simulation("r2"),
    "151673": Source({"rna": "dlpfc_151673.h5ad"}, "layer"),
    "151675": Source({"rna": "dlpfc_151675.h5ad"}, "layer"),
    "starmap_BZ5": Source({"rna": "starmap_mpfc_3sections.h5ad"}, "region", "20180417_BZ5_control"),
    "starmap_BZ9": Source({"rna": "starmap_mpfc_3sections.h5ad"}, "region", "20180419_BZ9_control"),
    "starmap_BZ14": Source({"rna": "starmap_mpfc_3sections.h5ad"}, "region", "20180424_BZ14_control"),
    "mob": Source({"rna": "mob_st_rep12.h5ad"}, "layer"),
    "hln_protein": Source({"protein": "hln_s1_adt_only.h5ad"}, "final_annot"),
    "osmfish": Source({"rna": "osmfish_sscortex.h5ad"}, "region"),
}

# Arguments of `pp.rna` and `pp.protein`; ``paired`` stands for one component less than there are proteins.
RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "default": {"rna": {}, "protein": {}},
    "baseline": {"rna": {"target_sum": 1e4, "n_comps": 20}, "protein": {"scale": False, "n_comps": 20}},
    "published": {"rna": {"min_cells": 10, "target_sum": 1e4, "scale": True, "n_comps": "paired"}, "protein": {"n_comps": "paired"}},
    "published_unscaled": {
        "rna": {"min_cells": 10, "target_sum": 1e4, "n_comps": "paired"},
        "protein": {"n_comps": "paired", "scale": False},
    },
}


def read(name: str) -> MuData:
    """Counts of a slice: one or two modalities, ``obsm["spatial"]`` and ``obs["truth"]`` (NaN where unlabelled)."""
    source = SLICES[name]
    if "STOMICS_DATA" not in os.environ:
        raise SystemExit("Set STOMICS_DATA to the folder of the data sets.")
    modalities = {}
    for modality, file in source.files.items():
        adata = ad.read_h5ad(Path(os.environ["STOMICS_DATA"]) / file)
        modalities[modality] = adata if source.section is None else adata[adata.obs["section"] == source.section].copy()
    first = next(iter(modalities.values()))
    truth, spatial = first.obs[source.label].astype(object), np.asarray(first.obsm["spatial"])
    parts = {name: ad.AnnData(a.X, obs=a.obs[[]], var=a.var[[]]) for name, a in modalities.items()}
    for name, part in parts.items():
        part.var_names = f"{name}:" + part.var_names  # a gene and a protein may share their name
    mdata = MuData(parts)
    mdata.obs[TRUTH], mdata.obsm["spatial"] = truth.reindex(mdata.obs_names), spatial
    return mdata


def prepare(mdata: MuData, recipe: str) -> None:
    """Write the components of each modality into its ``obsm``, at the keys of :data:`COMPONENTS`."""
    n_paired = mdata["protein"].n_vars - 1 if len(mdata.mod) == 2 else 50
    for name, adata in mdata.mod.items():
        arguments = dict(RECIPES[recipe][name])
        if arguments.get("n_comps") == "paired":
            arguments["n_comps"] = min(n_paired, adata.n_vars - 1)
        (pp.rna if name == "rna" else pp.protein)(adata, **arguments)


def components(mdata: MuData) -> list[np.ndarray]:
    """Components of each modality."""
    return [adata.obsm[COMPONENTS[name]] for name, adata in mdata.mod.items()]
