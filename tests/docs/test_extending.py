"""The example of docs/extending.md runs, and what it adds is a full encoder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stomics_tools.model import PRAGASpike
from stomics_tools.model.praga_spike import MembraneLayer, register_encoder

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(compile(block, str(PAGE), "exec"), names)
    return names


def test_the_layer_of_the_page_is_trained(example: dict[str, Any]) -> None:
    model = example["model"]
    (layer,) = model.module.layers
    assert isinstance(layer, example["GatedLayer"])
    assert all((parameter.grad is None or parameter.isfinite().all()) for parameter in layer.parameters())
    assert model.adata.obsm["X_praga_spike"].shape == (400, 16)


def test_blocks_of_rows_change_nothing(example: dict[str, Any]) -> None:
    model = example["model"]
    latent = model.get_latent_representation()
    np.testing.assert_allclose(model.get_latent_representation(batch_size=64), latent, rtol=1e-4, atol=1e-5)


def test_saved_and_loaded(example: dict[str, Any], tmp_path: Path) -> None:
    model = example["model"]
    model.save(tmp_path / "model")
    again = PRAGASpike.load(tmp_path / "model", model.adata)
    np.testing.assert_array_equal(again.get_latent_representation(), model.get_latent_representation())


def test_names(example: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="'relu' is an encoder of the package"):
        register_encoder("relu", MembraneLayer)
    with pytest.raises(ValueError, match="'gated'"):
        PRAGASpike(example["adata"], encoder="unknown")
