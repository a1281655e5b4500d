"""Quantized convolutions against sums written out and torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stomics_tools.nn import QuantConv1d, QuantConv2d, QuantLinear

CASES = [(QuantConv1d, nn.Conv1d, (9,)), (QuantConv2d, nn.Conv2d, (5, 6))]


def _x(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_one_dimension_by_loops():
    conv = QuantConv1d(2, 3, 3, padding=1, bits=3).double()
    x, weight = _x(4, 2, 7), conv.used_weight
    assert all(len(channel.unique()) <= 8 for channel in weight)
    assert not torch.equal(weight, conv.weight)
    padded = nn.functional.pad(x, (1, 1))
    for o in range(3):
        for at in range(7):
            expected = sum(weight[o, c, k] * padded[:, c, at + k] for c in range(2) for k in range(3)) + conv.bias[o]
            torch.testing.assert_close(conv(x)[:, o, at], expected)


@pytest.mark.parametrize(("kind", "plain", "size"), CASES)
@pytest.mark.parametrize("bits", [None, 4, "learned"])
def test_equal_to_torch_with_the_used_weight(kind, plain, size, bits):
    conv = kind(4, 6, 3, padding=1, groups=2, bias=False, bits=bits).double()
    same = plain(4, 6, 3, padding=1, groups=2, bias=False).double()
    same.weight.data.copy_(conv.used_weight)
    assert torch.equal(conv(_x(3, 4, *size)), same(_x(3, 4, *size)))
    assert torch.equal(conv.used_weight, conv.weight) == (bits is None)


@pytest.mark.parametrize(("kind", "plain", "size"), CASES)
def test_gradient_reaches_weights_and_steps(kind, plain, size):
    conv = kind(4, 6, 3, bits=4).double()
    (conv(_x(3, 4, *size)) ** 3).sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in conv.parameters())


def test_a_kernel_of_one_is_a_linear_layer():
    conv, linear = QuantConv1d(5, 4, 1, bits=4), QuantLinear(5, 4, bits=4)
    linear.assign(conv.weight[..., 0], conv.bias, None)
    linear.quantizer = conv.quantizer  # steps (out, 1, 1) beside (out, 1)
    linear.quantizer.log_step.data = linear.quantizer.log_step.data[..., 0]
    expected = linear(_x(2, 7, 5).float())
    conv.quantizer.log_step.data = conv.quantizer.log_step.data[..., None]
    torch.testing.assert_close(conv(_x(2, 7, 5).float().mT), expected.mT)


@pytest.mark.parametrize(("kind", "plain", "size"), CASES)
def test_bad_bits(kind, plain, size):
    with pytest.raises(ValueError, match="`bits` must be an integer from 2 to 8, found 1"):
        kind(2, 2, 3, bits=1)
