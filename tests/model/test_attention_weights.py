"""What a spot reads from the others, by name, against the sums written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from torch import nn

from stomics_tools.model import PRAGASpike
from stomics_tools.model.praga_spike import register_encoder

FORMS = ["spike", "relu", "ssa", "sdt1", "sdt2", "sdt3", "qk_token", "qk_channel", "dssa"]
QUICK: dict[str, Any] = {"max_epochs": 2, "seed": 0, "enable_progress_bar": False, "early_stopping": False}


def trained(adata: AnnData, batch_key: str | None = None, **arguments: Any) -> PRAGASpike:
    PRAGASpike.setup_anndata(adata, {"rna": "X_pca"}, batch_key=batch_key)
    model = PRAGASpike(adata, **{"n_latent": 8, **arguments})
    model.train(**QUICK)
    return model


@pytest.mark.parametrize("encoder", FORMS)
def test_rows_are_weights_of_the_spots_of_a_slice(adata: AnnData, encoder: str) -> None:
    model = trained(adata, "slice", encoder=encoder, n_heads=2)
    chosen = [3, 150, 40]
    found = model.get_attention(chosen)
    assert list(found.index) == ["spot3", "spot150", "spot40"]
    assert list(found.columns) == list(adata.obs_names)
    assert (found.dtypes == np.float32).all()
    assert (found.to_numpy() >= 0).all()
    total = found.sum(axis=1).to_numpy()
    assert np.all(np.isclose(total, 1, atol=1e-4) | (total == 0))
    if encoder in ("spike", "relu"):
        np.testing.assert_allclose(total, 1, atol=1e-4)
    assert model.get_attention([]).shape == (0, 160)
    slices = adata.obs["slice"].to_numpy()
    for row, name in zip(chosen, found.index, strict=True):
        assert (found.loc[name, slices != slices[row]] == 0).all()


@pytest.mark.parametrize("layer", [0, 1])
def test_values_are_the_sums_written_out(adata: AnnData, layer: int) -> None:
    """Queries and keys are taken from a pass over all spots, whose rows are found by the coordinates of the spots."""
    model = trained(adata, n_layers=2, n_heads=2)
    inputs, _ = model._inputs(None)
    attention: Any = model.module.blocks[layer].attention
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        getattr(attention, f"{name}_spike").register_forward_hook(
            lambda _, __, out, name=name: seen.__setitem__(name, out)
        )
        for name in ("query", "key")
    ]
    with torch.no_grad():
        model.module(inputs)
    for hook in hooks:
        hook.remove()
    query, key = (seen[name].double().numpy().reshape(160, 2, 4) for name in ("query", "key"))
    expected = np.zeros((160, 160))
    for i in range(160):
        for head in range(2):
            common = np.array([query[i, head] @ key[j, head] + 0.01 for j in range(160)])
            expected[i] += common / common.sum() / 2
    order = [int(np.flatnonzero((adata.obsm["spatial"] == xy).all(1))[0]) for xy in adata.obsm["spatial"][inputs.order]]
    whole = pd.DataFrame(expected, index=adata.obs_names[order], columns=adata.obs_names[order])
    found = model.get_attention([7, -1, 80], layer=layer)
    expected_rows = whole.loc[["spot7", "spot159", "spot80"], list(adata.obs_names)]
    np.testing.assert_allclose(found.to_numpy(), expected_rows.to_numpy(), atol=1e-6)
    assert whole.to_numpy().std() > 0


def test_another_order_and_other_ways_to_choose(adata: AnnData) -> None:
    model = trained(adata)
    whole = model.get_attention(np.arange(160))
    turn = np.random.default_rng(0).permutation(160)
    other = adata[turn].copy()
    found = model.get_attention([5, 6], other)
    expected = whole.loc[found.index, found.columns]
    assert list(found.index) == list(other.obs_names[[5, 6]])
    np.testing.assert_allclose(found.to_numpy(), expected.to_numpy(), atol=1e-6)
    mask = pd.Series(adata.obs_names == "spot9", index=adata.obs_names)[::-1]  # rows by name
    pd.testing.assert_frame_equal(model.get_attention(mask), whole.loc[["spot9"]], atol=1e-6, check_names=False)
    mask = (adata.obs_names == "spot9").astype(bool)
    assert list(model.get_attention(mask).index) == ["spot9"]


def test_free_edges_of_other_data_quantized_and_loaded(adata: AnnData, tmp_path: Any) -> None:
    model = trained(adata, edges="free", weight_bits=4)
    half = adata[:90].copy()
    before = {name: x.clone() for name, x in model.module.state_dict().items()}
    assert model.get_attention([0], half).shape == (1, 90)
    assert all(torch.equal(x, before[name]) for name, x in model.module.state_dict().items())
    model.quantize(n_repeats=1)
    found = model.get_attention([1, 2])
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-4)
    model.save(tmp_path / "model")
    again = PRAGASpike.load(tmp_path / "model", adata).get_attention([1, 2])
    np.testing.assert_allclose(again.to_numpy(), found.to_numpy(), atol=1e-6)


def test_windows(adata: AnnData) -> None:
    """With windows of 10 spots, a spot reads from at most 10, which lie close to it."""
    model = trained(adata, attention_windows=(10,))
    found = model.get_attention([0, 77]).to_numpy()
    xy = adata.obsm["spatial"]
    for row, weights in zip((0, 77), found, strict=True):
        assert 1 < (weights > 0).sum() <= 10
        assert np.linalg.norm(xy[weights > 0] - xy[row], axis=1).max() < np.linalg.norm(xy - xy[row], axis=1).max() / 2


def test_errors(adata: AnnData) -> None:
    model = trained(adata, n_layers=2)
    with pytest.raises(RuntimeError, match="train"):
        PRAGASpike(adata, n_latent=8).get_attention([0])
    with pytest.raises(ValueError, match=r"`layer=2`: the layers of this model are 0 to 1"):
        model.get_attention([0], layer=2)
    with pytest.raises(ValueError, match="`layer` must be at least 0, found -1"):
        model.get_attention([0], layer=-1)
    with pytest.raises(TypeError, match="`layer` must be an integer"):
        model.get_attention([0], layer="first")  # type: ignore[arg-type]
    with pytest.raises(IndexError, match="`indices`: there is no row 160 in 160 observations"):
        model.get_attention([160])
    with pytest.raises(TypeError, match="`indices`: choose rows"):
        model.get_attention(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="`indices` must be row numbers"):
        model.get_attention(["spot0"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="`n_layers=0`: this model has no attention"):
        trained(adata.copy(), n_layers=0).get_attention([0])
    with pytest.raises(ValueError, match="`use_attention=False`: this model has no attention"):
        trained(adata.copy(), use_attention=False).get_attention([0])


class _Mean(nn.Module):
    def forward(self, x: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
        return x.mean(0).expand_as(x)


def test_an_added_encoder_without_weights(adata: AnnData) -> None:
    register_encoder("mean_of_all", lambda settings: _Mean())
    with pytest.raises(ValueError, match="`encoder='mean_of_all'`: its attention has no method `attention_weights`"):
        trained(adata, encoder="mean_of_all").get_attention([0])
