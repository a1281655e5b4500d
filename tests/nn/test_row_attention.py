"""Every attention over rows against its formula with all pairs of rows, and what they have in common."""

from __future__ import annotations

import itertools

import pytest
import torch

from stomics_tools.nn import (
    LIFNode,
    Multispike,
    RepLinear,
    SpikingRowAttention,
    SpikingRowBlock,
    firing_rates,
    fold_all,
)

FORMS = ("ssa", "sdt1", "sdt2", "sdt3", "qk_token", "qk_channel", "dssa")
N, C, HEADS, D = 23, 12, 3, 4
SEGMENTS = [0, 9, 10, 23]


def _x(seed=0, n=N):
    return torch.randn(n, C, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 1.5


def _lively(module, *call):
    """Running statistics, and norms with which a good part of the neurons fires."""
    for name, parameter in module.named_parameters():
        if name.endswith("norm.weight"):
            parameter.data.fill_(2.0)
        elif name.endswith("norm.bias"):
            parameter.data.fill_(0.6)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm1d):
            part.momentum = None  # the plain mean of all batches
    for seed in range(5):
        module(_x(seed), *call)
    return module.eval()


def _attention(form, *, training=False, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if form == "dssa":
            settings = {"n_groups": 4, **settings}
        attention = SpikingRowAttention(C, HEADS, form, **settings).double()
        return _lively(attention, torch.tensor(SEGMENTS)).train(training)


def _neuron(form, threshold):
    if form == "sdt3":
        return lambda z: (z.clamp(0, 1) * 4 + 0.5).floor() / 4
    return LIFNode(tau=2.0, v_threshold=threshold)


def _norm(norm, z):
    return (z - norm.running_mean) / (norm.running_var + 1e-5).sqrt() * norm.weight + norm.bias


def _mapped(layer, x):
    """Linear map and normalisation, the two-map form written out."""
    if isinstance(layer.linear, RepLinear):
        rep = layer.linear
        x = _norm(rep.first_norm, x @ rep.first.weight.T)
        return _norm(layer.norm, _norm(rep.second_norm, x @ rep.second.weight.T))
    return _norm(layer.norm, x @ layer.linear.weight.T)


def _plain(attention, form, x):
    """The outcome for one segment, by the formula, with all pairs of rows."""
    n, inner = len(x), attention.inner
    fire, after = _neuron(form, 1.0), _neuron(form, 1.0 if form in ("ssa", "sdt3", "dssa") else 0.5)
    s = fire(x.expand(1 if form == "sdt3" else 4, n, C))
    if form == "dssa":
        return _mapped(inner.project, _dual(inner, s)).mean(0)
    spikes = {name: fire(_mapped(layer, s)).unflatten(-1, (HEADS, -1)) for name, layer in inner.layers.items()}
    q, k, v = spikes["query"], spikes["key"], spikes.get("value")
    if form in ("ssa", "sdt2", "sdt3"):
        pairs = torch.einsum("tihc,tjhc->thij", q, k)
        read = torch.einsum("thij,tjhc->tihc", pairs, v).flatten(2) / n
        y = after(_norm(inner.attention_norm, read))
        assert y.shape[-1] == (48 if form == "sdt3" else 12)
    elif form == "qk_token":
        y = (after(q.sum(-1, keepdim=True)) * k).flatten(2)
    else:
        rate = (k * v if form == "sdt1" else q).mean(1)  # (T, heads, d)
        relative = rate / (2 * rate.mean(-1, keepdim=True).clamp(min=0.01))
        y = (after(relative)[:, None] * (q if form == "sdt1" else k)).flatten(2)
    assert 0 < y.mean() < 1
    return _mapped(inner.project, y).mean(0)


def _dual(inner, s):
    n, n_groups = s.shape[1], min(4, s.shape[1])
    members = [[i for i in range(n) if i * n_groups // n == g] for g in range(n_groups)]
    pooled = torch.stack([s[:, rows].mean(1) for rows in members], dim=1)
    both = _mapped(inner.reduce, pooled).unflatten(-1, (HEADS, -1))
    sums = []
    for head in range(HEADS):
        y1, y2 = both[:, :, head, :D], both[:, :, head, D:]
        own = s[:, :, head * D : (head + 1) * D]
        fired = LIFNode(tau=2.0)(own @ y1.mT / (inner.input_rate[head] * D).sqrt())
        sums.append(fired @ y2 / (inner.map_rate[head] * n_groups).sqrt())
    return LIFNode(tau=2.0)(torch.cat(sums, dim=-1))


@pytest.mark.parametrize("form", FORMS)
def test_each_form_by_its_formula(form):
    attention, x = _attention(form), _x(7)
    torch.testing.assert_close(attention(x), _plain(attention, form, x))
    by_segment = [_plain(attention, form, x[i:j]) for i, j in itertools.pairwise([0, 9, 23])]
    torch.testing.assert_close(attention(x, torch.tensor([0, 9, 23])), torch.cat(by_segment))


@pytest.mark.parametrize("form", FORMS)
def test_segments_do_not_see_each_other(form):
    attention, x, segments = _attention(form), _x(7), torch.tensor(SEGMENTS)
    y = attention(x, segments)
    alone = torch.cat([attention(x[i:j]) for i, j in itertools.pairwise(SEGMENTS)])
    torch.testing.assert_close(y, alone)
    other = x.clone()
    other[10:] = _x(8)[10:]
    torch.testing.assert_close(attention(other, segments)[:10], y[:10])
    with_empty = torch.tensor([0, 0, 9, 10, 10, 23, 23])
    torch.testing.assert_close(attention(x, with_empty), y)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("block_size", [1, 5, 100])
def test_blocks_equal_the_whole(form, block_size):
    attention, x, segments = _attention(form), _x(7), torch.tensor(SEGMENTS)
    torch.testing.assert_close(attention.in_blocks(x, segments, block_size), attention(x, segments))
    spikes = (torch.stack([_x(seed) for seed in range(8)]) > 0).double().view(-1, 2, N, C)
    spikes = spikes[:1] if form == "sdt3" else spikes
    torch.testing.assert_close(attention.in_blocks(spikes, segments, block_size), attention(spikes, segments))
    first, second = x[:10], x[10:]
    state = attention.accumulate(first, 0, N) + attention.accumulate(second, 10, N)
    assert state.shape == attention.accumulate(x[:1], 0, N).shape
    found = torch.cat([attention.read(block, state, N) for block in (first, second)])
    torch.testing.assert_close(found, attention(x))


@pytest.mark.parametrize("form", FORMS)
def test_rows_may_come_in_any_order(form):
    """Groups of dual attention follow the order of rows, hence there within groups of it."""
    attention, x = _attention(form), _x(7)
    g = torch.Generator().manual_seed(1)
    if form == "dssa":
        place = torch.arange(N) * 4 // N
        order = torch.cat([(place == i).nonzero()[:, 0] for i in range(4)])
        order = torch.cat([part[torch.randperm(len(part), generator=g)] for part in order.split([6, 6, 6, 5])])
        assert torch.equal(place[order], place)
    else:
        order = torch.randperm(N, generator=g)
    assert not torch.equal(order, torch.arange(N))
    torch.testing.assert_close(attention(x[order]), attention(x)[order])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bits", [None, 4])
def test_gradients_reach_all_weights(form, bits):
    attention = _attention(form, bits=bits, training=True)
    x = _x(7).requires_grad_()
    (attention(x, torch.tensor(SEGMENTS)) * _x(9)).sum().backward()
    for name, parameter in attention.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    assert x.grad.isfinite().all()
    assert (x.grad.abs().sum(1) > 0).double().mean() > 0.9


@pytest.mark.parametrize("form", FORMS)
def test_many_rows_do_not_fill_the_neurons(form):
    attention, x = _attention(form), _x(7, 24)
    once = attention(x)
    often = attention(x.repeat_interleave(40, dim=0))  # the groups of dual attention stay what they are
    torch.testing.assert_close(often, once.repeat_interleave(40, dim=0))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("graded", [True, False])
def test_neurons_after_attention_fire_at_any_number_of_rows(form, graded):
    """As made, without any training."""
    settings = {"neuron": lambda v_threshold: Multispike()} if graded else {}
    rates = []
    for n in (100, 5000):
        torch.manual_seed(0)
        attention = SpikingRowAttention(C, HEADS, form, **settings)
        with firing_rates(attention) as found:
            attention(_x(1, n).float())
        rates.append(found["inner.attention_neuron"].rate)
    assert 0.02 < rates[0] < 0.98
    assert rates[1] == pytest.approx(rates[0], abs=0.15)


@pytest.mark.parametrize("form", FORMS)
def test_quantized_weights_fold(form):
    attention, x = _attention(form, bits=4), _x(7)
    for layer in attention.modules():
        if type(layer).__name__ == "QuantLinear":
            assert len(layer.used_weight[0].unique()) <= 16
    folded = fold_all(attention)
    kept = [type(part).__name__ for part in folded.modules()]
    assert "RepLinear" not in kept
    assert kept.count("BatchNorm1d") == (form in ("ssa", "sdt2", "sdt3"))  # after attention there is no map to take it
    if form != "sdt2":  # whose two maps are rounded once more
        torch.testing.assert_close(folded(x), attention(x))
    assert folded(x).shape == (N, C)


@pytest.mark.parametrize("form", FORMS)
def test_attention_weights_densely(form):
    attention, x, rows = _attention(form), _x(7), torch.tensor([0, 9, 12, 22, 3])
    inner, segments = attention.inner, torch.tensor(SEGMENTS)
    found = attention.attention_weights(x, rows, segments)
    assert found.shape == (5, N)
    s = _neuron(form, 1.0)(x.expand(attention.n_steps, N, C))
    dense = torch.zeros(N, N, dtype=x.dtype)
    for i, j in itertools.pairwise(SEGMENTS):
        own = slice(i, j)
        if form == "dssa":
            n_groups = min(4, j - i)
            place = torch.arange(j - i) * n_groups // (j - i)
            pooled = torch.stack([s[:, own][:, place == g].mean(1) for g in range(n_groups)], dim=1)
            y1 = _mapped(inner.reduce, pooled).unflatten(-1, (HEADS, -1))[..., :D]
            for head in range(HEADS):
                current = s[:, own, head * D : (head + 1) * D] @ y1[:, :, head].mT
                fired = LIFNode(tau=2.0)(current / (inner.input_rate[head] * D).sqrt()).sum(0)
                dense[own, own] += (fired / place.bincount())[:, place]
            continue
        fire = _neuron(form, 1.0)
        spikes = {name: fire(_mapped(layer, s)) for name, layer in inner.layers.items()}
        q, k, v = spikes["query"][:, own], spikes["key"][:, own], spikes.get("value")
        if form == "qk_token":
            gate = LIFNode(tau=2.0, v_threshold=0.5)(q.unflatten(-1, (HEADS, -1)).sum(-1))
            dense[own, own] = torch.diag(gate.sum((0, 2)))
        else:
            left, right = (k, q) if form == "qk_channel" else (q, k)
            right = right * v[:, own] if form == "sdt1" else right
            for t in range(len(s)):
                dense[own, own] += left[t] @ right[t].T
    total = dense.sum(1, keepdim=True)
    torch.testing.assert_close(found, torch.where(total > 0, dense / total, 0.0)[rows])
    assert (found[1] > 0).sum() <= 1  # the segment of one row
    spikes = s.unsqueeze(1)
    torch.testing.assert_close(attention.attention_weights(spikes, rows, segments)[0], found)


@pytest.mark.parametrize("form", FORMS)
def test_rates_are_those_of_the_spikes(form):
    attention, x = _attention(form), _x(7)
    with firing_rates(attention) as rates:
        attention(x)
    names = {"spike", "inner.attention_neuron"}
    if form == "dssa":
        names.add("inner.map_neuron")
    else:
        names |= {f"inner.layers.{name}.neuron" for name in attention.inner.layers}
    assert set(rates) == names
    spikes = _neuron(form, 1.0)(x.expand(attention.n_steps, N, C))
    assert rates["spike"].rate == pytest.approx(spikes.mean().item())
    assert all(rate.n_steps == 4 for rate in rates.values())
    assert all(0 < rate.rate < 1 for rate in rates.values())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("residual", ["sew", "membrane"])
def test_block(form, residual):
    n_steps = 1 if form == "sdt3" else 3
    with torch.random.fork_rng():
        torch.manual_seed(0)
        block = SpikingRowBlock(C, HEADS, form, residual=residual, bits=4).double()
    segments = torch.tensor(SEGMENTS)
    x = torch.stack([_x(seed) for seed in range(2 * n_steps)]).view(n_steps, 2, N, C)
    if residual == "sew":
        x = (x > 0).double()
    for _ in range(3):
        block(x, segments)
    block.eval()
    y = block(x, segments)
    if residual == "sew":
        attended = x + block.attention(x, segments)
        torch.testing.assert_close(y, attended + block.mlp(attended))
        if form != "sdt3":
            assert set(y.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}
    else:
        attended = x + block.attention(block.spikes[0](x), segments)
        torch.testing.assert_close(y, attended + block.mlp(block.spikes[1](attended)))
        assert y.unique().numel() > 100
    torch.testing.assert_close(block.in_blocks(x, segments, 7), y)
    alone = torch.cat([block(x[:, :, i:j]) for i, j in itertools.pairwise(SEGMENTS)], dim=2)
    torch.testing.assert_close(y, alone)
    (block.train()(x, segments) ** 2).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in block.parameters())


@pytest.mark.parametrize("form", ["ssa", "sdt1", "sdt2", "qk_channel"])
def test_steps_read_together_in_blocks(form):
    attention, x, segments = _attention(form, joint_steps=2), _x(7), torch.tensor(SEGMENTS)
    y = attention(x, segments)
    assert not torch.allclose(y, _attention(form)(x, segments))
    torch.testing.assert_close(attention.in_blocks(x, segments, 5), y)
    torch.testing.assert_close(torch.cat([attention(x[i:j]) for i, j in itertools.pairwise(SEGMENTS)]), y)


def test_wrong_arguments():
    for arguments, message in (
        ({"form": "softmax"}, "`form` must be one of .*'dssa'.*, found 'softmax'"),
        ({"form": "ssa", "n_groups": 4}, "`n_groups` is for `form='dssa'`, found `form='ssa'`"),
        ({"n_steps": 0}, "`n_steps` must be at least 1, found 0"),
        ({"form": "sdt3", "n_steps": 4}, "`Multispike` has no state"),
        ({"joint_steps": 3}, "`joint_steps` must divide the 4 time steps.*found 3 and 'ssa'"),
        ({"form": "dssa", "joint_steps": 2}, "be 1 with `form='qk_token'` and 'dssa', found 2 and 'dssa'"),
        ({"n_heads": 5}, "`n_features` must be a multiple of `n_heads`, found 12 and 5"),
    ):
        with pytest.raises(ValueError, match=message):
            SpikingRowAttention(**{"n_features": 12, "n_heads": 3, **arguments})
    with pytest.raises(ValueError, match="`residual` must be one of"):
        SpikingRowBlock(C, HEADS, residual="none")
    attention = _attention("dssa")
    with pytest.raises(ValueError, match="`n_rows`, the rows of the segment, is needed"):
        attention.accumulate(_x())
    with pytest.raises(RuntimeError, match="Blocks of rows are for evaluation"):
        attention.train().in_blocks(_x())
    with pytest.raises(ValueError, match="`segments` must rise from 0 to the number of rows, 23"):
        attention.eval().in_blocks(_x(), torch.tensor([0, 5]))
