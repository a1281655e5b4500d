"""Spikes, operations and the estimate of energy, against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest

from stomics_tools.model import PRAGASpike
from stomics_tools.nn import LIFNode, Multispike, QuantLinear

MODALITIES = {"rna": "X_pca", "protein": "X_protein"}
QUIET = {"enable_progress_bar": False, "key_added": None, "early_stopping": False}


def _trained(data, **kwargs):
    PRAGASpike.setup_anndata(data, MODALITIES)
    model = PRAGASpike(data, **{"n_latent": 16, "n_heads": 4, "n_feature_neighbors": 5, **kwargs})
    model.train(2, **QUIET)
    return model


def _outcomes(model):
    """What every layer of neurons gives in one pass, by name."""
    seen, hooks = {}, []
    for name, part in model.module.named_modules():
        if isinstance(part, Multispike | LIFNode):
            hook = part.register_forward_hook(
                lambda _, __, y, name=name: seen.setdefault(name, []).append(y.detach().double().numpy())
            )
            hooks.append(hook)
    model.get_denoised()  # all rows at once
    for hook in hooks:
        hook.remove()
    return seen


def test_events_are_those_of_the_neurons(adata):
    """Counts of Multispike layers, 0 to 4 a neuron, of the layer before each map."""
    model = _trained(adata, n_layers=2)
    table, seen = model.spike_stats(), _outcomes(model)
    before = {
        "synapses.0": "codes.0.spike",
        "synapses.1": "codes.1.spike",
        "blocks.0.aggregate.0": "blocks.0.code.spike",
        "blocks.1.expand.0": "blocks.1.code.spike",
        "blocks.1.attention.query.0": "blocks.1.attention.spike",
        "blocks.0.read_attention": "blocks.0.attention_spike",
        "blocks.1.hidden.0": "blocks.1.second_code.spike",
        "blocks.1.contract.0": "blocks.1.hidden_spike",
    }
    n = adata.n_obs
    for name, neurons in before.items():
        (spikes,) = seen[neurons]
        counts = (spikes * 4).round()
        row = table.loc[name]
        assert row["events"] == pytest.approx(counts.sum() / n)
        assert row["firing_rate"] == pytest.approx(counts.sum() / (4 * counts.size))
        assert row["silent_fraction"] == pytest.approx((counts.sum(1) == 0).mean())
        layer = model.module.get_submodule(name)
        assert row["macs"] == layer.in_features * layer.out_features
        assert row["synaptic_operations"] == pytest.approx(counts.sum() / n * layer.out_features)
        assert row["energy_estimate_mj"] == pytest.approx(0.9e-9 * n * row["synaptic_operations"])
        assert row["floating_energy_estimate_mj"] == pytest.approx(4.6e-9 * n * row["macs"])
    # Fusion reads the views one after the other.
    passes = seen["modality_fusion.code.spike"]
    assert len(passes) == 2
    assert table.loc["modality_fusion.hidden", "events"] == pytest.approx(4 * sum(x.sum() for x in passes) / n)


def test_events_over_time_steps(adata):
    model = _trained(adata, encoder="ssa", n_steps=3)
    table, seen = model.spike_stats(), _outcomes(model)
    (spikes,) = seen["blocks.0.attention.spike"]
    assert spikes.shape[0] == 3
    row = table.loc["blocks.0.attention.inner.layers.query.linear"]
    assert row["events"] == pytest.approx(spikes.sum() / adata.n_obs)
    assert row["firing_rate"] == pytest.approx(spikes.mean())
    assert row["macs"] == 3 * 16 * 16
    assert row["synaptic_operations"] == pytest.approx(spikes.sum() / adata.n_obs * 16)


def test_maps_of_real_numbers_cost_multiplications(adata):
    """Features, and means of spikes, are no spikes."""
    real = {
        "spike": ["encoders.0", "encoders.1", "blocks.0.attention.project.0"],
        "dssa": ["encoders.0", "encoders.1", "blocks.0.attention.inner.reduce.linear"],
    }
    for encoder, names in real.items():
        table = _trained(adata, encoder=encoder).spike_stats()
        maps = [name for name in table.index if "." in name and not name.endswith("products")]
        assert [name for name in maps if np.isnan(table.loc[name, "events"])] == names
        for name in names:
            assert table.loc[name, "energy_estimate_mj"] == table.loc[name, "floating_energy_estimate_mj"] > 0


def test_total_is_the_sum_and_lists_what_the_latent_passes_through(adata):
    model = _trained(adata, n_layers=2)
    before = model.get_latent_representation()
    table = model.spike_stats()
    for column in ("events", "macs", "synaptic_operations", "energy_estimate_mj", "floating_energy_estimate_mj"):
        assert table.loc["total", column] == pytest.approx(table[column].iloc[:-1].sum())
    assert 0 < table.loc["total", "firing_rate"] < 1
    maps = {name for name, part in model.module.named_modules() if isinstance(part, QuantLinear)}
    assert maps - set(table.index) == {"decoder"}
    assert "Horowitz" in table.attrs["estimate"]
    assert not any(part._forward_pre_hooks for part in model.module.modules())
    np.testing.assert_array_equal(model.get_latent_representation(), before)
    # What stays unlisted may say anything: the latent does not pass through it.
    model.module.decoder.weight.data.fill_(1e3)
    np.testing.assert_array_equal(model.get_latent_representation(), before)


def test_of_other_data(adata):
    model = _trained(adata)
    half = adata[:80].copy()
    table, other = model.spike_stats(), model.spike_stats(half)
    assert list(other.index) == list(table.index)
    assert other.loc["encoders.0", "energy_estimate_mj"] == pytest.approx(
        table.loc["encoders.0", "energy_estimate_mj"] * 80 / adata.n_obs
    )
    assert not half.obsm.keys() - adata.obsm.keys()


def test_of_a_packed_model(adata):
    model = _trained(adata)
    before = model.spike_stats()
    model.quantize(n_repeats=1)
    after = model.spike_stats()
    assert len(after) == len(before)
    np.testing.assert_allclose(after["macs"], before["macs"])
    assert after.loc["total", "events"] == pytest.approx(before.loc["total", "events"], rel=0.01)


@pytest.mark.parametrize("given", [{"use_attention": False, "n_heads": 8}, {"edges": "uniform"}, {"residual": "sew"}])
def test_other_forms(adata, given):
    table = _trained(adata, **given).spike_stats()
    assert [name for name in table.index if "attention" in name] == [] or "use_attention" not in given
    assert ("edges" in table.index) == ("edges" not in given)
    assert table["firing_rate"].dropna().between(0, 1).all()
    assert np.isfinite(table.loc["total", "energy_estimate_mj"])


def test_no_spikes(adata):
    with pytest.raises(ValueError, match="encoder='relu'.*no spikes"):
        _trained(adata, encoder="relu").spike_stats()


def test_not_before_training(adata):
    PRAGASpike.setup_anndata(adata, MODALITIES)
    with pytest.raises(RuntimeError, match="not trained"):
        PRAGASpike(adata).spike_stats()
