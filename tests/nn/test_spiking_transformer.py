from __future__ import annotations

import pytest
import torch

from stomics_tools.nn import LIFNode, SpikingMLP, SpikingTransformerBlock

T, B, N, C = 4, 2, 9, 8


def _x(seed=0):
    return torch.randn(T, B, N, C, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


def _lively(module):
    """Neurons that fire often, and statistics of the norms."""
    for name, parameter in module.named_parameters():
        if name.endswith("norm.weight"):
            parameter.data.fill_(3.0)
        elif name.endswith("norm.bias"):
            parameter.data.fill_(0.7)
    for seed in range(4):
        module((_x(seed) > 0).double())
    return module.eval()


def _block(**settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return _lively(SpikingTransformerBlock(C, 2, 2.0, scale=0.5, attention_threshold=0.5, **settings).double())


def test_the_perceptron_by_its_formula():
    mlp = _lively(SpikingMLP(C, 20).double())

    def layer(part, x):
        z = (x @ part.linear.weight.T - part.norm.running_mean) / (part.norm.running_var + 1e-5).sqrt()
        return LIFNode(tau=2.0)(z * part.norm.weight + part.norm.bias)

    x = (_x() > 0).double()
    expected = layer(mlp.output, layer(mlp.hidden, x))
    assert 0.05 < expected.mean() < 0.95
    torch.testing.assert_close(mlp(x), expected)
    assert mlp.hidden.linear.weight.shape == (20, C)


def test_spikes_are_added_to_spikes():
    block, x = _block(residual="sew"), (_x() > 0).double()
    attended = x + block.attention(x)
    y = block(x)
    assert torch.equal(y, attended + block.mlp(attended))
    assert set(y.unique().tolist()) == {0.0, 1.0, 2.0, 3.0}


def test_currents_are_added_to_membranes_and_layers_read_spikes():
    block, x, read = _block(residual="membrane"), _x(), []
    for part in (block.attention, block.mlp):
        part.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    y = block(x)
    spikes = LIFNode(tau=2.0)
    attended = x + block.attention(spikes(x))
    torch.testing.assert_close(y, attended + block.mlp(spikes(attended)))
    assert all(set(inputs.unique().tolist()) == {0.0, 1.0} for inputs in read)
    assert y.unique().numel() > T * B * N


@pytest.mark.parametrize("form", ["ssa", "mask", "token", "channel"])
@pytest.mark.parametrize("residual", ["sew", "membrane"])
def test_gradients_reach_all_weights(residual, form):
    block = _block(residual=residual, form=form).train()
    x = _x().requires_grad_()
    (block(x) * _x(7)).sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad.abs().max() > 0, name
    assert x.grad.abs().min() > 0


def test_what_comes_later_does_not_matter():
    """Neurons remember earlier steps and see no later ones."""
    block, x = _block(), _x()
    torch.testing.assert_close(block(x[:2]), block(x)[:2])
    assert not torch.equal(block(x[1:]), block(x)[1:])


def test_bad_residual():
    with pytest.raises(ValueError, match=r"`residual` must be one of \['sew', 'membrane'\], found 'pre'"):
        SpikingTransformerBlock(8, residual="pre")
