"""Scores of edges, attention of fusion and the layers of the encoder against dense references."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest
import torch

from stomics_tools.model import PRAGASpike
from stomics_tools.model.praga_spike import _layers
from stomics_tools.model.praga_spike._edges import FreeEdges, InductiveEdges, UniformEdges
from stomics_tools.model.praga_spike._layers import FusionAttention, SpikeLayer
from stomics_tools.model.praga_spike._settings import SpikeSettings
from stomics_tools.nn import Graph

N = 24


def _graph(n=N, seed=0):
    """A random symmetric pattern; the last spot has no neighbours."""
    dense = torch.rand(n, n, generator=torch.Generator().manual_seed(seed)) < 0.2
    dense = (dense | dense.T).fill_diagonal_(False)
    dense[-1] = dense[:, -1] = False
    row, col = dense.nonzero(as_tuple=True)
    return Graph(torch.cat([torch.zeros(1, dtype=torch.int64), torch.bincount(row, minlength=n).cumsum(0)]), col), dense


def _dense(graph, weight):
    return torch.zeros(graph.shape, dtype=weight.dtype).index_put((graph.row.long(), graph.col.long()), weight)


def _settings(**given):
    """Settings of the model with the defaults of its constructor."""
    defaults = {name: p.default for name, p in inspect.signature(PRAGASpike).parameters.items()}
    return SpikeSettings(**{field.name: defaults[field.name] for field in fields(SpikeSettings)} | given)


def _layer(n_slices=1, **given):
    torch.manual_seed(0)
    settings = _settings(**{"n_latent": 16, "n_heads": 4, "layer_scale": 0.5, **given})
    layer = SpikeLayer(settings).double()
    for module in layer.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.uniform_(module.bias, -0.3, 0.6)
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2)
    return layer


def _input(n=N):
    graph, _ = _graph(n)
    x = torch.randn(n, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weight = torch.rand(graph.n_edges, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return x, graph, weight


def test_uniform_edges():
    graph, dense = _graph()
    weight = UniformEdges()(graph, torch.zeros(1))
    torch.testing.assert_close(_dense(graph, weight), dense / dense.sum(1, keepdim=True).clamp(min=1))


def test_free_edges():
    graph, dense = _graph()
    edges = FreeEdges(graph.n_edges)
    torch.testing.assert_close(edges(graph, torch.zeros(1)), UniformEdges()(graph, torch.zeros(1)))
    torch.nn.init.normal_(edges.logit)
    expected = _dense(graph, edges.logit).masked_fill(~dense, -torch.inf).softmax(1).nan_to_num(0)
    torch.testing.assert_close(_dense(graph, edges(graph, torch.zeros(1))), expected)


@pytest.mark.parametrize("sharpness", [0.0, 3.0, -2.0])
def test_inductive_edges_equal_the_formula(sharpness):
    graph, dense = _graph()
    torch.manual_seed(0)
    edges = InductiveEdges(5, width=4).double()
    edges.sharpness.data.fill_(sharpness)
    state = torch.randn(N, 5, dtype=torch.float64)
    position = state @ edges.project.weight.T / 2  # the root of the width
    distance = torch.cdist(position, position).square()
    expected = (-sharpness * distance).masked_fill(~dense, -torch.inf).softmax(1).nan_to_num(0)
    weight = edges(graph, state)
    torch.testing.assert_close(_dense(graph, weight), expected)
    assert edges(graph, torch.zeros_like(state)).isfinite().all()
    gradient = torch.autograd.grad(weight.square().sum(), edges.sharpness)[0]
    assert gradient.isfinite()
    assert (gradient != 0) or sharpness == 0


def test_fusion_attention_equals_the_formula_and_begins_at_its_prior():
    torch.manual_seed(0)
    fusion = FusionAttention(6, (0.9, 0.3), width=5)
    views = torch.randn(2, 10, 6)
    torch.testing.assert_close(fusion(views), torch.tensor([[0.75, 0.25]]).expand(10, 2))
    torch.nn.init.normal_(fusion.score)
    score = torch.stack(
        [torch.tanh(fusion.hidden(v)) @ fusion.score + b for v, b in zip(views, fusion.bias, strict=True)]
    )
    torch.testing.assert_close(fusion(views), score.softmax(0).T)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("encoder", ["spike", "relu", "linear"])
def test_layer_equals_its_formula(encoder, training):
    layer = _layer(encoder=encoder, n_heads=1, weight_bits="float").train(training)
    reference = _layer(encoder=encoder, n_heads=1, weight_bits="float").train(training)
    x, graph, weight = _input()

    def act(v):
        if encoder == "spike":
            return torch.floor((4 * v).clamp(0, 4) + 0.5) / 4
        return v.clamp(min=0) if encoder == "relu" else v

    def linear(block, v):
        return block[1](v @ block[0].weight.T)

    normed = reference.norm(x)
    update = linear(reference.aggregate, _dense(graph, weight) @ act(normed))
    if encoder == "linear":
        assert layer.attention is None  # attention is no linear map
    else:
        spikes, a = act(normed), reference.attention
        q, k, v = (act(linear(part, spikes)) for part in (a.query, a.key, a.value))
        coincidence = q @ k.T + 0.01
        update = update + linear(a.project, coincidence @ v / coincidence.sum(1, keepdim=True))
    u = x + reference.first_scale * update
    inner = act(linear(reference.expand, act(reference.second_norm(u))))
    u = u + reference.second_scale * linear(reference.contract, inner)
    segments = torch.tensor([0, N])
    torch.testing.assert_close(layer(x, graph, weight, segments), u)
    for name, buffer in layer.named_buffers():
        torch.testing.assert_close(buffer, reference.get_buffer(name))


def test_linear_layer_is_affine():
    layer = _layer(encoder="linear", weight_bits=4).eval()
    x, graph, weight = _input()
    segments = torch.tensor([0, N])
    zero, one, two = (layer(c * x, graph, weight, segments) for c in (0, 1, 2))
    torch.testing.assert_close(two - one, one - zero)


@pytest.mark.parametrize("segments", [[0, N], [0, 7, 20, N]])
@pytest.mark.parametrize("block_size", [1, 5, 8, 1000])
@pytest.mark.parametrize(
    "given",
    [{}, {"attention_windows": (None, 3)}, {"use_attention": False}, {"encoder": "relu", "reparameterize": True}],
)
def test_blocks_equal_the_whole(segments, block_size, given):
    layer = _layer(**given).eval()
    x, graph, weight = _input()
    whole = layer(x, graph, weight, torch.tensor(segments))
    before = x.clone()
    blocks = layer.in_blocks(x, graph, weight, torch.tensor(segments), block_size)
    torch.testing.assert_close(blocks, whole, atol=1e-10, rtol=0)
    assert torch.equal(x, before)


@pytest.mark.parametrize("given", [{}, {"encoder": "relu"}, {"encoder": "linear"}, {"attention_windows": (None, 5)}])
def test_values_made_again_equal_those_kept(monkeypatch, given):
    """Outcome, gradients and running statistics of a layer that keeps nothing."""
    results = []
    for limit in (1000, 0):
        monkeypatch.setattr(_layers, "_MAX_KEPT", limit)
        layer = _layer(**given)
        x, graph, weight = _input()
        x.requires_grad_()
        weight.requires_grad_()
        outcome = layer(layer(x, graph, weight, torch.tensor([0, 10, N])), graph, weight, torch.tensor([0, 10, N]))
        outcome.pow(3).sum().backward()
        grads = {name: p.grad for name, p in layer.named_parameters()}
        momenta = {m.momentum for m in layer.modules() if isinstance(m, torch.nn.BatchNorm1d)}
        statistics = {name: b for name, b in layer.named_buffers() if name.endswith(("running_mean", "running_var"))}
        results.append(({"y": outcome, "x": x.grad, "weight": weight.grad, **grads, **statistics}, momenta))
    (kept, momenta), (again, other_momenta) = results
    assert kept.keys() == again.keys()
    for name, value in kept.items():
        assert value is not None, name
        torch.testing.assert_close(again[name], value, atol=1e-12, rtol=1e-10, msg=name)
    assert momenta == other_momenta == {0.1}
