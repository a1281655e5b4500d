"""Bits of layers against all allocations there are, one by one, and in training."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from torch import nn

from stomics_tools.nn import (
    Multispike,
    PackedLinear,
    QuantConv2d,
    QuantLinear,
    RepConv,
    RepLinear,
    WeightQuantizer,
    allocate_bits,
    fold_all,
    mean_bits,
)
from stomics_tools.nn.bit_allocation import least_error

WIDTHS = range(2, 9)


def _randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _quantizers(module):
    return [part for part in module.modules() if isinstance(part, QuantLinear | QuantConv2d)]


def _all_allocations(sizes, budget, tolerance=0.25):
    for bits in itertools.product(WIDTHS, repeat=len(sizes)):
        mean = sum(n * b for n, b in zip(sizes, bits, strict=True)) / sum(sizes)
        if budget - tolerance - 1e-9 <= mean <= budget + 1e-9:
            yield bits


@pytest.mark.parametrize("budget", [2.0, 2.5, 3.0, 4.0, 5.0, 6.3, 8.0])
@pytest.mark.parametrize("seed", range(4))
def test_least_error_of_all_allocations(seed, budget):
    g = torch.Generator().manual_seed(seed)
    sizes = torch.randint(30, 400, (4,), generator=g).tolist()
    decay = 4.0 ** -torch.arange(7.0, dtype=torch.float64)
    noise = 1 + 0.5 * torch.rand(4, 7, generator=g, dtype=torch.float64)  # not convex, as measured errors are not
    errors = torch.rand(4, 1, generator=g, dtype=torch.float64).exp() ** 6 * decay * noise

    def total(bits):
        return sum(errors[i, b - 2].item() for i, b in enumerate(bits))

    found = least_error(errors, sizes, budget, 0.25)
    assert total(found) == pytest.approx(min(map(total, _all_allocations(sizes, budget))))


def test_large_layers_are_counted_in_coarser_units():
    errors = torch.tensor([[1.0], [3.0]], dtype=torch.float64) * 4.0 ** -torch.arange(7.0, dtype=torch.float64)
    sizes = [10_000_019, 999_983]  # primes
    for budget in (2.0, 4.0, 5.0):
        bits = least_error(errors, sizes, budget, 0.25)
        mean = sum(n * b for n, b in zip(sizes, bits, strict=True)) / sum(sizes)
        assert budget - 0.25 <= mean <= budget


class _Net(nn.Module):
    """Three layers, the loss of which depends on the second most, as its output is multiplied."""

    def __init__(self, bits="learned"):
        super().__init__()
        self.first, self.second, self.third = (QuantLinear(n, m, bits=bits) for n, m in ((12, 16), (16, 8), (8, 6)))
        self.spike = Multispike(9)

    def forward(self, x):
        x = self.spike(self.first(x) + 0.5)
        x = self.spike(3 * self.second(x) + 0.5)
        return self.third(x)


def _trained(budget=None, lr=1e-3, n_steps=60, every=15):
    x = _randn(400, 12)
    target = torch.tanh(x @ _randn(12, 6, seed=1) / 2) + 0.3 * _randn(400, 6, seed=2)
    torch.manual_seed(0)
    net = _Net()

    def loss():
        return (net(x) - target).square().mean()

    optimizer = torch.optim.Adam(net.parameters(), lr)
    for step in range(n_steps):
        if budget is not None and step % every == 0:
            allocate_bits(net, budget, loss)
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    return net, loss


@pytest.mark.parametrize("budget", [2.0, 3.0, 4.0, 5.0, 6.0])
@pytest.mark.parametrize("lr", [1e-3, 1e-2])
def test_the_budget_is_met_at_any_learning_rate(budget, lr):
    net, loss = _trained(budget, lr)
    sizes = [layer.weight.numel() for layer in _quantizers(net)]
    mean = sum(n * layer.bits for n, layer in zip(sizes, _quantizers(net), strict=True)) / sum(sizes)
    assert budget - 0.25 <= mean <= budget
    assert mean_bits(net) == pytest.approx(mean)
    packed = [PackedLinear.of(layer).bits for layer in _quantizers(net)]
    assert packed == [layer.bits for layer in _quantizers(net)]
    assert loss().isfinite()


@pytest.mark.parametrize("budget", [3.0, 4.0])
def test_the_loss_is_near_that_of_the_best_of_all_allocations(budget):
    """Every allocation is rounded and its loss evaluated."""
    net, loss = _trained(lr=1e-2, n_steps=150)
    exact = copy.deepcopy(net)
    sizes = [layer.weight.numel() for layer in _quantizers(net)]

    def outputs(bits):
        for layer, b in zip(_quantizers(net), bits, strict=True):
            layer.quantizer = WeightQuantizer(layer.weight, b)
            layer.quantizer.refit(layer.weight)
        return loss().item()

    net_of = {bits: outputs(bits) for bits in _all_allocations(sizes, budget)}
    assert len(net_of) > 5
    x = _randn(400, 12)
    target = torch.tanh(x @ _randn(12, 6, seed=1) / 2) + 0.3 * _randn(400, 6, seed=2)
    found = tuple(allocate_bits(exact, budget, lambda: (exact(x) - target).square().mean()).values())
    ranks = sorted(net_of, key=net_of.get)
    least, middle = net_of[ranks[0]], net_of[ranks[len(ranks) // 2]]
    assert net_of[found] - least < 0.25 * (middle - least)


@pytest.mark.parametrize(("factor", "expected"), [(1, (5, 5)), (4, (6, 4)), (16, (7, 3)), (1000, (8, 2))])
def test_what_matters_more_gets_more(factor, expected):
    """A bit more halves the error of rounding: with k times the slope, log2 k bits more of two layers of one size."""
    torch.manual_seed(0)
    net = nn.ModuleList([QuantLinear(40, 20, bits="learned"), QuantLinear(40, 20, bits="learned")])
    x, target = _randn(300, 40), _randn(300, 20, seed=1)
    bits = allocate_bits(net, 5.0, lambda: (factor * net[0](x) + net[1](x) - target).square().mean())
    assert tuple(bits.values()) == expected
    assert tuple(allocate_bits(net[:1], 5.0, lambda: net[0](x).square().mean()).values()) == (5,)


def test_error_is_that_of_the_outputs_times_their_gradient():
    """One layer of each kind, by hand."""
    torch.manual_seed(0)
    linear, conv = QuantLinear(5, 3, bits="learned"), QuantConv2d(2, 4, 3, padding=1, bits="learned")
    x, image = _randn(7, 5), _randn(6, 2, 4, 4, seed=1)
    from stomics_tools.nn.bit_allocation import _errors

    found = _errors([linear, conv], lambda: linear(x).pow(3).sum() + conv(image).pow(2).sum())
    for i, (layer, rows, slope) in enumerate(((linear, x, lambda y: 3 * y**2), (conv, image, lambda y: 2 * y))):
        gradient = slope(layer(rows))
        for k, bits in enumerate(WIDTHS):
            other = copy.deepcopy(layer)
            other.quantizer = WeightQuantizer(layer.weight, bits)
            other.quantizer.refit(layer.weight)
            plain = copy.deepcopy(layer)
            plain.quantizer = None
            expected = ((other(rows) - plain(rows)) * gradient).double().square().sum().item()
            assert found[i, k].item() == pytest.approx(expected, rel=1e-3)


def test_two_maps_of_one_layer_share_their_bits_and_fold_to_them():
    torch.manual_seed(0)
    net = nn.Sequential(
        RepLinear(8, 8, "learned"), nn.ReLU(), RepLinear(8, 6, "learned"), QuantLinear(6, 4, bits="learned")
    )
    x = _randn(50, 8)
    allocate_bits(net, 4.0, lambda: net(x).square().mean())
    assert net[0].first.bits == net[0].second.bits
    assert net[2].first.bits == net[2].second.bits
    folded = fold_all(net)
    assert [folded[i].bits for i in (0, 2, 3)] == [net[0].first.bits, net[2].first.bits, net[3].bits]
    image, conv = _randn(4, 3, 5, 5), RepConv(3, 4, "learned")
    assert len(set(allocate_bits(conv, 3.0, lambda: conv(image).square().mean()).values())) == 1


def test_nothing_else_changes():
    net, loss = _trained(n_steps=3)
    net.zero_grad()
    plain = QuantLinear(3, 2, bits=5)
    both = nn.ModuleList([net, plain])
    weights = [layer.weight.clone() for layer in _quantizers(net)]
    state = torch.get_rng_state()
    with torch.no_grad():
        bits = allocate_bits(both, 3.0, loss)
    assert bits == allocate_bits(both, 3.0, loss)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in both.parameters())
    assert all(torch.equal(a, layer.weight) for a, layer in zip(weights, _quantizers(net), strict=True))
    assert plain.bits == 5
    assert not any(layer._forward_hooks for layer in _quantizers(both))


def test_mean_bits_counts_weights():
    net = nn.Sequential(
        QuantLinear(10, 3, bits=6), nn.Sequential(QuantLinear(3, 2, bits=3)), QuantLinear(9, 9, bits=None)
    )
    assert mean_bits(net) == pytest.approx((30 * 6 + 6 * 3) / 36)
    assert mean_bits(nn.Sequential(PackedLinear.of(net[0]), net[1])) == pytest.approx((30 * 6 + 6 * 3) / 36)
    assert math.isnan(mean_bits(net[2]))


def test_wrong_input():
    net, loss = _trained(n_steps=1)
    with pytest.raises(ValueError, match="no layer of learned width"):
        allocate_bits(QuantLinear(3, 2, bits=4), 4.0, loss)
    with pytest.raises(ValueError, match="`budget` must be from 2 to 8 bits, found 1.5"):
        allocate_bits(net, 1.5, loss)
    with pytest.raises(ValueError, match="`tolerance` must be at least 0"):
        allocate_bits(net, 4.0, loss, tolerance=-1.0)
    with pytest.raises(ValueError, match="does not depend on the weights"):
        allocate_bits(net, 4.0, lambda: torch.ones(()))
    with pytest.raises(ValueError, match="`loss` must be finite"):
        allocate_bits(net, 4.0, lambda: loss() * math.nan)
    assert [layer.bits for layer in _quantizers(net)] == [8, 8, 8]
