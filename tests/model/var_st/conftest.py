from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stomics_tools.model.var_st._module import VarSTModule
from stomics_tools.model.var_st._settings import resolve

# Three nested scales of 2, 3 and 5 groups over 9 genes in no order, groups of 1 to 3 genes.
TREE = np.array(
    [
        [0, 0, 1, 0, 1, 0, 0, 1, 0],
        [0, 1, 2, 0, 2, 1, 0, 2, 0],
        [0, 1, 2, 3, 4, 1, 0, 2, 0],
    ]
)


def randomise(module: nn.Module, scale: float = 0.3, seed: int = 0) -> None:
    """Give every parameter a random value, those that begin at zero as well."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def tree() -> Tensor:
    return torch.as_tensor(TREE)


@pytest.fixture
def make_networks(tree: Tensor) -> Callable[..., VarSTModule]:
    """Networks of 6 inputs and 3 folds with random weights, in evaluation; stage 1 has seen some profiles."""

    def make(scales: Tensor = tree, **given: Any) -> VarSTModule:
        settings = resolve("tiny", {"scales": (2, 3, 5), "n_codes": 16, **given})
        torch.manual_seed(0)
        networks = VarSTModule(settings, scales, n_features=6, n_inputs=6, n_folds=3, n_landmarks=4)
        randomise(networks)
        x = torch.randn(40, scales.shape[1])
        networks.train()
        with torch.no_grad():
            networks.stage1.quantize(networks.stage1.encode(x, torch.ones_like(x)))
        return networks.eval()

    return make
