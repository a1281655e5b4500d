"""Population codes, scores of edges, fusion and blocks, against formulas and dense references."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stomics_tools.model.praga_spike import _layers, _settings, register_encoder
from stomics_tools.model.praga_spike._layers import (
    FreeEdges,
    Fusion,
    InductiveEdges,
    PopulationCode,
    SpikeBlock,
    UniformEdges,
)
from stomics_tools.nn import Graph

N = 24
ENCODERS = ["spike", "ssa", "sdt1", "sdt2", "sdt3", "qk_token", "qk_channel", "dssa", "relu"]


def _graph(n=N, seed=0):
    """A random symmetric pattern; the last spot has no neighbors."""
    dense = torch.rand(n, n, generator=torch.Generator().manual_seed(seed)) < 0.2
    dense = (dense | dense.T).fill_diagonal_(False)
    dense[-1] = dense[:, -1] = False
    row, col = dense.nonzero(as_tuple=True)
    return Graph(torch.cat([torch.zeros(1, dtype=torch.int64), torch.bincount(row, minlength=n).cumsum(0)]), col), dense


def _dense(graph, weight):
    return torch.zeros(graph.shape, dtype=weight.dtype).index_put((graph.row.long(), graph.col.long()), weight)


# -------------------------------------------------------------- population codes


def _decoded(code, u, targets=None):
    targets = torch.eye(u.shape[1], dtype=u.dtype) if targets is None else targets
    return code(u) @ code.decoding(targets).T


@pytest.fixture(params=[(2, 1), (5, 1), (5, 2), (9, 3)], ids=str)
def code(request, settings_of):
    n_levels, n_copies = request.param
    code = PopulationCode(3, settings_of(n_levels=n_levels, n_copies=n_copies)).double()
    code.ranges.copy_(torch.tensor([0.5, 1.0, 4.0]))
    assert code.width == 2 * n_copies * 3
    code.n_values = n_copies * (n_levels - 1)  # C L
    return code


def test_spikes_tell_numbers_up_to_half_a_step(code):
    """The counts of C staggered neurons add up to the count of one with C times as many levels (Hermite's identity)."""
    u = torch.linspace(-1, 1, 4001, dtype=torch.float64)[:, None] * code.ranges
    step = code.ranges / code.n_values
    error = (_decoded(code, u) - u).abs()
    assert (error <= step / 2 + 1e-12).all()
    assert (error.max(0).values > 0.49 * step).all()  # the bound is sharp
    steps = u / step
    away_from_ties = ((steps - steps.floor() - 0.5).abs() > 1e-6).all(1)
    torch.testing.assert_close(_decoded(code, u)[away_from_ties], (steps.round() * step)[away_from_ties])
    targets = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bound = targets.abs() @ (step / 2)
    assert ((_decoded(code, u, targets) - u @ targets.T).abs() <= bound + 1e-12).all()


def test_number_of_values_that_are_told_apart(code):
    u = torch.linspace(-1.5, 1.5, 20001, dtype=torch.float64)[:, None] * code.ranges
    found = _decoded(code, u)
    for d in range(3):
        assert len(found[:, d].mul(1e6).round().unique()) == 2 * code.n_values + 1


def test_codes_rise_saturate_and_are_odd(code):
    u = torch.linspace(-3, 3, 3001, dtype=torch.float64)[:, None] * code.ranges
    found = _decoded(code, u)
    assert (found.diff(dim=0) > -1e-12).all()
    torch.testing.assert_close(found, -found.flip(0))
    beyond = u.abs() >= code.ranges
    torch.testing.assert_close(found[beyond], (u.sign() * code.ranges)[beyond])
    spikes = code(u)
    on, off = spikes.split(code.width // 2, dim=1)
    assert torch.equal(on, off.flip(0))
    assert spikes.min() == 0
    assert spikes.max() == 1
    assert (code(torch.zeros(1, 3, dtype=torch.float64)) == 0).all()  # silence is zero


def test_without_spikes_the_code_is_exact(settings_of):
    code = PopulationCode(3, settings_of(encoder="relu")).double()
    code.ranges.copy_(torch.tensor([0.5, 1.0, 4.0]))
    u = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 10
    torch.testing.assert_close(_decoded(code, u), u)


# -------------------------------------------------------------- edges and fusion


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


def test_fusion_equals_its_formula_and_begins_at_its_prior(settings_of):
    torch.manual_seed(0)
    fusion = Fusion(6, (0.9, 0.3), settings_of(n_levels=5, n_copies=2, weight_bits="float"))
    views = torch.randn(2, 10, 6)
    torch.testing.assert_close(fusion(views), torch.tensor([[0.75, 0.25]]).expand(10, 2))
    torch.nn.init.normal_(fusion.score)

    def fire(x):
        return (4 * x).clamp(0, 4).add(0.5).floor() / 4

    scores = []
    for view in views:
        spikes = fire(torch.cat([view, view, -view, -view], dim=1) + fusion.code.offsets)
        scores.append(fire(spikes @ fusion.hidden.weight.T + fusion.hidden.bias) @ fusion.score)
    found = fusion(views)
    torch.testing.assert_close(found, (torch.stack(scores, dim=1) + fusion.bias).softmax(1))
    assert (found - torch.tensor([0.75, 0.25])).abs().max() > 0.01


# ------------------------------------------------------------------------ blocks


def _block(settings_of, **given):
    """A block in evaluation, whose normalisations have left their beginning."""
    torch.manual_seed(0)
    block = SpikeBlock(6, settings_of(**{"n_latent": 16, "n_heads": 4, "layer_scale": 0.5, **given})).double()
    for part in block.modules():
        if isinstance(part, torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(part.weight, 1, 3)
            torch.nn.init.uniform_(part.bias, 0, 1.5)
    x, graph, weight = _input()
    for _ in range(20):
        block(x, graph, weight, torch.tensor([0, 10, N]))
    return block.eval()


def _input(n=N):
    graph, _ = _graph(n)
    x = torch.randn(n, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weight = torch.rand(graph.n_edges, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return x, graph, weight


@pytest.mark.parametrize("use_attention", [True, False])
@pytest.mark.parametrize("residual", ["membrane", "sew"])
def test_block_equals_its_formula(settings_of, residual, use_attention):
    """Densely, the attention alone by its own class."""
    block = _block(settings_of, residual=residual, use_attention=use_attention, weight_bits=3, n_copies=2)
    block.code.ranges.fill_(2.0)
    x, graph, weight = _input()
    segments = torch.tensor([0, 9, N])

    def fire(v):
        return (4 * v).clamp(0, 4).add(0.5).floor() / 4

    def fired(code, v):
        scaled = v / code.ranges
        return fire(torch.cat([scaled, scaled, -scaled, -scaled], dim=1) + code.offsets)

    def mapped(part, v):
        y = v @ part[0].quantizer(part[0].weight).T
        return (y - part[1].running_mean) / (part[1].running_var + 1e-5).sqrt() * part[1].weight + part[1].bias

    spikes = fired(block.code, x)
    update = _dense(graph, weight) @ mapped(block.aggregate, spikes)
    if use_attention:
        read = fire(block.attention(mapped(block.expand, spikes), segments))
        assert read.std() > 0.01
        update = update + read @ block.read_attention.used_weight.T
    else:
        assert block.attention is None
    u = x + block.first_scale * update
    entering = (
        fired(block.second_code, u)
        if residual == "membrane"
        else spikes + fired(block.second_code, block.first_scale * update)
    )
    hidden = fire(mapped(block.hidden, entering))
    assert 0.01 < hidden.mean() < 0.99
    expected = u + block.second_scale * mapped(block.contract, hidden)
    torch.testing.assert_close(block(x, graph, weight, segments), expected)


@pytest.mark.parametrize("segments", [[0, N], [0, 7, 20, N]])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_blocks_of_rows_equal_the_whole(settings_of, encoder, segments):
    block = _block(settings_of, encoder=encoder)
    x, graph, weight = _input()
    whole = block(x, graph, weight, torch.tensor(segments))
    other = _block(settings_of, encoder=encoder, use_attention=False)(x, graph, weight, torch.tensor(segments))
    assert not torch.allclose(whole, other, atol=1e-3)  # the attention does something
    for size in (1, 5, 8, 1000):
        found = block(x, graph, weight, torch.tensor(segments), block_size=size)
        torch.testing.assert_close(found, whole, atol=1e-10, rtol=0)


@pytest.mark.parametrize("given", [{"attention_windows": (None, 3)}, {"reparameterize": True}, {"residual": "sew"}])
def test_blocks_of_rows_equal_the_whole_in_all_forms(settings_of, given):
    block = _block(settings_of, **given)
    x, graph, weight = _input()
    segments = torch.tensor([0, 7, N])
    torch.testing.assert_close(
        block(x, graph, weight, segments, block_size=4), block(x, graph, weight, segments), atol=1e-10, rtol=0
    )


@pytest.mark.parametrize("encoder", ENCODERS)
def test_attention_stays_within_a_slice(settings_of, encoder):
    block = _block(settings_of, encoder=encoder)
    x, graph, weight = _input()
    segments, weight = torch.tensor([0, 10, N]), weight * (graph.row < 10).eq(graph.col < 10)
    other = x.clone()
    other[10:] = 2 * other[10:].flip(0) + 1
    a, b = block(x, graph, weight, segments), block(other, graph, weight, segments)
    assert torch.equal(a[:10], b[:10])
    assert not torch.equal(a[10:], b[10:])
    other = x.clone()
    other[4:10] = -2 * x[4:10]
    alone = torch.zeros_like(weight)
    changed = not torch.equal(block(other, graph, alone, segments)[:4], block(x, graph, alone, segments)[:4])
    assert changed == (encoder != "qk_token")  # others of the slice reach a spot; token attention gates its own


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("residual", ["membrane", "sew"])
def test_values_made_again_equal_those_kept(monkeypatch, settings_of, encoder, residual):
    """Outcome, gradients and running statistics of a block that keeps nothing; gradients reach every weight."""
    results = []
    for limit in (1000, 0):
        monkeypatch.setattr(_layers, "_MAX_KEPT", limit)
        block = _block(settings_of, encoder=encoder, residual=residual).train()
        x, graph, weight = _input()
        x.requires_grad_()
        weight.requires_grad_()
        segments = torch.tensor([0, 10, N])
        outcome = block(x, graph, weight, segments)
        outcome.pow(3).sum().backward()
        grads = {name: p.grad for name, p in block.named_parameters()}
        momenta = {m.momentum for m in block.modules() if isinstance(m, torch.nn.BatchNorm1d)}
        statistics = {name: b for name, b in block.named_buffers() if name.endswith(("running_mean", "running_var"))}
        results.append(({"y": outcome, "x": x.grad, "weight": weight.grad, **grads, **statistics}, momenta))
    (kept, momenta), (again, other_momenta) = results
    assert kept.keys() == again.keys()
    for name, value in kept.items():
        assert value is not None, name
        torch.testing.assert_close(again[name], value, atol=1e-12, rtol=1e-10, msg=name)
    assert momenta == other_momenta == {0.1}


# -------------------------------------------------------------- encoders of users


def test_an_added_encoder_gets_what_was_promised(settings_of, monkeypatch):
    monkeypatch.setattr(_layers, "ADDED_ENCODERS", added := {})
    monkeypatch.setattr(_settings, "ADDED_ENCODERS", added)
    seen = []

    class Mean(torch.nn.Module):
        def forward(self, x, segments):
            seen.append((x.shape, segments.tolist()))
            return x.mean(0, keepdim=True).expand_as(x)

    register_encoder("mean", lambda settings: seen.append(settings) or Mean())
    block = _block(settings_of, encoder="mean")
    x, graph, weight = _input()
    block(x, graph, weight, torch.tensor([0, 9, N]), block_size=5)  # without `in_blocks` as a whole
    assert seen[0].encoder == "mean"
    assert seen[-1] == ((N, 16), [0, 9, N])
    register_encoder("mean", lambda settings: Mean())  # replaces it
    for taken in ENCODERS:
        with pytest.raises(ValueError, match=f"'{taken}' is an encoder of the package"):
            register_encoder(taken, Mean)
    for removed in ("spikformer", "linear"):
        with pytest.raises(ValueError, match=f"'{removed}' was an encoder of earlier versions"):
            register_encoder(removed, Mean)
    with pytest.raises(ValueError, match="`encoder`: unknown option 'median'.*'mean'"):
        settings_of(encoder="median")


@pytest.mark.parametrize("encoder", ENCODERS)
def test_attention_weights(settings_of, encoder):
    block = _block(settings_of, encoder=encoder)
    x, _, _ = _input()
    rows, segments = torch.tensor([3, 8, 9, 20]), torch.tensor([0, 9, N])
    found = block.attention_weights(x, rows, segments)
    assert found.shape == (4, N)
    own = np.arange(N)[None] < 9
    own = np.where((rows.numpy() < 9)[:, None], own, ~own)
    assert (found.detach().numpy()[~own] == 0).all()
    total = found.sum(1)
    assert (((total - 1).abs() < 1e-9) | (total == 0)).all()
    assert (total > 0).any()
