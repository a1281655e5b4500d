"""Dual spike attention against loops over rows, groups and heads."""

from __future__ import annotations

import pytest
import torch

from stomics_tools.nn import DualSpikeAttention, LIFNode, consecutive_groups, group_mean

T, B, N, C, HEADS = 3, 2, 11, 12, 3
GROUPS = torch.tensor([2, 0, 1, 1, 2, 3, 0, 2, 3, 2, 0])


def _x(seed=0, rate=0.4):
    return (torch.rand(T, B, N, C, generator=torch.Generator().manual_seed(seed)) < rate).double()


def _attention(**settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        attention = DualSpikeAttention(C, HEADS, **{"output_spikes": False, **settings}).double()
    attention.reduce.norm.weight.data.fill_(3.0)
    attention.reduce.norm.bias.data.fill_(0.5)
    for seed in range(5):
        attention(_x(seed), GROUPS)
    attention.reduce.norm.running_var.fill_(0.05)
    return attention.eval()


def test_by_loops():
    attention, x = _attention(), _x(9)
    d = C // HEADS
    pooled = torch.stack([x[:, :, GROUPS == g].mean(2) for g in range(4)], dim=2)
    norm = attention.reduce.norm
    y = (pooled @ attention.reduce.linear.weight.T - norm.running_mean) / (norm.running_var + 1e-5).sqrt()
    y = (y * 3.0 + 0.5).view(T, B, 4, HEADS, 2 * d)
    maps, sums = torch.zeros(T, B, HEADS, N, 4, dtype=x.dtype), torch.zeros(T, B, N, C, dtype=x.dtype)
    for head in range(HEADS):
        r = attention.input_rate[head]
        for i in range(N):
            for g in range(4):
                of_row = x[:, :, i, head * d : (head + 1) * d]
                maps[:, :, head, i, g] = (of_row * y[:, :, g, head, :d]).sum(-1) / (r * d) ** 0.5
    maps = LIFNode(tau=2.0)(maps)
    assert 0.1 < maps.mean() < 0.9
    for head in range(HEADS):
        scale = (attention.map_rate[head] * 4) ** -0.5
        for g in range(4):
            weight = maps[:, :, head, :, g, None]
            sums[..., head * d : (head + 1) * d] += scale * weight * y[:, :, g, None, head, d:]
    fired = LIFNode(tau=2.0)(sums)
    assert 0.05 < fired.mean() < 0.95
    torch.testing.assert_close(attention(x, GROUPS), attention.project(fired))


def test_rates_are_those_of_the_spikes():
    """The first call takes its own, all others move them by a thousandth."""
    attention, seen = DualSpikeAttention(C, HEADS).double(), []
    attention.reduce.norm.weight.data.fill_(3.0)
    attention.map_neuron.register_forward_hook(lambda _, __, spikes: seen.append(spikes.mean((0, 1, 3, 4))))
    attention(_x(0, 0.4), GROUPS)
    of_heads = [_x(seed, rate).unflatten(-1, (HEADS, -1)).mean((0, 1, 2, 4)) for seed, rate in ((0, 0.4), (1, 0.8))]
    torch.testing.assert_close(attention.input_rate, of_heads[0])
    torch.testing.assert_close(attention.map_rate, seen[0])
    attention(_x(1, 0.8), GROUPS)
    torch.testing.assert_close(attention.input_rate, 0.999 * of_heads[0] + 0.001 * of_heads[1])
    torch.testing.assert_close(attention.map_rate, 0.999 * seen[0] + 0.001 * seen[1])
    before = attention.input_rate.clone()
    attention.eval()(_x(2, 0.1), GROUPS)
    assert torch.equal(attention.input_rate, before)


def test_sums_have_the_variance_one():
    """What the scales are for: products of spikes with normal numbers, at any rate and width."""
    for rate, width in ((0.1, 32), (0.5, 128)):
        attention = DualSpikeAttention(width, 1, group_size=1).double()
        seen = []
        attention.map_neuron.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))  # noqa: B023
        g = torch.Generator().manual_seed(0)
        attention((torch.rand(2, 1, 300, width, generator=g) < rate).double())
        assert seen[0].std().item() == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("training", [True, False])
def test_blocks_of_rows_change_nothing(training):
    results = []
    for n_rows in (100, 4, 1):
        attention = _attention(n_rows=n_rows).train(training)
        x = _x(9).requires_grad_()
        y = attention(x, GROUPS)
        (y * _x(3)).sum().backward()
        grads = [parameter.grad for parameter in attention.parameters()]
        results.append([y, x.grad, *grads, attention.input_rate, attention.map_rate])
    for others in results[1:]:
        for a, b in zip(results[0], others, strict=True):
            torch.testing.assert_close(a, b)


def test_at_no_time_are_all_rows_of_the_map_there():
    attention, sizes = _attention(n_rows=3), []
    attention.map_neuron.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[-2:]))
    attention(_x(), GROUPS)
    assert sizes == [(3, 4), (3, 4), (3, 4), (2, 4)]


def test_rows_may_come_in_any_order():
    attention, x = _attention(), _x(9)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(attention(x[:, :, order], GROUPS[order]), attention(x, GROUPS)[:, :, order])
    numbers = torch.tensor([3, 1, 0, 2])  # nor do the names of the groups matter
    torch.testing.assert_close(attention(x, numbers[GROUPS]), attention(x, GROUPS))
    torch.testing.assert_close(attention(x[:, :1], GROUPS), attention(x, GROUPS)[:, :1])


def test_groups_of_rows_that_follow_one_another():
    attention, x = _attention(group_size=4), _x(9)
    assert consecutive_groups(N, 4).tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    assert torch.equal(attention(x), attention(x, consecutive_groups(N, 4)))
    assert not torch.equal(attention(x), attention(x, GROUPS))


@pytest.mark.parametrize("training", [True, False])
def test_segments_have_groups_of_their_own(training):
    """Each segment is what it is alone, with the rates of all."""
    attention = _attention(group_size=4).train(training)
    x, segments = _x(9), torch.tensor([0, 6, N])
    found = attention(x, segments=segments)
    if not training:
        alone = [attention(x[:, :, i:j]) for i, j in ((0, 6), (6, N))]
        torch.testing.assert_close(found, torch.cat(alone, dim=2))
        assert not torch.allclose(found, attention(x))
    else:
        assert attention.map_rate.isfinite().all()
        assert 0 < attention.map_rate.min() < attention.map_rate.max() < 1


def test_a_number_of_groups_makes_the_cost_linear():
    attention, sizes = _attention(group_size=None, n_groups=3, n_rows=4), []
    attention.map_neuron.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[-2:]))
    for n in (N, 10 * N):
        sizes.clear()
        attention(_x(9).repeat(1, 1, n // N, 1))
        assert sum(rows * groups for rows, groups in sizes) == 3 * n
    x, segments = _x(9), torch.tensor([0, 2, N])  # two rows have no third group
    groups = torch.tensor([0, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4])
    alone = [attention(x[:, :, :2], groups[:2]), attention(x[:, :, 2:], groups[2:] - 2)]
    torch.testing.assert_close(attention(x, segments=segments), torch.cat(alone, dim=2))


def test_silence_gives_no_nan():
    attention = DualSpikeAttention(C, HEADS).double()
    for _ in range(2):
        assert attention(_x() * 0, GROUPS).isfinite().all()


@pytest.mark.parametrize("bits", [None, 4])
def test_gradients_reach_all_weights(bits):
    attention = _attention(bits=bits).train()
    (attention(_x(9), GROUPS) * torch.linspace(-1, 1, C, dtype=torch.float64) ** 3).sum().backward()
    (attention(_x(8), GROUPS) * _x(7)).sum().backward()
    for name, parameter in attention.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_mean_of_groups_by_hand():
    x = torch.tensor([[[1.0], [2.0], [6.0], [4.0]]], requires_grad=True)
    mean = group_mean(x, torch.tensor([1, 0, 1, 1]))
    torch.testing.assert_close(mean, torch.tensor([[[2.0], [11 / 3]]]))
    mean.sum().backward()
    torch.testing.assert_close(x.grad.flatten(), torch.tensor([1 / 3, 1.0, 1 / 3, 1 / 3]))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([0, 1, 1], "`groups` must have one group for each of 4 rows, found \\(3,\\)"),
        ([0, 2, 2, 0], "`groups` must leave no number out, found no row of 1"),
    ],
)
def test_bad_groups(groups, message):
    with pytest.raises(ValueError, match=message):
        group_mean(torch.zeros(2, 4, 3), torch.tensor(groups))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_heads": 5}, "`n_features` must be a multiple of `n_heads`, found 12 and 5"),
        ({"group_size": 0}, "`group_size` must be at least 1, found 0"),
        ({"n_rows": 0}, "`n_rows` must be at least 1, found 0"),
        ({"n_groups": 0}, "`n_groups` must be at least 1, found 0"),
        ({"n_groups": 4, "group_size": 8}, "`group_size` and `n_groups`: give one of them, found 8 and 4"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        DualSpikeAttention(**{"n_features": 12, "n_heads": 3, **arguments})


def test_groups_or_segments():
    with pytest.raises(ValueError, match="`groups` and `segments`: give one of them"):
        _attention()(_x(), GROUPS, torch.tensor([0, N]))
