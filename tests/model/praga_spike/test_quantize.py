"""The forms of the module for inference: equal where they must be, real in size, and safe in use."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from stomics_tools.model import PRAGASpike
from stomics_tools.model.praga_spike._quantize import packed
from stomics_tools.nn import LearnedWidthQuantizer, PackedLinear, QuantLinear, RepLinear

MODALITIES = {"rna": "X_pca", "protein": "X_protein"}
QUIET = {"enable_progress_bar": False, "key_added": None, "early_stopping": False}
SMALL = {"n_latent": 16, "n_heads": 4, "n_feature_neighbors": 5, "layer_scale": 0.5}


def _trained(data, max_epochs=5, **kwargs):
    PRAGASpike.setup_anndata(data, MODALITIES)
    model = PRAGASpike(data, **{**SMALL, **kwargs})
    model.train(max_epochs, lr=0.02, **QUIET)
    return model


@torch.no_grad()
def _latent(module, inputs):
    return module.latent(inputs, module(inputs))


@pytest.mark.parametrize(
    "given",
    [
        *({"weight_bits": bits} for bits in (2, 3, 4, 8, "learned")),
        {"reparameterize": True},
        {"reparameterize": True, "weight_bits": "learned", "n_layers": 2},
        {"graph_fusion": "conv"},
        *({"encoder": encoder} for encoder in ("relu", "ssa", "sdt3", "qk_channel", "dssa")),
    ],
    ids=str,
)
def test_packed_equals_folded(adata, given):
    model = _trained(adata, **given)
    inputs, _ = model._inputs(None)
    trained, (folded, small) = _latent(model.module.eval(), inputs), packed(model.module)
    assert (_latent(small, inputs) - _latent(folded, inputs)).abs().max() <= 1e-5
    if not given.get("reparameterize"):  # of two maps in one the sum has no grid
        changed = (_latent(folded, inputs) - trained).abs() > 1e-4
        assert changed.float().mean() < 0.01  # a membrane at its threshold may fall to either side
    before = model.module.state_dict()
    table = model.quantize(n_repeats=1)
    assert list(table.index) == ["trained", "folded", "packed"]
    assert list(before) != list(model.module.state_dict())
    np.testing.assert_allclose(_latent(model.module, inputs), _latent(folded, inputs), atol=1e-5, rtol=0)
    kinds = {type(part) for part in model.module.modules()}
    assert PackedLinear in kinds
    assert not {QuantLinear, RepLinear, LearnedWidthQuantizer} & kinds


def _learned(module):
    return [
        (part.weight.numel(), part.bits)
        for part in module.modules()
        if isinstance(part, QuantLinear) and isinstance(part.quantizer, LearnedWidthQuantizer)
    ]


@pytest.mark.parametrize("budget", [3.0, 4.0, 5.0])
@pytest.mark.parametrize("given", [{}, {"encoder": "ssa"}, {"reparameterize": True}], ids=str)
def test_learned_bits_meet_their_budget(adata, budget, given):
    model = _trained(adata, 12, weight_bits="learned", bit_budget=budget, **given)
    learned = _learned(model.module)
    mean = sum(n * bits for n, bits in learned) / sum(n for n, _ in learned)
    assert budget - 0.25 <= mean <= budget
    assert len({bits for _, bits in learned}) > 1  # not the same for all
    table = model.quantize(n_repeats=1)
    if not given:
        assert table.loc["packed", "relative_difference"] < 0.01


def test_table_tells_what_was_measured(adata):
    model = _trained(adata)
    trained = copy.deepcopy(model.module)
    before = model.get_latent_representation()
    table = model.quantize(n_repeats=3)
    after = model.get_latent_representation()
    assert list(table.columns) == ["bytes", "seconds", "max_abs_difference", "relative_difference"]
    assert (table["seconds"] > 0).all()
    assert (table.loc["trained", ["max_abs_difference", "relative_difference"]] == 0).all()
    assert table.loc["packed", "max_abs_difference"] == pytest.approx(np.abs(after - before).max(), abs=1e-6)
    relative = np.linalg.norm((after - before).astype(float)) / np.linalg.norm(before.astype(float))
    assert table.loc["packed", "relative_difference"] == pytest.approx(relative, rel=1e-4, abs=1e-7)
    # As integers: half a byte a weight of four bits, one a weight of the outer maps; a step an output, and a bias.
    n_bytes = 0
    for layer in (part for part in packed(trained)[0].modules() if isinstance(part, QuantLinear)):
        n_bytes += layer.weight.numel() * layer.bits // 8 + 4 * layer.out_features
        n_bytes += 0 if layer.bias is None else 4 * layer.out_features
    assert table.loc["packed", "bytes"] == n_bytes
    assert table.loc["packed", "bytes"] < table.loc["trained", "bytes"] / 3


def test_all_outputs_after_it(adata, tmp_path):
    model = _trained(adata, weight_bits="learned", bit_budget=3.0)
    other = adata[:100].copy()
    model.quantize(n_repeats=1)
    latent, unseen = model.get_latent_representation(), model.get_latent_representation(other)
    denoised = model.get_denoised()
    model.write_results()
    np.testing.assert_array_equal(adata.obsm["X_praga_spike"], latent)
    assert adata.uns["praga_spike"]["params"]["quantized"]
    model.save(tmp_path / "model")
    loaded = PRAGASpike.load(tmp_path / "model", adata.copy())
    for expected, found in (
        (latent, loaded.get_latent_representation()),
        (unseen, loaded.get_latent_representation(other)),
        (denoised["rna"], loaded.get_denoised()["rna"]),
    ):
        np.testing.assert_array_equal(found, expected)
    before, after = model.module.state_dict(), loaded.module.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert loaded.spike_stats().equals(model.spike_stats())
    for one in (model, loaded):
        with pytest.raises(RuntimeError, match="quantized"):
            one.train(2, **QUIET)
        with pytest.raises(RuntimeError, match="quantized already"):
            one.quantize()
    np.testing.assert_array_equal(model.get_latent_representation(), latent)


def test_the_folder_of_a_packed_model_is_smaller(adata, tmp_path):
    model = _trained(adata, weight_bits=2)
    model.save(tmp_path / "trained")
    table = model.quantize(n_repeats=1)
    model.save(tmp_path / "packed")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("trained", "packed")]
    assert sizes[0] - sizes[1] > 0.9 * (table.loc["trained", "bytes"] - table.loc["packed", "bytes"])


def test_nothing_to_pack(adata):
    PRAGASpike.setup_anndata(adata, MODALITIES)
    model = PRAGASpike(adata, n_latent=16, weight_bits="float")
    with pytest.raises(RuntimeError, match="not trained"):
        model.quantize()
    model.train(2, **QUIET)
    state = list(model.module.state_dict())
    with pytest.raises(ValueError, match="weight_bits='float'"):
        model.quantize()
    assert list(model.module.state_dict()) == state
    model.train(1, **QUIET)


def test_nothing_changes_if_it_fails(adata, monkeypatch):
    model = _trained(adata)
    before, module = model.get_latent_representation(), model.module

    def broken(self, *_):
        raise MemoryError

    monkeypatch.setattr(PackedLinear, "forward", broken)
    with pytest.raises(MemoryError):
        model.quantize()
    monkeypatch.undo()
    assert model.module is module
    np.testing.assert_array_equal(model.get_latent_representation(), before)
    model.train(1, **QUIET)
    with pytest.raises(ValueError, match="n_repeats"):
        model.quantize(n_repeats=0)
