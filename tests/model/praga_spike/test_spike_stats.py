"""Spikes, operations and the estimate of energy, against counts by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from stomics_tools.model import PRAGASpike
from stomics_tools.model.praga_spike._spike_stats import count_spikes, spike_table
from stomics_tools.nn import Multispike

MODALITIES = {"rna": "X_pca", "protein": "X_protein"}
QUIET = {"enable_progress_bar": False, "key_added": None}


def _trained(data, **kwargs):
    PRAGASpike.setup_anndata(data, MODALITIES)
    model = PRAGASpike(data, **{"n_latent": 16, "n_heads": 4, "n_feature_neighbors": 5, **kwargs})
    model.train(5, **QUIET)
    return model


# Three rows of two features. Of 5 levels the counts are 0 0 / 1 4 / 2 0; twice the values clip to 0 0 / 2 4 / 4 0;
# of 2 levels they are 0 0 / 1 1 / 1 0.
X = torch.tensor([[-1.0, 0.1], [0.25, 3.0], [0.5, 0.0]])


class _Doubled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = Multispike(5)
        self.body = nn.Sequential(nn.Linear(2, 2, bias=False), Multispike(2))
        nn.init.eye_(self.body[0].weight)
        self.body[0].weight.data *= 2

    def forward(self, x):
        return self.body(self.first(x))


def test_spikes_counted_by_hand():
    module = _Doubled()
    table = count_spikes(module, lambda: module(X))
    expected = pd.DataFrame(
        {
            "n_steps": [4, 1],
            "width": [2, 2],
            "events": [7 / 3, 3 / 3],
            "firing_rate": [7 / 24, 3 / 6],
            "silent_share": [1 / 3, 1 / 3],
        },
        index=["first", "body.1"],
    )
    pd.testing.assert_frame_equal(table, expected)


def test_parts_add_up_and_nothing_stays_behind():
    module = _Doubled()
    whole = count_spikes(module, lambda: module(X))
    parts = count_spikes(module, lambda: [module(X[:1]), module(X[1:])])
    pd.testing.assert_frame_equal(parts, whole)
    assert not any(part._forward_hooks for part in module.modules())
    with pytest.raises(ZeroDivisionError):
        count_spikes(module, lambda: 1 / 0)
    assert not any(part._forward_hooks for part in module.modules())


def test_operations_and_energy_by_hand():
    spikes = count_spikes(module := _Doubled(), lambda: module(X))
    table = spike_table(spikes, {"first": 4.0, "body.1": 10.0}, {"start": 6.0}, n_obs=1_000_000)
    assert list(table.index) == ["first", "body.1", "start", "total"]
    operations = [7 / 24 * 4 * 4, 0.5 * 10]
    np.testing.assert_allclose(table["synaptic_operations"], [*operations, np.nan, sum(operations)])
    np.testing.assert_allclose(table["macs"], [4, 10, 6, 20])
    # A million spots and 1e-9 mJ a pJ: a thousandth of the pJ of a spot.
    energy = [0.9e-3 * operations[0], 0.9e-3 * operations[1], 4.6e-3 * 6]
    np.testing.assert_allclose(table["energy_estimate_mj"], [*energy, sum(energy)])
    np.testing.assert_allclose(table["floating_energy_estimate_mj"], 4.6e-3 * table["macs"])
    np.testing.assert_allclose(table["firing_rate"], [7 / 24, 0.5, np.nan, (7 / 3 + 1) / (8 + 2)])
    assert "estimate" in table.attrs["estimate"]
    assert "Horowitz" in table.attrs["estimate"]


def test_of_a_model(adata):
    model = _trained(adata, n_layers=2)
    before = model.get_latent_representation()
    table = model.spike_stats()
    d, heads, degree = 16, 4, _mean_degree(model)
    spikes = ["spike", "second_spike", "inner_spike"]
    spikes += [f"attention.{name}" for name in ("spike", "query_spike", "key_spike", "value_spike")]
    names = [f"layers.{i}.{name}" for i in range(2) for name in spikes]
    assert list(table.index[:14]) == names
    macs = [degree * d, 2 * d * d, 2 * d * d, 3 * d * d, d * (d / heads + 1), d * (d / heads + 1), d]
    np.testing.assert_allclose(table["macs"].iloc[:14], macs * 2)
    np.testing.assert_allclose(
        table["synaptic_operations"].iloc[:14], table["firing_rate"].iloc[:14] * 4 * table["macs"].iloc[:14]
    )
    assert table["firing_rate"].dropna().between(0, 1).all()
    assert table.loc["layers.0.spike", "firing_rate"] > 0.01
    assert table.loc["encoders", "macs"] == (20 + 8) * model.module.hops.shape[2]
    assert table.loc[["layers.1.aggregate", "layers.1.attention.project"], "macs"].tolist() == [d * d] * 2
    for column in ("macs", "synaptic_operations", "energy_estimate_mj"):
        assert table.loc["total", column] == pytest.approx(table[column].iloc[:-1].sum())
    assert table.loc["total", "energy_estimate_mj"] < table.loc["total", "floating_energy_estimate_mj"]
    assert not any(part._forward_hooks for part in model.module.modules())
    np.testing.assert_array_equal(model.get_latent_representation(), before)


def _mean_degree(model):
    inputs, _ = model._inputs(None)
    assert inputs.rings[0].n_edges == model.module.get_buffer("average_0").numel()
    return inputs.rings[0].n_edges / inputs.n_obs


def test_of_other_data(adata):
    model = _trained(adata)
    half = adata[:80].copy()
    table, other = model.spike_stats(), model.spike_stats(half)
    assert list(other.index) == list(table.index)
    assert other.loc["encoders", "energy_estimate_mj"] == pytest.approx(
        table.loc["encoders", "energy_estimate_mj"] * 80 / adata.n_obs
    )
    assert "praga_spike_stats" not in half.uns
    assert not half.obsm.keys() - adata.obsm.keys()


def test_without_attention_or_fusion(adata):
    given = {"use_attention": False, "n_heads": 8, "use_fusion": False, "n_feature_neighbors": 20}
    table = _trained(adata, edges="uniform", **given).spike_stats()
    assert not [name for name in table.index if "attention" in name]
    assert (table.loc[["edges", "fusion"], "macs"] == 0).all()
    assert np.isfinite(table.loc["total", "energy_estimate_mj"])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"encoder": "relu"}, "encoder='relu'.*no spikes"),
        ({"encoder": "linear", "n_heads": 8}, "encoder='linear'.*no spikes"),
        ({"n_layers": 0, "n_heads": 8}, "n_layers=0.*no spikes"),
    ],
)
def test_no_spikes(adata, arguments, reason):
    with pytest.raises(ValueError, match=reason):
        _trained(adata, **arguments).spike_stats()


def test_not_before_training(adata):
    PRAGASpike.setup_anndata(adata, MODALITIES)
    with pytest.raises(RuntimeError, match="not trained"):
        PRAGASpike(adata).spike_stats()
