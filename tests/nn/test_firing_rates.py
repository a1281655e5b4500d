"""Events counted by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from stomics_tools.nn import LIFNode, Multispike, SpikingTransformerBlock, firing_rates


class _Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.spike, self.steps, self.unused = Multispike(5), LIFNode(tau=2.0), LIFNode()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Rows of 3: counts 0 to 4, then these as currents of 2 steps, each twice as strong as the one before."""
        counts = self.spike(x)
        return self.steps(torch.stack([counts, 2 * counts]))


# Counts over 4: 0 0 0 / 1 4 0 / 2 2 1. As currents I and then 2 I, the membranes are I / 2 and 5 I / 4: only I = 1
# fires, in the second step.
X = torch.tensor([[-1.0, 0.1, 0.0], [0.25, 3.0, 0.0], [0.5, 0.5, 0.25]])


def test_both_kinds_by_hand():
    module = _Both()
    with firing_rates(module) as rates:
        spikes = module(X)
    assert spikes.sum() == 1
    assert list(rates) == ["spike", "steps", "unused"]
    counted, stepped, unused = rates.values()
    assert (counted.n_steps, counted.width, counted.n_rows) == (4, 3, 3)
    assert counted.events == pytest.approx(10 / 3)
    assert counted.rate == pytest.approx(10 / (3 * 12))
    assert counted.silent_fraction == pytest.approx(1 / 3)
    assert (stepped.n_steps, stepped.width, stepped.n_rows) == (2, 3, 3)
    assert stepped.events == pytest.approx(1 / 3)
    assert stepped.rate == pytest.approx(1 / 18)
    assert stepped.silent_fraction == pytest.approx(2 / 3)
    assert (unused.n_rows, unused.events, unused.rate) == (0, 0.0, 0.0)
    assert math.isnan(unused.silent_fraction)


def test_calls_add_up():
    module = _Both()
    with firing_rates(module) as whole:
        module(X)
    with firing_rates(module) as parts:
        module(X[:1])
        assert parts["spike"].silent_fraction == 1
        module(X[1:])
    assert parts == whole


def test_nothing_stays_behind():
    module, rates = _Both(), {}

    def fail():
        with firing_rates(module) as found:
            rates.update(found)
            module(X)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    module(X)
    assert rates["spike"].n_rows == 3
    assert not any(part._forward_hooks for part in module.modules())


def test_rates_of_a_block_are_the_means_of_its_spikes():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        block, x = SpikingTransformerBlock(8, 2, 2.0, scale=None), torch.randn(3, 2, 9, 8) * 2
    seen = {}
    for name, part in block.named_modules():
        if isinstance(part, LIFNode):
            part.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
    with firing_rates(block) as rates:
        block(x)
    assert rates.keys() == seen.keys()
    assert len(rates) == 7
    for name, spikes in seen.items():
        assert rates[name].rate == pytest.approx(spikes.mean().item())
        assert rates[name].n_rows == 2 * 9  # spots, also behind the heads
        assert rates[name].silent_fraction == pytest.approx((spikes.sum((0, 3)) == 0).float().mean().item())
