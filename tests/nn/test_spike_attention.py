"""Attention against a dense n x n reference, and what it must not depend on."""

from __future__ import annotations

import pytest
import torch

from stomics_tools.nn import Multispike, SpikeAttention, fold_all

D = 16
SEGMENTS = torch.tensor([0, 13, 13, 14, 50])


def _x(n, seed=0, d=D):
    return torch.rand(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 1.4 - 0.2


def _attention(**settings):
    torch.manual_seed(0)
    attention = SpikeAttention(D, **{"n_heads": 4, **settings}).double()
    for seed in range(3):
        attention(_x(64, seed))
    return attention.eval()


def _window_of(place, length, size):
    """Windows of one segment by numbers of rows alone: as few as possible, sizes that differ by one at most."""
    if size is None:
        return 0
    n_windows = -(-length // size)
    ends, end = [], 0
    for window in range(n_windows):
        end = -(-(window + 1) * length // n_windows)
        ends.append(end)
    return next(window for window, end in enumerate(ends) if place < end)


def _dense_weights(attention, x, segments=None):
    """Weights of all rows for all rows, one matrix a head."""
    bounds = [0, len(x)] if segments is None else segments.tolist()
    rows = [
        (segment, row - start, stop - start)
        for segment, (start, stop) in enumerate(zip(bounds[:-1], bounds[1:], strict=True))
        for row in range(start, stop)
    ]
    spikes = attention.spike(x)
    q = attention.query_spike(attention.query(spikes))
    k = attention.key_spike(attention.key(spikes))
    width, parts = D // attention.n_heads, []
    for head in range(attention.n_heads):
        size = attention.windows[head * len(attention.windows) // attention.n_heads]
        place = [(segment, _window_of(i, length, size)) for segment, i, length in rows]
        mask = torch.tensor([[a == b for b in place] for a in place], dtype=x.dtype)
        columns = slice(head * width, (head + 1) * width)
        weight = (q[:, columns] @ k[:, columns].T + 0.01) * mask
        parts.append(weight / weight.sum(1, keepdim=True))
    return parts


def _dense(attention, x, segments=None):
    v = attention.value_spike(attention.value(attention.spike(x)))
    weights = _dense_weights(attention, x, segments)
    parts = [weight @ part for weight, part in zip(weights, v.split(D // attention.n_heads, dim=1), strict=True)]
    return attention.project(torch.cat(parts, dim=1))


WINDOWS = [(None,), (7,), (1,), (None, 5), (100, 6), (None, 20, 9, 2)]


@pytest.mark.parametrize("windows", WINDOWS, ids=str)
@pytest.mark.parametrize("segments", [None, SEGMENTS, torch.tensor([0, 0, 25, 50, 50])], ids=["one", "uneven", "empty"])
def test_equals_the_dense_reference(windows, segments):
    attention, x = _attention(windows=windows), _x(50, 5)
    torch.testing.assert_close(attention(x, segments), _dense(attention, x, segments))


@pytest.mark.parametrize("windows", WINDOWS, ids=str)
@pytest.mark.parametrize("segments", [None, SEGMENTS])
def test_weights_of_chosen_rows_equal_the_dense_reference(windows, segments):
    attention, x, rows = _attention(windows=windows), _x(50, 5), torch.tensor([0, 13, 49, 20, 20])
    expected = torch.stack(_dense_weights(attention, x, segments)).mean(0)[rows]
    attention.train()
    found = attention.attention_weights(x, rows, segments)
    assert all(part.training for part in attention.modules())
    assert found.shape == (5, 50)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum(1), torch.ones(5, dtype=x.dtype))


@pytest.mark.parametrize("settings", [{"rep": False}, {"bits": 4}, {"bits": "learned", "rep": False}, {"n_levels": 3}])
def test_other_layers_equal_the_dense_reference(settings):
    attention, x = _attention(windows=(None, 6), **settings), _x(40, 5)
    torch.testing.assert_close(attention(x, torch.tensor([0, 15, 40])), _dense(attention, x, torch.tensor([0, 15, 40])))


def test_gradient_of_the_input_equals_the_dense_reference():
    attention, x = _attention(windows=(None, 6)), _x(50, 5).requires_grad_()
    (ours,) = torch.autograd.grad(attention(x, SEGMENTS).pow(3).sum(), x)
    (dense,) = torch.autograd.grad(_dense(attention, x, SEGMENTS).pow(3).sum(), x)
    assert dense.any()
    torch.testing.assert_close(ours, dense)


def test_attention_matters():
    attention, x = _attention(), _x(50, 5)
    other = x.clone()
    other[10:] = _x(40, 6)
    assert not torch.allclose(attention(x)[:10], attention(other)[:10])


def test_windows_are_as_equal_as_they_can_be():
    sizes = [[_window_of(i, 29, 10) for i in range(29)].count(w) for w in range(3)]
    assert sorted(sizes) == [9, 10, 10]
    attention, x = _attention(windows=(10,)), _x(29, 5)
    # Nothing moves outside of the window of the row that moves.
    other = x.clone()
    other[12] = 1 - other[12]
    moved = (attention(x) != attention(other)).any(1).nonzero().flatten()
    assert set(range(10, 20)) >= set(moved.tolist())
    assert len(moved) > 1


def test_order_of_rows_does_not_count():
    attention, x = _attention(), _x(60, 5)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(attention(x[order]), attention(x)[order])


def test_scale_does_not_grow_with_the_number_of_rows():
    attention, x = _attention(), _x(60, 5)
    torch.testing.assert_close(attention(x.repeat(2, 1)), attention(x).repeat(2, 1))


@pytest.mark.parametrize("windows", [(None,), (None, 5)])
def test_segments_do_not_see_each_other(windows):
    attention, x = _attention(windows=windows), _x(50, 5)
    alone = [attention(part) for part in x.split(SEGMENTS.diff().tolist()) if len(part)]
    torch.testing.assert_close(attention(x, SEGMENTS), torch.cat(alone))
    spoilt = x.clone()
    spoilt[14:] = float("nan")
    kept = attention(spoilt, SEGMENTS)[:14]
    torch.testing.assert_close(kept, attention(x, SEGMENTS)[:14])


def test_blocks_equal_the_whole():
    attention, x = _attention(bits=4), _x(70, 5)
    blocks = x.split([32, 1, 37])
    state = sum(attention.accumulate(block) for block in blocks)
    width = D // 4 + 1
    assert state.shape == (4, width, width)
    assert (state[:, -1, -1] == 70).all()
    whole = torch.cat([attention.read(block, state) for block in blocks])
    torch.testing.assert_close(whole, attention(x))
    with pytest.raises(ValueError, match=r"`windows=\(None,\)`, found \(None, 5\)"):
        _attention(windows=(None, 5)).accumulate(x)


@pytest.mark.parametrize("rep", [True, False])
@pytest.mark.parametrize("bits", [None, 4, "learned"])
def test_gradient_reaches_every_parameter(rep, bits):
    torch.manual_seed(0)
    attention = SpikeAttention(D, 4, bits=bits, rep=rep, windows=(None, 10)).double()
    x = _x(60, 5).requires_grad_()
    (attention(x, torch.tensor([0, 20, 60])) ** 3).sum().backward()
    without = [name for name, p in attention.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without
    assert x.grad.any()


def test_silent_queries_read_the_plain_mean_with_bounded_gradient():
    attention, x = _attention(), _x(40, 5)
    for norm in (attention.query.second_norm, attention.key.second_norm):
        norm.weight.data.zero_()
    attention.query.second_norm.bias.data.fill_(0.05)  # below the first spike, where the gradient passes
    attention.key.second_norm.bias.data.fill_(0.5)
    bias = attention.query.second_norm.bias
    values = attention.value_spike(attention.value(attention.spike(x)))
    out = attention(x)
    torch.testing.assert_close(out, attention.project(values.mean(0)[None]).expand_as(out))
    (grad,) = torch.autograd.grad(out.square().mean(), bias)
    assert grad.abs().max() < 1e3


def test_all_silent_stays_finite():
    attention = _attention()
    for layer in (attention.query, attention.key, attention.value):
        torch.nn.init.constant_(layer.second_norm.bias, -50.0)
    assert attention(_x(20)).isfinite().all()


def test_folded_attention_equals_evaluation():
    attention, x = _attention(windows=(None, 6)), _x(40, 5)
    folded = fold_all(attention)
    torch.testing.assert_close(folded(x), attention(x))
    assert sum(isinstance(m, Multispike) for m in folded.modules()) == 4


def test_long_input_stays_small():
    torch.manual_seed(0)
    attention = SpikeAttention(16, 4, windows=(None, 500))
    x = torch.rand(40_000, 16)  # n x n would take 6 GB
    attention(x, torch.tensor([0, 15_000, 40_000])).sum().backward()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_features": 10, "n_heads": 4}, "`n_features` must be a multiple of `n_heads`, found 10 and 4"),
        (
            {"n_features": 12, "n_heads": 4, "windows": (None, 2, 3)},
            "multiple of the number of `windows`, found 4 and 3",
        ),
        ({"n_features": 12, "n_heads": 4, "windows": ()}, "multiple of the number of `windows`, found 4 and 0"),
        ({"n_features": 12, "n_heads": 4, "windows": (0,)}, "`windows` must be None or at least 1 row"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        SpikeAttention(**settings)


@pytest.mark.parametrize("segments", [[0], [0, 4], [1, 5], [0, 4, 3, 5]])
def test_wrong_segments(segments):
    with pytest.raises(ValueError, match="`segments` must rise from 0 to the number of rows, 5"):
        SpikeAttention(8, 2).eval()(torch.zeros(5, 8), torch.tensor(segments))
