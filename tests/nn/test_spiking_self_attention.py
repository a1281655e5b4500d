"""Attention between spikes against formulas written out, row by row and in both orders."""

from __future__ import annotations

import itertools

import pytest
import torch

from stomics_tools.nn import (
    LIFNode,
    Multispike,
    RepLinear,
    SpikingLayer,
    SpikingSelfAttention,
    fold_all,
    spiking_attention,
)

FORMS = ("ssa", "mask", "token", "channel")
T, B, N, C, HEADS = 3, 2, 11, 12, 3


def _x(seed=0, n=N):
    return torch.randn(T, B, n, C, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


def _attention(form="ssa", **settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        attention = SpikingSelfAttention(C, HEADS, form, **settings).double()
        for layer in attention.layers.values():  # so that a good part of the neurons fires
            layer.norm.weight.data.fill_(3.0)
            layer.norm.bias.data.fill_(0.5)
        for seed in range(5):
            x = _x(seed)
            attention(x if attention.joint_steps == 1 else torch.cat([x, x[:1]]))
        if attention.attention_norm is not None:
            attention.attention_norm.running_var.fill_(0.05)
    return attention.eval()


@pytest.mark.parametrize("form", FORMS)
def test_each_form_by_loops(form):
    attention, x = _attention(form, scale=0.3), _x()
    spikes = {name: layer(x) for name, layer in attention.layers.items()}
    assert all(set(s.unique().tolist()) == {0.0, 1.0} for s in spikes.values())
    width = C // HEADS
    summed = torch.zeros(T, B, N, C, dtype=x.dtype)
    for b in range(B):
        for head in range(HEADS):
            own = slice(head * width, (head + 1) * width)
            q, k = (spikes[name][:, b, :, own] for name in ("query", "key"))
            for t in range(T):
                if form == "ssa":
                    v = spikes["value"][t, b, :, own]
                    for i in range(N):
                        summed[t, b, i, own] = 0.3 * sum((q[t, i] @ k[t, j]) * v[j] for j in range(N))
                elif form == "mask":
                    v = spikes["value"][t, b, :, own]
                    summed[t, b, :, own] = sum(k[t, j] * v[j] for j in range(N))
                elif form == "token":
                    summed[t, b, :, own] = q[t].sum(1)[:, None]
                else:
                    summed[t, b, :, own] = q[t].sum(0)[None]
    fired = LIFNode(tau=2.0, v_threshold=1.0)(summed)
    y = {"ssa": fired, "mask": fired * spikes["query"]}.get(form, fired * spikes["key"])
    assert 0 < y.mean() < 1
    torch.testing.assert_close(attention(x), attention.project(y))
    assert set(attention(x).unique().tolist()) <= {0.0, 1.0}


def _busy(attention):
    """Most neurons fire, so that sums over eleven rows reach the threshold."""
    for layer in (*attention.layers.values(), attention.project):
        layer.norm.bias.data.fill_(2.0)
    return attention


def _fired(current, tau=2.0, threshold=1.0):
    """``LIFNode()`` of SpikingJelly by its definition: number by number, from rest, reset to 0."""
    spikes = torch.zeros_like(current)
    for place in itertools.product(*map(range, current.shape[1:])):
        membrane = 0.0
        for t in range(len(current)):
            membrane += (current[(t, *place)].item() - membrane) / tau
            if membrane >= threshold:
                spikes[(t, *place)], membrane = 1.0, 0.0
    return spikes


def _tutorial(attention, x, fired, threshold=1.0):
    """``SSA`` of SpikingJelly's tutorial: scale 1/8, eight heads by default, ``LIFNode()`` everywhere."""

    def layer(part, y):
        z = y @ part.linear.weight.T
        return fired(
            (z - part.norm.running_mean) / (part.norm.running_var + 1e-5).sqrt() * part.norm.weight + part.norm.bias
        )

    q, k, v = (layer(attention.layers[name], x) for name in ("query", "key", "value"))
    d = C // HEADS
    sums = torch.zeros_like(x)
    for t, b, i, head in itertools.product(range(T), range(B), range(N), range(HEADS)):
        own = slice(head * d, (head + 1) * d)
        for j in range(N):
            sums[t, b, i, own] += 0.125 * (q[t, b, i, own] @ k[t, b, j, own]) * v[t, b, j, own]
    return layer(attention.project, fired(sums) if threshold == 1 else _fired(sums, threshold=threshold)), sums


@pytest.mark.parametrize("threshold", [1.0, 0.5])
def test_the_defaults_are_the_published_form_number_by_number(threshold):
    attention = _busy(_attention() if threshold == 1 else _attention(attention_threshold=threshold))
    x = (_x() > 0).double()
    expected, sums = _tutorial(attention, x, _fired, threshold)
    assert 0.1 < (sums >= threshold).double().mean() < 0.9
    assert 0 < expected.mean() < 1
    assert torch.equal(attention(x), expected)


def test_equal_to_spikingjelly():
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron", reason="SpikingJelly is not installed")
    from spikingjelly.activation_based import layer

    def fired(current):
        return neuron.LIFNode(step_mode="m").double()(current)

    attention, x = _busy(_attention()), (_x() > 0).double()
    assert torch.equal(attention(x), _tutorial(attention, x, fired)[0])
    ours = _busy(_attention(attention_threshold=0.5))
    theirs = layer.SpikingSelfAttention(C, HEADS).double().eval()
    parts = [ours.layers[name] for name in ("query", "key", "value")]
    convolution, norm = theirs.qkv_conv_bn
    pairs = [(convolution, norm, parts), (*theirs.proj_conv_bn, [ours.project])]
    for convolution, norm, group in pairs:
        convolution.weight.data = torch.cat([part.linear.weight for part in group]).unsqueeze(-1)
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(norm, name).data = torch.cat([getattr(part.norm, name) for part in group])
    assert torch.equal(ours(x), theirs(x.mT).mT)


def test_a_layer_is_a_linear_map_a_norm_and_neurons():
    layer = SpikingLayer(C, 5).double()
    x = _x()
    found = layer(x)
    z = torch.einsum("tbni,oi->tbno", x, layer.linear.weight)
    mean, sd = z.mean((0, 1, 2)), z.var((0, 1, 2), correction=0).add(1e-5).sqrt()
    torch.testing.assert_close(found, LIFNode(tau=2.0)((z - mean) / sd))
    plain = SpikingLayer(C, 5, None).double()
    assert plain(x).unique().numel() > 100


@pytest.mark.parametrize("n", [3, 40])
def test_both_orders_give_the_same_bits(n):
    g = torch.Generator().manual_seed(0)
    q, k, v = ((torch.rand(2, 4, n, 8, generator=g) < 0.4).float() for _ in range(3))
    dense = torch.einsum("abnd,abmd,abme->abne", q, k, v)
    for order in ("auto", "linear", "quadratic"):
        assert torch.equal(spiking_attention(q, k, v, order=order, n_rows=7), dense)


@pytest.mark.parametrize("form", FORMS)
def test_the_order_of_rows_and_other_sets_do_not_matter(form):
    attention, x = _attention(form), _x()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(attention(x[:, :, order]), attention(x)[:, :, order])
    torch.testing.assert_close(attention(x[:, :1]), attention(x)[:, :1])


@pytest.mark.parametrize("form", FORMS)
def test_gradients_reach_all_weights(form):
    attention = _attention(form, scale=0.5).train()
    (attention(_x()) * _x(9)).sum().backward()
    for name, parameter in attention.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_other_neurons_and_quantized_weights():
    attention = _attention(neuron=lambda v_threshold: Multispike(), output_spikes=False, bits=4)
    y = attention(_x())
    assert y.shape == (T, B, N, C)
    assert y.unique().numel() > 100
    # No membrane: steps do not meet. Products of fewer rows may be summed in another order.
    torch.testing.assert_close(attention(_x()[:1]), y[:1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [0.3, None])
@pytest.mark.parametrize("value_ratio", [1, 4])
def test_wide_values_and_normed_sums_densely(scale, value_ratio):
    attention, x = _attention(scale=scale, value_ratio=value_ratio), _x()
    q, k, v = (attention.layers[name](x).unflatten(-1, (HEADS, -1)) for name in ("query", "key", "value"))
    maps = torch.einsum("tbihc,tbjhc->tbhij", q, k)
    sums = torch.einsum("tbhij,tbjhc->tbihc", maps, v).flatten(3)
    assert sums.shape == (T, B, N, value_ratio * C)
    if scale is None:
        norm = attention.attention_norm
        sums = (sums / N - norm.running_mean) / (norm.running_var + 1e-5).sqrt()
    else:
        assert attention.attention_norm is None
        sums = scale * sums
    fired = LIFNode(tau=2.0, v_threshold=1.0)(sums)
    assert 0.01 < fired.mean() < 0.99
    torch.testing.assert_close(attention(x), attention.project(fired))


def test_the_third_spike_driven_transformer():
    """Its efficient attention, written out: whole numbers over 4, values four times as wide, the scale 2 / sqrt(d)."""
    d = C // HEADS
    attention = _attention(
        neuron=lambda v_threshold: Multispike(), value_ratio=4, scale=2 / d**0.5, output_spikes=False
    )
    x = torch.randint(0, 5, (1, B, N, C), generator=torch.Generator().manual_seed(0)).double() / 4

    def spikes(y):
        return (y.clamp(0, 1) * 4 + 0.5).floor() / 4

    def layer(part, y):
        z = (y @ part.linear.weight.T - part.norm.running_mean) / (part.norm.running_var + 1e-5).sqrt()
        return z * part.norm.weight + part.norm.bias

    expected = torch.zeros(B, N, 4 * C, dtype=x.dtype)
    q, k, v = (spikes(layer(attention.layers[name], x[0])) for name in ("query", "key", "value"))
    for head in range(HEADS):
        own, wide = slice(head * d, (head + 1) * d), slice(head * 4 * d, (head + 1) * 4 * d)
        expected[..., wide] = (q[..., own] @ k[..., own].mT) @ v[..., wide] * (d**-0.5 * 2)
    torch.testing.assert_close(attention(x)[0], layer(attention.project, spikes(expected)))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scale", [0.3, None])
def test_sets_that_lie_one_after_the_other(form, scale):
    """Of different lengths; in evaluation each is what it is alone."""
    attention, x = _attention(form, scale=scale, output_spikes=False), _x()
    limits = torch.tensor([0, 4, 5, N])
    alone = torch.cat([attention(x[:, :, i:j]) for i, j in zip(limits[:-1], limits[1:], strict=True)], dim=2)
    torch.testing.assert_close(attention(x, limits), alone)
    assert torch.allclose(attention(x), alone) == (form == "token")  # which no other row changes


@pytest.mark.parametrize("scale", [0.3, None])
@pytest.mark.parametrize("form", FORMS)
def test_blocks_of_rows_equal_the_whole(form, scale):
    value_ratio = 2 if form == "ssa" else 1
    attention, x = _attention(form, scale=scale, value_ratio=value_ratio, output_spikes=False), _x()
    blocks = x.split(4, dim=2)
    state = sum(attention.accumulate(block) for block in blocks)
    d = C // HEADS
    assert state.shape == (T, B, HEADS, *{"ssa": (d, 2 * d), "token": (1, 1)}.get(form, (1, d)))
    found = torch.cat([attention.read(block, state, N) for block in blocks], dim=2)
    torch.testing.assert_close(found, attention(x))


@pytest.mark.parametrize("form", ["mask", "channel"])
def test_sums_over_rows_in_units_of_their_mean(form):
    """Channel by channel; ten copies of the rows change nothing, where the plain sum would fill every neuron."""
    attention, x = _attention(form, scale=None, output_spikes=False), _x()
    spikes = {name: layer(x) for name, layer in attention.layers.items()}
    read = spikes["key"] * spikes["value"] if form == "mask" else spikes["query"]
    d = C // HEADS
    current = torch.zeros(T, B, 1, C, dtype=x.dtype)
    for t, b, head in itertools.product(range(T), range(B), range(HEADS)):
        rates = [sum(read[t, b, i, head * d + c] for i in range(N)) / N for c in range(d)]
        for c in range(d):
            current[t, b, 0, head * d + c] = rates[c] / 2 / max(sum(rates) / d, 0.01)
    fired = LIFNode(tau=2.0, v_threshold=1.0)(current)
    expected = attention.project(fired * spikes["query" if form == "mask" else "key"])
    torch.testing.assert_close(attention(x), expected)
    torch.testing.assert_close(attention(x.repeat(1, 1, 10, 1))[:, :, :N], expected)


@pytest.mark.parametrize("form", ["ssa", "mask", "channel"])
@pytest.mark.parametrize("scale", [0.5, None])
def test_steps_that_are_read_together(form, scale):
    """Rows of two steps as one set of twice as many, pair by pair; the steps of another pair do not count."""
    threshold = 0.5 if scale is None else 1.0
    attention = _attention(form, scale=scale, joint_steps=2, attention_threshold=threshold, output_spikes=False)
    x = torch.cat([_x(), _x(1)[:1]])
    spikes = {name: layer(x).unflatten(-1, (HEADS, -1)) for name, layer in attention.layers.items()}
    y = torch.zeros(4, B, N, HEADS, C // HEADS, dtype=x.dtype)
    dense = torch.zeros(B, N, N, dtype=x.dtype)
    for pair, b, head in itertools.product(((0, 1), (2, 3)), range(B), range(HEADS)):
        own = {name: torch.cat([s[t, b, :, head] for t in pair]) for name, s in spikes.items()}  # (2 N, d)
        q, k, v = own["query"], own["key"], own.get("value")
        right = {"ssa": k, "channel": q}.get(form, k if v is None else k * v)
        pairs = (k if form == "channel" else q) @ right.T
        dense[b] += sum(pairs[i * N : (i + 1) * N, j * N : (j + 1) * N] for i in range(2) for j in range(2))
        if form == "ssa":
            sums = pairs @ v * (scale or 1 / (2 * N))
        else:
            rates = right.mean(0) if scale is None else right.sum(0)
            sums = (rates / (2 * rates.mean().clamp(min=0.01)) if scale is None else rates).expand(2 * N, -1)
        for i, t in enumerate(pair):
            y[t, b, :, head] = sums[i * N : (i + 1) * N]
    y = y.flatten(3)
    if form == "ssa" and scale is None:
        norm = attention.attention_norm
        y = (y - norm.running_mean) / (norm.running_var + 1e-5).sqrt()
    fired = LIFNode(tau=2.0, v_threshold=threshold)(y)
    assert 0 < fired.mean() < 1
    gate = {"mask": "query", "channel": "key"}.get(form)
    fired = fired * spikes[gate].flatten(3) if gate else fired
    torch.testing.assert_close(attention(x), attention.project(fired))
    state = attention.accumulate(x[:, :, :4]) + attention.accumulate(x[:, :, 4:])
    torch.testing.assert_close(attention.read(x[:, :, 4:], state, N), attention(x)[:, :, 4:])
    total = dense.sum(-1, keepdim=True)
    weights = attention.attention_weights(x, torch.arange(N))
    torch.testing.assert_close(weights, torch.where(total > 0, dense / total, 0.0))


def test_wrong_joint_steps():
    with pytest.raises(ValueError, match="`joint_steps` must be at least 1, and 1 with `form='token'`, found 2"):
        SpikingSelfAttention(12, 3, "token", joint_steps=2)
    with pytest.raises(ValueError, match="`joint_steps`: 3 time steps are no multiple of 2"):
        SpikingSelfAttention(12, 3, joint_steps=2)(torch.zeros(3, 1, 5, 12))


@pytest.mark.parametrize("form", FORMS)
def test_attention_weights_densely(form):
    attention, x = _attention(form).train(), _x()
    limits, rows = [0, 4, 5, N], torch.tensor([2, 4, 10, 5])
    found = attention.attention_weights(x, rows, torch.tensor(limits))
    assert attention.training
    assert attention.layers["query"].training
    attention.eval()
    spikes = {name: layer(x).unflatten(-1, (HEADS, -1)) for name, layer in attention.layers.items()}
    q, k = spikes["query"], spikes["key"]
    if form == "token":
        dense = torch.zeros(B, N, N, dtype=x.dtype)
        gate = attention.attention_neuron(q.sum(-1)).sum((0, 3))
        dense[:, range(N), range(N)] = gate
    else:
        pairs = {"ssa": (q, k), "mask": (q, k * spikes.get("value", k)), "channel": (k, q)}
        dense = torch.einsum("tbihc,tbjhc->bij", *pairs[form])
    for first, last in itertools.pairwise(limits):
        dense[:, first:last, :first] = 0
        dense[:, first:last, last:] = 0
    total = dense.sum(-1, keepdim=True)
    expected = torch.where(total > 0, dense / total, 0.0)[:, rows]
    assert found.shape == (B, 4, N)
    torch.testing.assert_close(found, expected)
    assert (found > 0).any()


def test_reparameterised_maps_fold():
    attention, x = _attention(rep=True, attention_threshold=0.5, output_spikes=False), _x()
    assert all(isinstance(layer.linear, RepLinear) for layer in attention.layers.values())
    folded = fold_all(attention)
    assert not any(isinstance(part, RepLinear | torch.nn.BatchNorm1d) for part in folded.modules())
    torch.testing.assert_close(folded(x), attention(x))


def test_segments_must_cover_the_rows():
    with pytest.raises(ValueError, match="`segments` must rise from 0 to the number of rows, 11, found"):
        _attention()(_x(), torch.tensor([0, 5]))
    with pytest.raises(ValueError, match="`attention_threshold` must be above 0, found 0"):
        SpikingSelfAttention(12, 3, attention_threshold=0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((12, 5), "`n_features` must be a multiple of `n_heads`, found 12 and 5"),
        ((12, 3, "dual"), "`form` must be one of .*, found 'dual'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SpikingSelfAttention(*arguments)


@pytest.mark.parametrize(("form", "value_ratio"), [("ssa", 0), ("mask", 2), ("token", 4)])
def test_bad_width_of_values(form, value_ratio):
    with pytest.raises(ValueError, match=f"`value_ratio` must be at least 1, .* found {value_ratio}"):
        SpikingSelfAttention(12, 3, form, value_ratio=value_ratio)
