"""The example of docs/extending.md runs, and what it adds is a full encoder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stomics_tools.model import PRAGASpike
from stomics_tools.model.praga_spike import register_encoder

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(compile(block, str(PAGE), "exec"), names)
    return names


def test_the_attention_of_the_page_is_trained(example: dict[str, Any]) -> None:
    model = example["model"]
    (block,) = model.module.blocks
    assert isinstance(block.attention, example["GatedMean"])
    assert model.adata.obsm["X_praga_spike"].shape == (400, 16)
    assert np.isfinite(model.adata.obsm["X_praga_spike"]).all()


def test_what_it_computes(example: dict[str, Any]) -> None:
    """Against a loop over slices and rows."""
    register_encoder("gated_mean", example["GatedMean"])
    model = PRAGASpike(example["adata"], encoder="gated_mean", n_latent=16, weight_bits="float")
    attention = example["GatedMean"](model._settings)
    x, segments = torch.randn(30, 16), torch.tensor([0, 12, 30])
    with torch.no_grad():
        found = attention(x, segments)
        spikes = attention.spike(x)
        gate, own, value = (
            torch.sigmoid(attention.read_gate(spikes)),
            attention.own_gate(spikes),
            attention.value(spikes),
        )
        for first, last in ((0, 12), (12, 30)):
            mean = (gate[first:last] * value[first:last]).sum(0) / gate[first:last].sum(0)
            for row in range(first, last):
                np.testing.assert_allclose(found[row], torch.sigmoid(own[row]) * mean, rtol=1e-5, atol=1e-6)


def test_its_maps_were_packed(example: dict[str, Any]) -> None:
    attention = example["model"].module.blocks[0].attention
    assert type(attention.value).__name__ == "PackedLinear"


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
    for name in ("relu", "qk_token"):
        with pytest.raises(ValueError, match=f"{name!r} is an encoder of the package"):
            register_encoder(name, example["GatedMean"])
    with pytest.raises(ValueError, match="'gated_mean'"):
        PRAGASpike(example["adata"], encoder="unknown")
