"""Quantization by hand, against a straight-through reference in torch operations, and in training."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from stomics_tools.nn import LearnedWidthQuantizer, QuantLinear, WeightQuantizer, initial_step, lsq

ALL_BITS = range(2, 9)


def _randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _reference(weight, step, bits):
    """LSQ by straight-through estimates: ``detach`` stands for the identity gradient of the rounding."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    scale = 1 / math.sqrt(weight[0].numel() * high)
    step = (step - step * scale).detach() + step * scale
    scaled = torch.minimum(torch.maximum(weight / step, torch.tensor(low)), torch.tensor(high))
    return ((scaled.round() - scaled).detach() + scaled) * step


def test_forward_worked_by_hand():
    weight = torch.tensor([[0.24, -0.26, 0.9, -3.0, 0.0], [1.4, -1.6, 2.6, 9.0, -9.0]])
    step = torch.tensor([[0.5], [1.0]])
    by_hand = torch.tensor([[0.0, -0.5, 0.5, -1.0, 0.0], [1.0, -2.0, 1.0, 1.0, -2.0]])
    assert torch.equal(lsq(weight, step, 2), by_hand)
    by_hand = torch.tensor([[0.0, -0.5, 1.0, -2.0, 0.0], [1.0, -2.0, 3.0, 3.0, -4.0]])
    assert torch.equal(lsq(weight, step, 3), by_hand)


@pytest.mark.parametrize("bits", ALL_BITS)
@pytest.mark.parametrize("shape", [(6, 11), (4, 3, 3, 3)])
def test_gradients_equal_the_straight_through_reference(bits, shape):
    weight = _randn(*shape).requires_grad_()
    high = 2 ** (bits - 1) - 1
    largest = weight.detach().abs().flatten(1).amax(1).view(-1, *[1] * (len(shape) - 1))
    step = (0.5 * largest / (high + 1)).requires_grad_()
    assert (weight / step > high).any()
    assert (weight / step < -high - 1).any()
    target = _randn(*shape, seed=1)
    ours = torch.autograd.grad(((lsq(weight, step, bits) - target) ** 3).sum(), (weight, step))
    theirs = torch.autograd.grad(((_reference(weight, step, bits) - target) ** 3).sum(), (weight, step))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_gradients_equal_the_formula():
    weight = torch.tensor([[0.3, -0.7, 5.0, -5.0]], requires_grad=True)
    step = torch.tensor([[0.5]], requires_grad=True)
    flow = torch.tensor([[1.0, 2.0, 3.0, 5.0]])
    lsq(weight, step, 3).backward(flow)
    # w/s = 0.6, -1.4, 10, -10: rounding adds 0.4 and 0.4, the limits are 3 and -4.
    expected = (1.0 * 0.4 + 2.0 * 0.4 + 3.0 * 3 + 5.0 * -4) / math.sqrt(4 * 3)
    assert step.grad.item() == pytest.approx(expected, rel=1e-6)
    assert torch.equal(weight.grad, torch.tensor([[1.0, 2.0, 0.0, 0.0]]))


def test_initial_step():
    weight = torch.tensor([[1.0, -3.0], [0.0, 0.0], [0.5, 0.5]])
    step = initial_step(weight, 4)
    assert step.shape == (3, 1)
    assert step[0].item() == pytest.approx(2 * 2 / math.sqrt(7))
    assert step[2].item() == pytest.approx(2 * 0.5 / math.sqrt(7))
    assert (initial_step(torch.zeros(3, 4), 2) > 0.1).all()
    assert WeightQuantizer(torch.zeros(3, 4), 2)(torch.zeros(3, 4)).eq(0).all()


@pytest.mark.parametrize("bits", [1, 9, 0, 4.0, True, "four"])
def test_wrong_bits(bits):
    with pytest.raises(ValueError, match="`bits` must be an integer from 2 to 8"):
        QuantLinear(3, 2, bits=bits)


@pytest.mark.parametrize("bits", ALL_BITS)
def test_evaluation_before_training(bits):
    layer = QuantLinear(20, 10, bits=bits).double().eval()
    weight, step = layer.weight, initial_step(layer.weight, bits)
    by_hand = (weight / step).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).round() * step
    x = _randn(5, 20)
    torch.testing.assert_close(layer(x), x @ by_hand.T + layer.bias, rtol=1e-5, atol=1e-5)
    assert len(layer.used_weight[0].unique()) <= 2**bits


def test_without_bits_it_is_a_linear_layer():
    layer, x = QuantLinear(4, 3, bits=None), _randn(6, 4, dtype=torch.float32)
    assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))
    assert layer.bits is None
    assert set(layer.state_dict()) == {"weight", "bias"}


@pytest.mark.parametrize("bits", ALL_BITS)
def test_integers_times_step_are_the_quantized_weights(bits):
    weight = _randn(7, 9, dtype=torch.float32)
    quantizer = WeightQuantizer(weight, bits)
    integers = quantizer.integers(weight)
    assert integers.dtype == torch.int8
    assert torch.equal(integers * quantizer.step, quantizer(weight))


def test_step_stays_positive_and_finite_under_large_updates():
    for sign in (1.0, -1.0):
        quantizer = WeightQuantizer(_randn(4, 8, dtype=torch.float32), 4)
        optimizer = torch.optim.SGD(quantizer.parameters(), lr=1e6)
        for _ in range(3):
            optimizer.zero_grad()
            (sign * quantizer.step.sum()).backward()
            optimizer.step()
        assert (quantizer.step > 0).all()
        assert quantizer.step.isfinite().all()
        assert quantizer(_randn(4, 8, dtype=torch.float32)).isfinite().all()


@pytest.mark.parametrize("bits", ALL_BITS)
def test_refit_lowers_the_error_and_finds_a_grid(bits):
    weight = _randn(5, 200) * torch.tensor([[1e-3], [1.0], [10.0], [0.0], [1.0]])
    weight[4, 1:] = 0  # one weight alone: exact on a fitted grid
    quantizer = WeightQuantizer(weight, bits)
    before = (quantizer(weight) - weight).square().sum(1)
    quantizer.refit(weight)
    after = (quantizer(weight) - weight).square().sum(1)
    assert (after <= before).all()
    assert after[1] < 0.9 * before[1]
    assert after[4] < 1e-20
    on_grid = quantizer(weight).detach()
    quantizer.refit(on_grid)
    torch.testing.assert_close(quantizer(on_grid), on_grid)


def test_training_quantized_weights_fits_a_line():
    x, truth = _randn(200, 6, dtype=torch.float32), _randn(6, 2, seed=1, dtype=torch.float32)
    torch.manual_seed(0)
    layer = QuantLinear(6, 2, bits=4)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        loss = (layer(x) - x @ truth).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.05 * (x @ truth).square().mean()


def test_another_number_of_bits_takes_the_best_grid_of_it():
    weight = _randn(5, 30)
    learned = LearnedWidthQuantizer(weight, 3, 6)
    assert learned.bits == 6
    for bits in (4, 3, 6):
        learned.set_bits(bits, weight)
        fixed = WeightQuantizer(weight, bits)
        fixed.refit(weight)
        assert learned.bits == bits == int(learned.width)
        assert torch.equal(learned(weight), fixed(weight))
    nn.init.constant_(learned.log_step, -1.0)
    learned.set_bits(6, weight)
    assert learned.log_step.eq(-1).all()  # a learned step stays where the bits do
    with pytest.raises(ValueError, match="`bits` must be from 3 to 6, found 2"):
        learned.set_bits(2, weight)


def test_bits_are_saved():
    torch.manual_seed(0)
    first, second = QuantLinear(8, 4, bits="learned"), QuantLinear(8, 4, bits="learned")
    first.quantizer.set_bits(3, first.weight)
    second.load_state_dict(first.state_dict())
    assert second.bits == 3
    x = _randn(5, 8, dtype=torch.float32)
    assert torch.equal(first(x), second(x))
    assert set(first.state_dict()) == {"weight", "bias", "quantizer.log_step", "quantizer.width"}


def test_low_must_be_below_high():
    with pytest.raises(ValueError, match="`low` must be below `high`, found 5 and 5"):
        LearnedWidthQuantizer(torch.ones(2, 3), 5, 5)


@pytest.mark.parametrize("bits", [None, 3, "learned"])
def test_state_survives_a_round_trip(bits):
    torch.manual_seed(0)
    first, second = QuantLinear(8, 4, bits=bits), QuantLinear(8, 4, bits=bits)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.sub_(0.3)
    second.load_state_dict(first.state_dict())
    x = _randn(5, 8, dtype=torch.float32)
    assert torch.equal(first(x), second(x))


@pytest.mark.parametrize("bits", [4, "learned"])
def test_the_quantizer_draws_nothing(bits):
    torch.manual_seed(0)
    plain = QuantLinear(8, 4, bits=None)
    after_plain = torch.rand(3)
    torch.manual_seed(0)
    layer = QuantLinear(8, 4, bits=bits)
    assert torch.equal(torch.rand(3), after_plain)
    assert torch.equal(layer.weight, plain.weight)
    before = torch.get_rng_state()
    layer(torch.zeros(2, 8))
    assert torch.equal(torch.get_rng_state(), before)
