"""GraphST: ours by preset, and the package released on PyPI, on counts."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import anndata as ad
import numpy as np
import scanpy as sc
from mudata import MuData

from stomics_tools.model import GraphST

Form = Literal["dense", "sparse"]


def installed() -> bool:
    """Whether the released package and what it does not name among its requirements are there."""
    return all(importlib.util.find_spec(name) is not None for name in ("GraphST", "ot"))


def counts_of(mdata: MuData) -> ad.AnnData:
    """Counts and coordinates of the RNA."""
    rna = mdata["rna"]
    return ad.AnnData(rna.X.copy(), var=rna.var[[]].copy(), obsm={"spatial": np.asarray(mdata.obsm["spatial"])})


def published_expression(adata: ad.AnnData) -> ad.AnnData:
    """The preparation of the released package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sc.pp.highly_variable_genes(adata, flavor="seurat_v3", n_top_genes=min(3000, adata.n_vars))
        sc.pp.normalize_total(adata, target_sum=1e4)
        sc.pp.log1p(adata)
        sc.pp.scale(adata, zero_center=False, max_value=10)
    return adata


def trained(
    adata: ad.AnnData,
    seed: int,
    epochs: int | None = None,
    *,
    train: Mapping[str, Any] = MappingProxyType({}),
    **arguments: Any,
) -> GraphST:
    """Our model of an object with counts or expression; `train` are further arguments of training."""
    GraphST.setup_anndata(adata)
    model = GraphST(adata, **arguments)
    model.train(epochs, seed=seed, accelerator="cpu", key_added=None, enable_progress_bar=False, **train)
    return model


def latent(mdata: MuData, seed: int, epochs: int | None) -> np.ndarray:
    """Of the default model."""
    return trained(counts_of(mdata), seed, epochs).get_latent_representation()


def preset(mdata: MuData, seed: int, epochs: int | None, *, form: Form) -> np.ndarray:
    """Reconstruction by our form of a published model."""
    adata = published_expression(counts_of(mdata))
    return trained(adata, seed, epochs, preset=form).get_reconstruction()


def released(mdata: MuData, seed: int, epochs: int | None, *, form: Form) -> np.ndarray:
    """Reconstruction by the released package."""
    return (
        release(published_expression(counts_of(mdata)), seed, 600 if epochs is None else epochs, form)
        .train()
        .obsm["emb"]
    )


def release(adata: ad.AnnData, seed: int, epochs: int, form: Form) -> Any:
    """The released model, ready to be trained; it prints, and it uses functions that warn of their age."""
    with warnings.catch_warnings(), open(os.devnull, "w") as nowhere:
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            from GraphST.GraphST import GraphST as Released

            datatype = "10X" if form == "dense" else "Slide"
            return Released(adata, epochs=epochs, random_seed=seed, datatype=datatype)
