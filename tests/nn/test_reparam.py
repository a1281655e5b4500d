"""Folded layers against the layers in evaluation."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from stomics_tools.nn import QuantLinear, RepConv, RepLinear, SpikingLayer, fold_all

SIZES = [(6, 4), (5, 9), (1, 3), (7, 7)]


def _trained(layer, *shape, seed=0):
    """In float64, normalisations with random state, then moved on by a few batches; gammas of both signs."""
    layer = layer.double()
    generator = torch.Generator().manual_seed(seed)
    for norm in (layer.first_norm, layer.second_norm):
        for value in (norm.weight, norm.bias, norm.running_mean):
            value.data.copy_(torch.randn(value.shape, generator=generator))
        norm.running_var.copy_(torch.rand(norm.running_var.shape, generator=generator) * 3 + 0.01)
    norm.weight.data[0] = -0.7
    for _ in range(3):
        layer(torch.randn(8, *shape, generator=generator, dtype=torch.float64) * 2 + 1)
    return layer.eval()


def _x(*shape):
    return torch.randn(20, *shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


@pytest.mark.parametrize(("n_in", "n_out"), SIZES)
def test_folded_linear_equals_evaluation(n_in, n_out):
    layer = _trained(RepLinear(n_in, n_out), n_in)
    folded = layer.fold()
    assert type(folded) is QuantLinear
    assert folded.quantizer is None
    torch.testing.assert_close(folded(_x(n_in)), layer(_x(n_in)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("n_in", "n_out"), SIZES)
@pytest.mark.parametrize("side", [(6, 5), (1, 1)])
def test_folded_convolution_equals_evaluation(n_in, n_out, side):
    layer = _trained(RepConv(n_in, n_out), n_in, 6, 5)
    folded = layer.fold()
    assert isinstance(folded, nn.Conv2d)
    assert folded.padding == (1, 1)
    torch.testing.assert_close(folded(_x(n_in, *side)), layer(_x(n_in, *side)), rtol=1e-12, atol=1e-12)


def test_border_is_the_first_normalisation_of_zero():
    layer = _trained(RepConv(2, 2), 2, 4, 4)
    seen = []
    layer.depthwise.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    layer(_x(2, 4, 4))
    of_zero = layer.first_norm(torch.zeros(1, 2, 1, 1, dtype=torch.float64))[0, :, 0, 0]
    assert seen[0].shape == (20, 2, 6, 6)
    for border in (seen[0][:, :, 0], seen[0][:, :, -1], seen[0][..., 0], seen[0][..., -1]):
        torch.testing.assert_close(border, of_zero[None, :, None].expand_as(border))


def test_number_of_parameters():
    def count(layer):
        return sum(p.numel() for p in layer.parameters())

    c, o = 6, 4
    norms = 2 * c + 2 * o
    assert count(RepLinear(c, o)) == c * c + c * o + norms
    assert count(RepLinear(c, o).fold()) == c * o + o
    assert count(RepConv(c, o)) == c * c + 9 * c + c * o + norms
    assert count(RepConv(c, o).fold()) == 9 * c * o + o
    assert count(RepLinear(c, o, bits=4)) == c * c + c * o + norms + c + o


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_folded_quantized_layers_are_the_exact_fold_on_a_refitted_grid(bits):
    for layer, x in ((RepLinear(6, 4, bits), _x(6)), (RepConv(6, 4, bits), _x(6, 5, 5))):
        layer = _trained(layer, *x.shape[1:])
        folded = layer.fold()
        assert type(folded) is type(layer.first)
        assert folded.bits == bits
        exact = copy.deepcopy(folded)
        exact.quantizer = None
        torch.testing.assert_close(exact(x), layer(x), rtol=1e-12, atol=1e-12)
        assert len(folded.used_weight[0].unique()) <= 2**bits
        error = (folded(x) - layer(x)).square().mean() / layer(x).var()
        assert error < {2: 0.6, 4: 0.05, 8: 3e-4}[bits]


def test_learned_width_folds_to_the_largest_whole_width():
    layer = RepLinear(6, 4, "learned")
    layer.first.quantizer.set_bits(3, layer.first.weight)
    layer.second.quantizer.set_bits(5, layer.second.weight)
    assert layer.fold().bits == 5


@pytest.mark.parametrize("bits", [None, 4, "learned"])
def test_gradient_reaches_every_parameter(bits):
    torch.manual_seed(0)
    for layer, x in ((RepLinear(6, 4, bits), torch.randn(9, 6)), (RepConv(6, 4, bits), torch.randn(3, 6, 5, 5))):
        (layer(x) ** 3 + layer(0.5 * x) ** 3).sum().backward()  # twice in one graph
        without = [name for name, p in layer.named_parameters() if p.grad is None or not p.grad.any()]
        assert not without


class _Model(nn.Module):
    def __init__(self):
        super().__init__()
        shared = RepLinear(5, 5)
        self.body = nn.Sequential(shared, nn.ReLU(), nn.ModuleDict({"a": RepLinear(5, 3)})["a"])
        self.shared = shared
        self.plain = nn.Linear(5, 5)

    def forward(self, x):
        return self.body(self.shared(self.plain(x)))


def test_fold_all():
    torch.manual_seed(0)
    model = _Model().double()
    for _ in range(5):
        model(_x(5))
    before = copy.deepcopy(model.state_dict())
    folded = fold_all(model)
    assert model.training
    assert not any(m.training for m in folded.modules())
    assert not any(isinstance(m, RepLinear | RepConv) for m in folded.modules())
    assert folded.shared is folded.body[0]
    torch.testing.assert_close(folded(_x(5)), model.eval()(_x(5)), rtol=1e-12, atol=1e-12)
    nn.init.zeros_(folded.plain.weight)
    nn.init.zeros_(folded.shared.weight)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert isinstance(fold_all(RepLinear(3, 2)), QuantLinear)
    assert isinstance(fold_all(RepConv(3, 2)), nn.Conv2d)


@pytest.mark.parametrize("layer", [RepLinear(4, 3), RepLinear(4, 3, 4), RepConv(4, 3, 4)])
def test_folding_draws_nothing_and_keeps_the_layer(layer):
    before, state = torch.get_rng_state(), copy.deepcopy(layer.state_dict())
    folded = fold_all(layer)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[name]) for name, value in layer.state_dict().items())
    assert not any(p.is_meta for p in folded.parameters())


def test_a_later_batch_does_not_change_the_gradient_of_an_earlier_one():
    layer, x = _trained(RepConv(4, 3), 4, 5, 5).train(), _x(4, 5, 5)
    gradients = []
    for later in (False, True):
        one = copy.deepcopy(layer)
        loss = one(x).pow(3).sum()
        if later:
            one(x + 5)
        loss.backward()
        gradients.append(one.first_norm.weight.grad)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("bits", [None, 2, 4, 8, "learned"])
def test_fold_all_of_a_layer_and_its_normalisation(bits):
    torch.manual_seed(0)
    pair = nn.Sequential(QuantLinear(6, 4, bits=bits), nn.BatchNorm1d(4)).double()
    nn.init.uniform_(pair[1].weight, 0.3, 2)
    nn.init.normal_(pair[1].bias)
    for _ in range(3):
        pair(2 * _x(6) + 1)
    folded = fold_all(pair)
    assert type(folded) is QuantLinear
    assert folded.bits == (8 if bits == "learned" else bits)
    torch.testing.assert_close(folded(_x(6)), pair.eval()(_x(6)), rtol=1e-12, atol=1e-12)
    pair[1].weight.data[0] *= -1  # the grid is not symmetric
    folded, expected = fold_all(pair)(_x(6)), pair(_x(6))
    torch.testing.assert_close(folded[:, 1:], expected[:, 1:], rtol=1e-12, atol=1e-12)
    error = (folded[:, 0] - expected[:, 0]).square().mean() / expected[:, 0].var()
    assert error < {None: 1e-12, 2: 1.0, 4: 0.05}.get(bits, 1e-3)


def test_fold_all_leaves_other_sequences():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    assert [type(part) for part in fold_all(model)] == [nn.Linear, nn.BatchNorm1d]


@pytest.mark.parametrize("bits", [None, 4])
def test_layers_of_spiking_transformers_fold(bits):
    torch.manual_seed(0)
    layer = SpikingLayer(6, 5, bits=bits).double()
    for scale in (1.0, 2.0, 3.0):
        layer(scale * _x(3, 4, 6) + 1)
    folded = fold_all(nn.Sequential(layer))[0]
    assert isinstance(folded, SpikingLayer)
    assert isinstance(folded.norm, nn.Identity)
    assert folded.linear.bits == bits
    assert folded.linear.bias is not None
    assert layer.linear.bias is None
    x, seen = _x(3, 4, 6), []
    for each in (layer.eval(), folded):
        each.neuron.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        each(x)
    torch.testing.assert_close(seen[1], seen[0], rtol=1e-12, atol=1e-12)
