"""Memory of predictions: nothing beside the result grows with the number of tiles."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from torch import Tensor, nn

from stomics_tools.datasets import simulate_histology
from stomics_tools.model import VARST

N_FEATURES, BATCH = 64, 256


@pytest.fixture(scope="module")
def model() -> VARST:
    spots = simulate_histology(2, 1, 40, n_genes=50, n_features=N_FEATURES)
    VARST.setup_anndata(spots, patient_key="patient", section_key="section")
    model = VARST(spots, size="tiny")
    model.train(max_epochs=1, enable_progress_bar=False, key_added=None)
    return model


def tiles(n: int) -> AnnData:
    features = np.random.default_rng(0).standard_normal((n, N_FEATURES), dtype=np.float32)
    return AnnData(obs=pd.DataFrame(index=[f"tile{i}" for i in range(n)]), obsm={"X_image": features})


def bytes_beside(model: VARST, method: str, data: AnnData) -> int:
    """Peak of what Python allocates in a call, less the result."""
    tracemalloc.start()
    size = getattr(model, method)(data, batch_size=BATCH).nbytes
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak - size


@pytest.mark.parametrize("method", ["predict", "get_latent_representation"])
def test_memory_beside_the_result_is_flat(model: VARST, method: str) -> None:
    few, many = tiles(2_000), tiles(30_000)
    assert few.obs_names.is_unique  # the table of names that pandas keeps is part of the input
    assert many.obs_names.is_unique
    bytes_beside(model, method, tiles(10))
    grown = bytes_beside(model, method, many) - bytes_beside(model, method, few)
    # Features of a tile take 256 bytes. Its section takes 8, and whether the features are finite another one.
    assert abs(grown) / (many.n_obs - few.n_obs) < 12


@pytest.mark.parametrize(("method", "part"), [("predict", "mean"), ("get_latent_representation", "condition")])
def test_tensors_of_a_block_are_let_go(model: VARST, method: str, part: str) -> None:
    """Memory of torch, which Python does not see: bytes of all tensors that live while a block is worked on."""
    live: list[int] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        gc.collect()
        tensors = [value for value in gc.get_objects() if type(value) is Tensor]
        live.append(sum({value.data_ptr(): value.nbytes for value in tensors}.values()))

    handle = model.module.get_submodule(part).register_forward_pre_hook(look)
    getattr(model, method)(tiles(8 * BATCH), batch_size=BATCH)
    handle.remove()
    assert len(live) == 8
    assert live[-1] == live[1]


def test_blocks_give_what_all_at_once_gives(model: VARST) -> None:
    data = tiles(300)
    np.testing.assert_allclose(model.predict(data, batch_size=7), model.predict(data, batch_size=300), atol=1e-5)
    torch.testing.assert_close(
        torch.as_tensor(model.predict(data[100:103])), torch.as_tensor(model.predict(data)[100:103])
    )
