from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from stomics_tools.model.masked_diffusion._module import MaskedDiffusionModule
from stomics_tools.model.masked_diffusion._settings import DiffusionSettings
from stomics_tools.model.masked_diffusion._slices import Slice, nearest

N_GENES, N_FOLDS, N_PLACES, N_REFERENCES = 12, 3, 20, 40
SMALL = {
    "width": 16,
    "n_heads": 2,
    "n_layers": 2,
    "n_hidden": 32,
    "dropout": 0.0,
    "n_frequencies": 2,
    "n_latent": 4,
    "n_read": 2,
    "num_experts": 4,
    "n_window": 16,
    "n_neighbors": 3,
    "n_members": 2,
    "n_regression_hidden": 8,
}


@pytest.fixture
def make_settings() -> Callable[..., DiffusionSettings]:
    return lambda **changes: DiffusionSettings(**{**SMALL, **changes})


@pytest.fixture
def make_module(make_settings: Callable[..., DiffusionSettings]) -> Callable[..., MaskedDiffusionModule]:
    """A module fitted to nothing; unless `begin`, no layer of its network is zero as it is before training."""

    def make(*, begin: bool = False, n_dims: int = 2, seed: int = 0, **changes: Any) -> MaskedDiffusionModule:
        sizes = {"n_genes": N_GENES, "n_dims": n_dims, "n_folds": N_FOLDS}
        sizes |= {"n_places": N_PLACES, "n_references": N_REFERENCES}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            module = MaskedDiffusionModule(make_settings(**changes), **sizes)
            mixing = np.random.default_rng(seed).normal(size=(N_GENES, N_GENES))
            module.latent.fit((torch.randn(200, N_GENES).numpy() @ mixing / N_GENES**0.5).astype(np.float32))
            module.references.scores.normal_()
            module.references.position.normal_()
            module.references.fold.copy_(torch.arange(N_REFERENCES) % N_FOLDS)
            module.places.position.normal_()
            module.places.log_share.copy_(torch.randn(N_PLACES).log_softmax(0))
            module.places.log_variance.uniform_(-3.0, -1.0)
            module.places.log_sharpness.fill_(0.4)
            module.around_weight.normal_(std=0.2)
            module.around_variance.uniform_(0.3, 0.9)
            drawn = [*module.regression.parameters(), *([] if begin else module.network.parameters())]
            for parameter in drawn:
                torch.nn.init.normal_(parameter, std=0.3)
            module.regression.layers[-1].weight.data.mul_(10)  # genes tell the places of cells apart
        return module.eval()

    return make


@pytest.fixture
def make_slice() -> Callable[..., Slice]:
    """A slice whose latent values and genes follow from position, all cells told apart by them."""

    def make(n_obs: int, *, seed: int = 0, n_latent: int = 4, n_hidden: int = 0) -> Slice:
        generator = torch.Generator().manual_seed(seed)
        position = torch.randn(n_obs, 2, generator=generator)
        measured = torch.ones(N_GENES)
        measured[:n_hidden] = 0
        waves = torch.sin(position @ torch.randn(2, N_GENES + n_latent, generator=generator))
        values = waves + 0.1 * torch.randn(n_obs, N_GENES + n_latent, generator=generator)
        return Slice(
            genes=values[:, :N_GENES] * measured,
            measured=measured,
            latent=values[:, N_GENES:],
            position=position,
            near=nearest(position.numpy(), 12),
            fold=torch.randint(N_FOLDS, (n_obs,), generator=generator),
        )

    return make
