"""Attention between spikes against formulas written out, row by row and in both orders."""

from __future__ import annotations

import pytest
import torch

from stomics_tools.nn import LIFNode, Multispike, SpikingLayer, SpikingSelfAttention, spiking_attention

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
            attention(_x(seed))
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
    fired = LIFNode(tau=2.0, v_threshold=0.5)(summed)
    y = {"ssa": fired, "mask": fired * spikes["query"]}.get(form, fired * spikes["key"])
    assert 0 < y.mean() < 1
    torch.testing.assert_close(attention(x), attention.project(y))
    assert set(attention(x).unique().tolist()) <= {0.0, 1.0}


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
    attention = _attention(form).train()
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
    fired = LIFNode(tau=2.0, v_threshold=0.5)(sums)
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
def test_blocks_of_rows_equal_the_whole(scale):
    attention, x = _attention(scale=scale, value_ratio=2, output_spikes=False), _x()
    blocks = x.split(4, dim=2)
    state = sum(attention.accumulate(block) for block in blocks)
    assert state.shape == (T, B, HEADS, C // HEADS, 2 * C // HEADS)
    found = torch.cat([attention.read(block, state, N) for block in blocks], dim=2)
    torch.testing.assert_close(found, attention(x))


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
