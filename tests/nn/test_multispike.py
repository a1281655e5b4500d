"""The activation by hand-worked values, and its binary events."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from stomics_tools.nn import Multispike, multispike, unroll


def test_values_worked_by_hand():
    x = torch.tensor([-2.0, -0.1, 0.0, 0.1, 0.2, 0.3, 0.45, 0.6, 0.7, 0.9, 1.0, 3.0])
    expected = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.25, 0.25, 0.5, 0.5, 0.75, 1.0, 1.0, 1.0])
    assert torch.equal(multispike(x), expected)


def test_halves_go_up():
    x = torch.tensor([0.125, 0.375, 0.625, 0.875])
    assert torch.equal(multispike(x), torch.tensor([0.25, 0.5, 0.75, 1.0]))
    assert torch.equal(multispike(x - 1e-6), torch.tensor([0.0, 0.25, 0.5, 0.75]))


def test_other_numbers_of_levels():
    x = torch.tensor([-1.0, 0.1, 0.2, 0.5, 0.8, 0.9, 2.0])
    assert torch.equal(multispike(x, 2), torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]))
    torch.testing.assert_close(multispike(x, 4) * 3, torch.tensor([0.0, 0.0, 1.0, 2.0, 2.0, 3.0, 3.0]))


def test_gradient_passes_strictly_inside():
    x = torch.tensor([-1.0, 0.0, 1e-3, 0.5, 0.999, 1.0, 1.5], requires_grad=True)
    grad = torch.arange(1.0, 8.0)
    multispike(x).backward(grad)
    assert torch.equal(x.grad, grad * torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_and_shape_stay_and_input_is_not_written(dtype):
    x = torch.linspace(-0.5, 1.5, 24, dtype=dtype).view(2, 3, 4)
    before = x.clone()
    spike = Multispike()
    assert spike(x).dtype == spike.counts(x).dtype == dtype
    assert spike(x).shape == x.shape
    assert torch.equal(x, before)


@pytest.mark.parametrize("n_levels", [2, 3, 5, 9])
def test_counts_are_the_values_times_the_largest(n_levels):
    x = torch.randn(50, generator=torch.Generator().manual_seed(0))
    spike = Multispike(n_levels)
    counts = spike.counts(x)
    assert torch.equal(counts, counts.round())
    assert counts.max() == n_levels - 1
    assert torch.equal(spike(x), counts / (n_levels - 1))


def test_events_are_binary_and_sum_to_the_counts():
    counts = torch.tensor([[0.0, 1.0, 4.0], [3.0, 2.0, 0.0]])
    events = unroll(counts, 4)
    assert events.shape == (4, 2, 3)
    assert set(events.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(events.sum(0), counts)


def test_binary_pass_equals_the_multi_level_pass():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 7, generator=generator, dtype=torch.float64)
    weight = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    bias = torch.randn(5, generator=generator, dtype=torch.float64)
    spike = Multispike()
    steps = [F.linear(event, weight) for event in unroll(spike.counts(x), 4)]
    torch.testing.assert_close(sum(steps) / 4 + bias, F.linear(spike(x), weight, bias), rtol=0, atol=1e-13)


def test_too_few_steps_and_levels():
    with pytest.raises(ValueError, match="`n_steps`: 3 steps cannot hold a count of 4"):
        unroll(torch.tensor([1.0, 4.0]), 3)
    with pytest.raises(ValueError, match="`n_levels` must be at least 2, found 1"):
        Multispike(1)
