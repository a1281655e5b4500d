"""The forms of the layers for inference: equal where they must be, real in size, and safe in use."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from stomics_tools.model.praga_spike._compress import forms_of

from stomics_tools.model import PRAGASpike
from stomics_tools.nn import LearnedWidthQuantizer, Multispike, PackedLinear, QuantLinear, RepLinear, unroll

MODALITIES = {"rna": "X_pca", "protein": "X_protein"}
QUIET = {"enable_progress_bar": False, "key_added": None}
SMALL = {"n_latent": 16, "n_heads": 4, "n_feature_neighbors": 5}


def _trained(data, max_epochs=15, **kwargs):
    PRAGASpike.setup_anndata(data, MODALITIES)
    model = PRAGASpike(data, **{**SMALL, **kwargs})
    model.train(max_epochs, lr=0.02, **QUIET)
    model.module.layer_share.fill_(1.0)  # whatever the layers have learned, the latent shows it
    return model


def _inputs_of_layers(model):
    seen = []
    hook = model.module.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    model.get_denoised()  # the layers take all rows at once
    hook.remove()
    return seen[0]


@torch.no_grad()
def _through(layers, membrane, *others):
    for layer in layers:
        membrane = layer(membrane, *others)
    return membrane


@pytest.mark.parametrize("reparameterize", [True, False])
@pytest.mark.parametrize("weight_bits", [2, 3, 4, 8, "learned"])
def test_packed_equals_folded_bit_by_bit(adata, weight_bits, reparameterize):
    model = _trained(adata, weight_bits=weight_bits, reparameterize=reparameterize, n_layers=2)
    forms, inputs = forms_of(model.module.layers), _inputs_of_layers(model)
    folded, packed = _through(forms["folded"], *inputs), _through(forms["packed"], *inputs)
    assert torch.equal(packed, folded)
    assert (folded - inputs[0]).abs().max() > 1e-3  # the layers do something
    model.quantize(n_repeats=1)
    assert torch.equal(_through(model.module.layers, *inputs), folded)
    kinds = [type(part) for part in model.module.layers.modules()]
    assert kinds.count(PackedLinear) == 2 * 7
    assert not {QuantLinear, RepLinear, LearnedWidthQuantizer} & set(kinds)


@pytest.mark.parametrize("encoder", ["relu", "linear"])
def test_other_encoders_pack_as_well(adata, encoder):
    model = _trained(adata, encoder=encoder, n_heads=4 if encoder == "relu" else 8)
    before = model.get_latent_representation()
    table = model.quantize(n_repeats=1)
    after = model.get_latent_representation()
    np.testing.assert_allclose(after, before, atol=0.1 * np.abs(before).max())
    assert table.loc["packed", "max_abs_difference"] == np.abs(after - before).max() > 0


def test_the_fold_of_a_single_map_is_exact(adata):
    model = _trained(adata, reparameterize=False, weight_bits=2)
    norms = [part for part in model.module.layers.modules() if isinstance(part, torch.nn.BatchNorm1d)]
    assert all((norm.weight > 0).all() for norm in norms)
    assert model.quantize(n_repeats=1).loc["packed", "relative_difference"] < 1e-4


def test_table_tells_what_was_measured(adata):
    model = _trained(adata)
    trained = copy.deepcopy(model.module.layers)
    before = model.get_latent_representation()
    table = model.quantize(n_repeats=3)
    after = model.get_latent_representation()
    assert list(table.index) == ["trained", "folded", "packed", "bf16"]
    assert list(table.columns) == ["bytes", "seconds", "max_abs_difference", "relative_difference"]
    assert (table["seconds"] > 0).all()
    assert (table.loc["trained", ["max_abs_difference", "relative_difference"]] == 0).all()
    difference = table["max_abs_difference"]
    assert difference["packed"] == difference["folded"] == np.abs(after - before).max() > 0
    relative = np.linalg.norm((after - before).astype(float)) / np.linalg.norm(before.astype(float))
    assert table.loc["packed", "relative_difference"] == pytest.approx(relative, rel=1e-5)
    assert 0 < table.loc["bf16", "relative_difference"] < 0.05

    # d = 16: five maps d x d, of d x 2d and 2d x d one each, with a bias and, quantized, a step for each output.
    n_weights, n_outputs = 5 * 256 + 2 * 512, 5 * 16 + 32 + 16
    rest = 2 * (4 * 16 * 4 + 8) + 2 * 16 * 4  # two normalisations, two scales
    assert table.loc["packed", "bytes"] == n_weights // 2 + 2 * 4 * n_outputs + rest
    assert table.loc["folded", "bytes"] == 4 * n_weights + 2 * 4 * n_outputs + rest
    assert table.loc["bf16", "bytes"] == 2 * n_weights + 2 * n_outputs + 2 * (4 * 16 * 2 + 8) + 2 * 16 * 2
    assert table.loc["trained", "bytes"] == sum(x.nbytes for x in trained.state_dict().values())


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


def test_an_unpacked_model_loads_as_before(adata, tmp_path):
    model = _trained(adata)
    model.save(tmp_path / "model")
    loaded = PRAGASpike.load(tmp_path / "model", adata.copy())
    loaded.train(2, **QUIET)
    assert loaded.quantize(n_repeats=1).index.size == 4


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"weight_bits": "float"}, "weight_bits='float'"),
        ({"n_layers": 0}, "n_layers=0"),
    ],
)
def test_nothing_to_pack(adata, arguments, reason):
    PRAGASpike.setup_anndata(adata, MODALITIES)
    model = PRAGASpike(adata, n_latent=16, **arguments)
    with pytest.raises(RuntimeError, match="not trained"):
        model.quantize()
    model.train(3, **QUIET)
    before, state = model.get_latent_representation(), copy.deepcopy(model.module.state_dict())
    with pytest.raises(ValueError, match=reason):
        model.quantize()
    assert list(model.module.state_dict()) == list(state)
    model.train(1, **QUIET)
    assert before.shape == model.get_latent_representation().shape


def test_nothing_changes_if_it_fails(adata, monkeypatch):
    model = _trained(adata)
    before, layers = model.get_latent_representation(), model.module.layers

    def broken(self, *_):
        raise MemoryError

    monkeypatch.setattr(PackedLinear, "forward", broken)
    with pytest.raises(MemoryError):
        model.quantize()
    monkeypatch.undo()
    assert model.module.layers is layers
    assert "packed_bits" not in model.module.state_dict()
    np.testing.assert_array_equal(model.get_latent_representation(), before)
    model.train(1, **QUIET)
    with pytest.raises(ValueError, match="n_repeats"):
        model.quantize(n_repeats=0)


def test_bits_of_learned_widths_are_those_of_the_layers(adata):
    PRAGASpike.setup_anndata(adata, MODALITIES)
    model = PRAGASpike(adata, **SMALL, weight_bits="learned", reparameterize=False)
    model.train(2, **QUIET)
    layers = [part for part in model.module.layers.modules() if isinstance(part, QuantLinear)]
    for layer, width in zip(layers, (2, 3, 4, 5, 6, 7, 8), strict=True):
        layer.quantizer.set_bits(width, layer.weight)
    before = model.get_latent_representation()
    table = model.quantize(n_repeats=1)
    packed = [part for part in model.module.layers.modules() if isinstance(part, PackedLinear)]
    assert [layer.bits for layer in packed] == [2, 3, 4, 5, 6, 7, 8]
    assert isinstance(table, pd.DataFrame)
    np.testing.assert_allclose(model.get_latent_representation(), before, atol=1e-3)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("n_levels", [2, 5, 9])
def test_maps_run_on_binary_events(adata, n_levels, dtype, tolerance):
    """``W sum_t e_t + b = sum_t W e_t + b`` for every map that spikes drive, the graph before it included."""
    model = _trained(adata, n_levels=n_levels)
    membrane, graph, weight, segments = _inputs_of_layers(model)
    layers, weight = forms_of(model.module.layers)["folded"].to(dtype), weight.to(dtype)
    spikes, outputs = {}, {}
    for name, part in layers.named_modules():
        store = spikes if isinstance(part, Multispike) else outputs if isinstance(part, QuantLinear) else None
        if store is not None:
            part.register_forward_hook(lambda _, __, y, name=name, store=store: store.update({name: y}))
    _through(layers, membrane.to(dtype), graph, weight, segments)
    driven = {
        "0.aggregate": "0.spike",
        "0.expand": "0.second_spike",
        "0.contract": "0.inner_spike",
        **{f"0.attention.{name}": "0.attention.spike" for name in ("query", "key", "value")},
    }
    n_steps = n_levels - 1
    assert set(outputs) - set(driven) == {"0.attention.project"}  # of a mean of spikes
    for name, source in driven.items():
        layer = layers.get_submodule(name)
        counts = (spikes[source] * n_steps).round()
        events = unroll(counts, n_steps)
        assert set(events.unique().tolist()) == {0, 1}
        total = torch.zeros_like(outputs[name])
        with torch.no_grad():
            for event in events / n_steps:
                driving = graph(event, weight) if name == "0.aggregate" else event
                total += driving @ layer.used_weight.T
            total += layer.bias
        torch.testing.assert_close(total, outputs[name], rtol=tolerance, atol=tolerance)
        assert total.abs().max() > 0.1


def test_share_of_the_layers(adata, tmp_path):
    PRAGASpike.setup_anndata(adata, MODALITIES)
    model = PRAGASpike(adata, **SMALL)
    with pytest.raises(RuntimeError, match="not trained"):
        model.layer_share  # noqa: B018
    model.train(2, **QUIET)
    model.module.layer_share.fill_(0.25)
    model.save(tmp_path / "model")
    assert PRAGASpike.load(tmp_path / "model", adata).layer_share == 0.25
    other = PRAGASpike(adata, n_layers=0)
    other.train(2, **QUIET)
    with pytest.raises(ValueError, match="n_layers=0"):
        other.layer_share  # noqa: B018
