"""PRAGASpike with layers over time steps: their formula, blind spot, cost, and all that a model offers."""

from __future__ import annotations

import inspect
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from stomics_tools.model import PRAGASpike
from stomics_tools.model.praga_spike import _layers
from stomics_tools.model.praga_spike._inputs import prepare
from stomics_tools.model.praga_spike._outputs import make_module
from stomics_tools.model.praga_spike._settings import SpikeSettings
from stomics_tools.model.praga_spike._step_layers import StepLayer
from stomics_tools.nn import Graph, LIFNode

MODALITIES = {"rna": "X_pca", "protein": "X_protein"}
QUIET = {"enable_progress_bar": False, "key_added": None}
SMALL = {"n_latent": 16, "n_heads": 4, "n_feature_neighbors": 5}
SIDE = 12
N = SIDE * SIDE


def _model(data, *, epochs=5, seed=0, setup=True, **kwargs):
    if setup:
        PRAGASpike.setup_anndata(data, MODALITIES)
    model = PRAGASpike(data, **{**SMALL, "encoder": "spikformer", **kwargs})
    model.train(epochs, seed=seed, **QUIET)
    return model


# ---------------------------------------------------------------------- a layer


def _ring(n):
    """Each row between two others."""
    near = torch.stack([(torch.arange(n) - 1) % n, (torch.arange(n) + 1) % n], dim=1).sort(dim=1).values
    return Graph(torch.arange(0, 2 * n + 1, 2), near.flatten())


def _settings(**given):
    """Settings of the model with the defaults of its constructor."""
    defaults = {name: p.default for name, p in inspect.signature(PRAGASpike).parameters.items()}
    return SpikeSettings(**{field.name: defaults[field.name] for field in fields(SpikeSettings)} | given)


def _layer(n, **given):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = _settings(n_latent=8, n_heads=2, encoder="spikformer", layer_scale=0.5, **given)
        layer = StepLayer(settings).double()
        for name, parameter in layer.named_parameters():
            if name.endswith("norm.weight"):
                parameter.data.fill_(2.0)
            elif name.endswith("norm.bias"):
                parameter.data.fill_(0.5)
        x = torch.randn(n, 8, dtype=torch.float64) * 2
        weight = torch.rand(2 * n, dtype=torch.float64)
    segments = torch.tensor([0, n // 3, n])
    for _ in range(4):
        layer(x, _ring(n), weight, segments)
    if layer.attention is not None:
        layer.attention.inner.attention_norm.running_var.fill_(0.005)
    return layer.eval(), x, weight, segments


@pytest.mark.parametrize("use_attention", [True, False])
def test_the_layer_by_its_formula(use_attention):
    n = 21
    layer, u, weight, segments = _layer(n, n_steps=3, use_attention=use_attention)
    fire, fire_early = LIFNode(tau=2.0), LIFNode(tau=2.0, v_threshold=0.5)
    graph = _ring(n)
    dense = torch.zeros(n, n, dtype=u.dtype)
    dense[graph.row.long(), graph.col.long()] = weight

    def norm(part, x):
        return (x - part.running_mean) / (part.running_var + 1e-5).sqrt() * part.weight + part.bias

    def mapped(part, x):
        return norm(part.norm, x @ part.linear.used_weight.T)

    spikes = fire(torch.stack([norm(layer.norm, u)] * 3))
    around = [norm(layer.aggregate[1], dense @ s @ layer.aggregate[0].used_weight.T) for s in spikes]
    update = sum(around) / 3
    if use_attention:
        inner = layer.attention.inner
        q, k, v = (fire(mapped(inner.layers[name], spikes)) for name in ("query", "key", "value"))
        sums = torch.zeros(3, n, 8, dtype=u.dtype)
        for first, last in ((0, n // 3), (n // 3, n)):
            rows = slice(first, last)
            for head in (slice(0, 4), slice(4, 8)):
                maps = q[:, rows, head] @ k[:, rows, head].mT
                sums[:, rows, head] = maps @ v[:, rows, head] / (last - first)
        y = fire_early(norm(inner.attention_norm, sums))
        assert y.mean() > 0.01
        update = update + mapped(inner.project, y).mean(0)
    else:
        assert layer.attention is None
    between = u + 0.5 * update
    hidden = fire(mapped(layer.mlp.hidden, fire(torch.stack([norm(layer.second_norm, between)] * 3))))
    assert 0.01 < hidden.mean() < 0.99
    expected = between + 0.5 * mapped(layer.mlp.output, hidden).mean(0)
    torch.testing.assert_close(layer(u, graph, weight, segments), expected)


def test_gradients_reach_all_weights():
    layer, u, weight, segments = _layer(30)
    layer.train()
    u.requires_grad_()
    weight.requires_grad_()
    (layer(u, _ring(30), weight, segments) * torch.randn(30, 8, dtype=torch.float64)).sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    assert u.grad.abs().min() > 0
    assert weight.grad.abs().max() > 0


class _Sizes(TorchDispatchMode):
    """Numbers in all tensors made, together, and in the largest; a sparse one is of tensors that were counted."""

    def __init__(self):
        super().__init__()
        self.total = self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else [out]:
            if isinstance(x, torch.Tensor) and x.layout == torch.strided:
                self.total += x.numel()
                self.largest = max(self.largest, x.numel())
        return out


def test_cost_is_linear_in_the_number_of_spots():
    sizes = {}
    for n in (600, 2400):
        layer, u, weight, segments = _layer(n)
        with _Sizes() as found:
            layer(u, _ring(n), weight, segments)
        sizes[n] = found
    assert sizes[2400].total < 4.05 * sizes[600].total
    assert sizes[2400].largest <= 4 * sizes[600].largest
    assert sizes[2400].largest < 2400 * 8 * 4 * 4  # of the width of the perceptron, over 4 steps


# ------------------------------------------------------------------- the module


@pytest.fixture
def spots(spots_of, grid):
    xy = grid(SIDE)
    return spots_of(_values(xy), xy, batch=(xy[:, 1] >= 5).astype(np.int64))


def _values(xy):
    rng = np.random.default_rng(0)
    right, top = (xy > xy.max() / 2).T - 0.5
    rna = np.outer(right, rng.normal(size=7)) * 3 + rng.normal(size=(len(xy), 7))
    protein = np.outer(top, rng.normal(size=4)) * 3 + rng.normal(size=(len(xy), 4))
    return {"rna": rna, "protein": protein}


def _trained(spots, n_steps=4, **given):
    settings = _settings(
        **{**SMALL, "encoder": "spikformer", "n_spatial_neighbors": 4, "layer_scale": 0.3, "n_layers": 2, **given}
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tissue = prepare(spots, settings)
        module = make_module(tissue, [1.0, 1.0], settings)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.03)
    for _ in range(n_steps):
        optimizer.zero_grad()
        module.loss(tissue)["train_loss"].backward()
        optimizer.step()
    return module, tissue


@pytest.mark.parametrize("training", [True, False])
def test_hidden_values_change_no_prediction(spots, training):
    module, tissue = _trained(spots)
    module.train(training)
    hidden, visible = module._hide(tissue, 3)
    values = [x.clone() for x in tissue.values]
    for x in values:
        x[hidden] = 37.0 - 5 * x[hidden]
    with torch.no_grad():
        a = module.encode(tissue, visible)
        b = module.encode(replace(tissue, values=values), visible)
    assert torch.equal(a.predicted, b.predicted)


def test_blocks_equal_the_whole(spots):
    module, tissue = _trained(spots)
    module.finish(tissue)
    module.eval()
    module.layer_share.fill_(1.0)
    with torch.no_grad():
        whole = module.encode(tissue).predicted
        assert not torch.allclose(whole, _without_layers(module, tissue), atol=1e-2)
        for block_size in (1, 13, 50, 10_000):
            blocks = module.encode(tissue, block_size=block_size).predicted
            # A membrane at its threshold may fall to either side of it.
            assert ((blocks - whole).abs() < 1e-4).float().mean() > 0.99


def _without_layers(module, tissue):
    module.layer_share.fill_(0.0)
    predicted = module.encode(tissue).predicted
    module.layer_share.fill_(1.0)
    return predicted


def test_values_made_again_equal_those_kept(monkeypatch, spots):
    results = []
    for limit in (10_000, 0):
        monkeypatch.setattr(_layers, "_MAX_KEPT", limit)
        module, tissue = _trained(spots, 2)
        module.zero_grad()
        losses = module.loss(tissue)
        losses["train_loss"].backward()
        grads = {f"gradient {name}": p.grad for name, p in module.named_parameters() if p.grad is not None}
        state = {name: x for name, x in module.state_dict().items() if "num_batches" not in name}
        results.append({**losses, **grads, **state})
    kept, again = results
    assert kept.keys() == again.keys()
    for name, value in kept.items():
        torch.testing.assert_close(again[name], value, msg=name)


def test_one_slice_does_not_see_the_other(spots):
    module, tissue = _trained(spots)
    module.eval()
    first, second = slice(0, int(tissue.segments[1])), slice(int(tissue.segments[1]), None)
    values = [x.clone() for x in tissue.values]
    for x in values:
        x[second] = x[second] * 2 + 1
    with torch.no_grad():
        a = module.encode(tissue).predicted
        b = module.encode(replace(tissue, values=values)).predicted
    torch.testing.assert_close(a[first], b[first])
    assert not torch.allclose(a[second], b[second])


# -------------------------------------------------------------------- the model


@pytest.mark.parametrize(
    "given", [{}, {"n_layers": 2, "n_steps": 2}, {"use_attention": False, "n_heads": 8, "weight_bits": "learned"}]
)
def test_trains(adata, given):
    model = _model(adata, epochs=50, layer_scale=0.5, **given)
    loss = model.history["reconstruction_loss"].to_numpy().ravel()
    assert loss[-20:].mean() < loss[:10].mean()
    latent = model.get_latent_representation()
    assert latent.shape == (adata.n_obs, 16)
    assert np.isfinite(latent).all()
    assert 0 <= model.layer_share <= 1
    assert np.isfinite(model.get_denoised()["rna"]).all()


def test_same_seed_same_bits(adata):
    a = _model(adata).get_latent_representation()
    np.testing.assert_array_equal(_model(adata, setup=False).get_latent_representation(), a)
    assert not np.array_equal(_model(adata, setup=False, seed=1).get_latent_representation(), a)


def test_steps_and_encoders_are_different_models(adata):
    def layers_in_full(**kwargs):
        model = _model(adata, layer_scale=0.5, **kwargs)
        model.module.layer_share.fill_(1.0)
        return model.get_latent_representation()

    latents = [layers_in_full(), layers_in_full(n_steps=1), layers_in_full(encoder="spike")]
    assert not np.allclose(latents[0], latents[1])
    assert not np.allclose(latents[0], latents[2])


def test_save_and_load(tmp_path, adata):
    model = _model(adata, n_layers=2, n_steps=3)
    before = model.get_latent_representation()
    model.save(tmp_path / "model")
    loaded = PRAGASpike.load(tmp_path / "model", adata)
    assert loaded.module.settings.n_steps == 3
    np.testing.assert_array_equal(loaded.get_latent_representation(), before)


def test_new_data(adata):
    model = _model(adata)
    half = adata[:80].copy()
    latent = model.get_latent_representation(half)
    assert latent.shape == (80, 16)
    assert np.isfinite(latent).all()
    order = np.random.default_rng(0).permutation(80)
    np.testing.assert_allclose(model.get_latent_representation(half[order].copy()), latent[order], atol=1e-4)


@pytest.mark.parametrize("given", [{}, {"n_layers": 2, "use_attention": False, "n_heads": 8}])
def test_quantize(tmp_path, adata, given):
    model = _model(adata, epochs=20, **given)
    table = model.quantize(n_repeats=2)
    assert list(table.index) == ["trained", "folded", "packed", "bf16"]
    assert table.loc["packed", "bytes"] < 0.5 * table.loc["trained", "bytes"]
    assert table.loc["folded", "max_abs_difference"] < 1e-3
    assert table.loc["packed", "max_abs_difference"] < 1e-3
    after = model.get_latent_representation()
    model.save(tmp_path / "packed")
    np.testing.assert_array_equal(PRAGASpike.load(tmp_path / "packed", adata).get_latent_representation(), after)


def test_spike_stats(adata):
    model = _model(adata, epochs=40, n_layers=2, n_steps=3)
    table = model.spike_stats()
    d, of_head = 16, 4
    degree = model._inputs(None)[0].rings[0].n_edges / adata.n_obs
    macs = {
        "spike": degree * d,
        "second_spike": 2 * d * d,
        "attention.spike": 3 * d * d,
        "attention.inner.layers.query.neuron": d * of_head,
        "attention.inner.layers.key.neuron": d * of_head,
        "attention.inner.layers.value.neuron": 0,
        "attention.inner.attention_neuron": d * d,
        "mlp.hidden.neuron": 2 * d * d,
    }
    expected = {f"layers.{i}.{name}": value for i in range(2) for name, value in macs.items()}
    spiking = table.iloc[: len(expected)]
    assert set(spiking.index) == set(expected)
    np.testing.assert_allclose(spiking["macs"], [expected[name] for name in spiking.index])
    np.testing.assert_allclose(spiking["synaptic_operations"], spiking["firing_rate"] * 3 * spiking["macs"])
    assert spiking["firing_rate"].between(0, 1).all()
    assert (spiking["firing_rate"] > 0).mean() > 0.8
    assert table.loc["layers.1.aggregate", "macs"] == d * d
    assert not [name for name in table.index if name.endswith("attention.project")]
    assert np.isfinite(table.loc["total", "energy_estimate_mj"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_levels": 3}, "`n_levels=3` has no effect unless `encoder='spike'`"),
        ({"attention_windows": (None, 20)}, "`attention_windows=.*` has no effect unless `encoder` is another"),
        ({"reparameterize": True}, "`reparameterize=True` has no effect unless `encoder` is another"),
        ({"encoder": "spike", "n_steps": 2}, "`n_steps=2` has no effect unless `encoder='spikformer'`"),
        ({"n_steps": 0}, "`n_steps`"),
        ({"n_heads": 5}, "must be a multiple of `n_heads=5`"),
        ({"encoder": "spikeformer"}, "`encoder`.*spikformer"),
    ],
)
def test_bad_arguments(adata, arguments, message):
    PRAGASpike.setup_anndata(adata, MODALITIES)
    with pytest.raises(ValueError, match=message):
        PRAGASpike(adata, **{**SMALL, "encoder": "spikformer", **arguments})
