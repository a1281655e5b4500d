"""SpatialGlue as released on PyPI, called on prepared components."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import warnings

import anndata as ad
import numpy as np


def installed() -> bool:
    """Whether the package is there; only its modules that need no R are used."""
    return importlib.util.find_spec("SpatialGlue") is not None


def fit(features: list[np.ndarray], coordinates: np.ndarray, seed: int, epochs: int | None = None) -> np.ndarray:
    """Latent of two modalities with the settings of the data type ``"10x"``, on the CPU."""
    from SpatialGlue.preprocess import construct_neighbor_graph, fix_seed
    from SpatialGlue.SpatialGlue_pyG import Train_SpatialGlue

    fix_seed(seed)
    objects = [ad.AnnData(obsm={"feat": x, "spatial": coordinates}) for x in features]
    # The released code prints, and calls functions of torch that warn of their age.
    with warnings.catch_warnings(), open(os.devnull, "w") as nowhere:
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            model = Train_SpatialGlue(construct_neighbor_graph(*objects, datatype="10x"), datatype="10x")
            model.epochs = model.epochs if epochs is None else epochs
            return model.train()["SpatialGlue"]
