"""Neurons against values worked by hand, closed forms, and SpikingJelly where it is installed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from stomics_tools.nn import LIFNode, fire

SURROGATES = ("sigmoid", "atan", "rectangular")


def _x(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 1.5 + 0.5


def test_values_worked_by_hand():
    """Steps of a constant input 1.6: .8, 1.2 (fires), then from the reset."""
    x = torch.full((4, 1), 1.6)
    spikes, v = LIFNode(tau=2.0).steps(x)
    assert spikes.flatten().tolist() == [0, 1, 0, 1]
    assert v.item() == 0
    spikes, v = LIFNode(tau=2.0, v_reset=None).steps(x)  # .8; 1.2 - 1 = .2; .9; 1.25 - 1
    assert spikes.flatten().tolist() == [0, 1, 0, 1]
    assert v.item() == pytest.approx(0.25)
    spikes, v = LIFNode(tau=2.0, v_reset=0.5).steps(x)  # .5 + .55 fires at once; again .5 + .55
    assert spikes.flatten().tolist() == [1, 1, 1, 1]
    spikes, v = LIFNode(tau=4.0, decay_input=False, v_threshold=2.0).steps(x)  # 1.6; 1.2 + 1.6 fires; 1.6; 2.8
    assert spikes.flatten().tolist() == [0, 1, 0, 1]


def test_below_the_threshold_the_membrane_is_a_geometric_sum():
    x = _x(9, 5).abs() * 0.1
    for decay_input, factor in ((True, 1 / 3), (False, 1.0)):
        spikes, v = LIFNode(tau=3.0, decay_input=decay_input).steps(x)
        assert not spikes.any()
        decay = (2 / 3) ** torch.arange(8, -1, -1, dtype=x.dtype)
        torch.testing.assert_close(v, factor * (decay[:, None] * x).sum(0))


def test_a_neuron_fires_at_the_threshold_itself():
    assert fire(torch.tensor([-1e-9, 0.0, 1e-9])).tolist() == [0, 1, 1]


@pytest.mark.parametrize("sharpness", [None, 3.0])
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_the_gradient_is_the_slope_of_a_step_smoothed(surrogate, sharpness):
    def slope(at):
        x = torch.tensor(at, dtype=torch.float64, requires_grad=True)
        (fire(x, surrogate, sharpness) * 3).backward()
        return x.grad.item() / 3

    a = sharpness or {"sigmoid": 4, "atan": 2, "rectangular": 1}[surrogate]
    at = 0.3 / a
    expected = {
        "sigmoid": a * np.exp(-a * at) / (1 + np.exp(-a * at)) ** 2,
        "atan": a / 2 / (1 + (np.pi / 2 * a * at) ** 2),
        "rectangular": a,
    }[surrogate]
    assert slope(at) == pytest.approx(expected)
    assert slope(-at) == pytest.approx(expected)
    assert (slope(0.6 / a) == 0) == (surrogate == "rectangular")
    edge = 0.5 / a if surrogate == "rectangular" else np.inf
    assert 2 * quad(slope, 0, edge, epsabs=1e-6)[0] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("v_reset", [0.0, None])
def test_gradients_through_two_steps_by_the_chain_rule(v_reset, detach):
    x = torch.tensor([1.8, 2.6], dtype=torch.float64, requires_grad=True)
    LIFNode(tau=2.0, v_reset=v_reset, detach_reset=detach)(x[:, None])[1].sum().backward()

    def slope(h):
        s = 1 / (1 + np.exp(-4 * (h - 1)))
        return 4 * s * (1 - s)

    h1 = 0.9
    h2 = h1 / 2 + 1.3
    assert h1 < 1 < h2
    dv_dh = 1.0 + (0.0 if detach else slope(h1) * (-h1 if v_reset == 0.0 else -1.0))
    np.testing.assert_allclose(x.grad, [slope(h2) * 0.5 * dv_dh * 0.5, slope(h2) * 0.5])


def test_time_may_be_cut_and_nothing_is_remembered():
    node, x = LIFNode(tau=3.0, v_reset=None), _x(8, 4, 3)
    whole, last = node.steps(x)
    first, v = node.steps(x[:5])
    second, after = node.steps(x[5:], v)
    assert torch.equal(torch.cat([first, second]), whole)
    assert torch.equal(after, last)
    assert torch.equal(node(x), whole)
    assert not list(node.state_dict())


def test_neurons_are_independent():
    node, x = LIFNode(), _x(6, 7)
    assert torch.equal(node(x)[:, 2:5], node(x[:, 2:5]))
    assert 0 < node(x).mean() < 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tau": 1.0}, "`tau` must be above 1, found 1.0"),
        ({"v_reset": 1.0}, "`v_reset` must be below `v_threshold`, found 1.0 and 1.0"),
        ({"surrogate": "step"}, "`surrogate` must be one of .*, found 'step'"),
        ({"sharpness": 0.0}, "`sharpness` must be above 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        LIFNode(**arguments)


def test_equal_to_spikingjelly():
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron", reason="SpikingJelly is not installed")
    from spikingjelly.activation_based import surrogate as surrogates

    theirs = {"sigmoid": surrogates.Sigmoid, "atan": surrogates.ATan}
    for kind, v_reset, decay, detach in itertools.product(theirs, (0.0, None, -0.2), (True, False), (True, False)):
        how = {"tau": 2.5, "v_threshold": 0.8, "v_reset": v_reset, "decay_input": decay, "detach_reset": detach}
        node = neuron.LIFNode(**how, surrogate_function=theirs[kind](), step_mode="m").double()
        one, two = (_x(6, 5).requires_grad_() for _ in range(2))
        ours, expected = LIFNode(**how, surrogate=kind)(one), node(two)
        assert torch.equal(ours, expected)
        weight = torch.linspace(-1, 1, 30, dtype=torch.float64).view(6, 5)
        (ours * weight).sum().backward()
        (expected * weight).sum().backward()
        torch.testing.assert_close(one.grad, two.grad)
