from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from stomics_tools.data import Modality, Spots
from stomics_tools.model import PRAGASpike
from stomics_tools.model.praga_spike._closed_form import new_module
from stomics_tools.model.praga_spike._inputs import Inputs, prepare
from stomics_tools.model.praga_spike._module import SpikeModule
from stomics_tools.model.praga_spike._settings import SpikeSettings


def _spots(
    values: Mapping[str, np.ndarray],
    coordinates: np.ndarray,
    *,
    missing: Mapping[str, np.ndarray] | None = None,
    batch: np.ndarray | None = None,
    spatial_graph: sparse.csr_matrix | None = None,
    feature_graphs: Mapping[str, sparse.csr_matrix] | None = None,
) -> Spots:
    modalities = {}
    for name, x in values.items():
        present = np.ones(len(x), dtype=bool)
        if missing is not None and name in missing:
            present[missing[name]] = False
        shown = np.where(present[:, None], x, 0).astype(np.float32)
        modalities[name] = Modality(shown, present, tuple(f"{name}{i}" for i in range(x.shape[1])))
    batch = np.zeros(len(coordinates), dtype=np.int64) if batch is None else batch
    names = [f"slice{b}" for b in np.unique(batch)]
    graphs = dict(feature_graphs or {})
    return Spots(modalities, np.asarray(coordinates, dtype=np.float64), batch, names, spatial_graph, graphs)


@pytest.fixture
def spots_of():
    """Maker of the arrays that a model reads."""
    return _spots


@pytest.fixture
def grid():
    """Maker of the coordinates of a square lattice."""

    def make(side: int) -> np.ndarray:
        return np.stack(np.unravel_index(np.arange(side * side), (side, side)), axis=1).astype(np.float64)

    return make


@pytest.fixture
def settings_of():
    """Maker of the settings of the model, with the defaults of its constructor."""

    def make(**given: Any) -> SpikeSettings:
        defaults = {name: p.default for name, p in inspect.signature(PRAGASpike).parameters.items()}
        return SpikeSettings(**{field.name: defaults[field.name] for field in fields(SpikeSettings)} | given)

    return make


SIDE = 12
SMALL = {"n_latent": 16, "n_heads": 4, "n_feature_neighbors": 4, "n_spatial_neighbors": 4}


@pytest.fixture
def values_of():
    """Maker of two modalities on a lattice: RNA tells left from right, protein top from bottom."""

    def make(xy: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        right, top = (xy > xy.max() / 2).T - 0.5
        rna = np.outer(right, rng.normal(size=20)) * 2 + rng.normal(size=(len(xy), 20))
        protein = np.outer(top, rng.normal(size=9)) * 2 + rng.normal(size=(len(xy), 9))
        return {"rna": rna, "protein": protein}

    return make


@pytest.fixture
def spots(grid, values_of):
    """144 spots of one slice."""
    xy = grid(SIDE)
    return _spots(values_of(xy), xy)


@pytest.fixture
def two_slices(grid, values_of):
    """The same in two slices."""
    xy = grid(SIDE)
    return _spots(values_of(xy), xy, batch=(xy[:, 1] >= 5).astype(np.int64))


@pytest.fixture
def fresh(settings_of):
    """Maker of a module of seed 0 after some large steps of training, and of its inputs."""

    def make(spots: Spots, n_steps: int = 0, **given: Any) -> tuple[SpikeModule, Inputs]:
        settings = settings_of(**{**SMALL, **given})
        inputs = prepare(spots, settings)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module = new_module(inputs, [1.0] * len(spots.modalities), settings)
        optimizer = torch.optim.Adam(module.parameters(), lr=0.03)
        module.train()
        for _ in range(n_steps):
            optimizer.zero_grad()
            module.loss(inputs)["train_loss"].backward()
            optimizer.step()
        return module.eval(), inputs

    return make
