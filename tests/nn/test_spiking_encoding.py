"""Events of positions number by number, and the layer behind them."""

from __future__ import annotations

import math

import pytest
import torch

from stomics_tools.nn import LIFNode, SpikingEncoding, SpikingPositionEncoding


def _coordinates(n, n_dims, seed=0):
    return torch.rand(n, n_dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 100 - 20


@pytest.mark.parametrize("n_dims", [1, 2, 3])
def test_events_number_by_number(n_dims):
    encoding, x = SpikingPositionEncoding(6, n_dims, 3, n_waves=4, shortest=5.0, longest=40.0), _coordinates(7, n_dims)
    events = encoding.events(x)
    assert events.shape == (3, 7, 2 * n_dims * 4)
    for t in range(3):
        for i in range(7):
            expected = []
            for k in range(n_dims):
                for wavelength in (5.0, 10.0, 20.0, 40.0):
                    angle = 2 * math.pi * x[i, k].item() / wavelength + math.pi / 2 * t / 3
                    expected += [float(math.sin(angle) >= 0), float(math.cos(angle) >= 0)]
            assert events[t, i].tolist() == expected


def test_steps_tell_more_places_apart():
    x = torch.arange(0, 8, 0.01, dtype=torch.float64)[:, None]
    for n_steps in (1, 4):
        encoding = SpikingPositionEncoding(4, 1, n_steps, n_waves=1, shortest=8.0, longest=8.0)
        codes = encoding.events(x).transpose(0, 1).flatten(1)
        changes = (codes[1:] != codes[:-1]).any(1).sum()
        assert changes + 1 == pytest.approx(4 * n_steps, abs=1)


@pytest.mark.parametrize("n_dims", [2, 3])
def test_encoding_is_a_layer_of_neurons_on_the_events(n_dims):
    torch.manual_seed(0)
    encoding, x = SpikingPositionEncoding(6, n_dims, bits=4), _coordinates(50, n_dims)
    y = encoding(x)
    assert y.shape == (4, 1, 50, 6)
    assert set(y.unique().tolist()) == {0.0, 1.0}
    z = encoding.events(x) @ encoding.layer.linear.used_weight.T
    z = (z - z.mean((0, 1))) / (z.var((0, 1), correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(y[:, 0], LIFNode(tau=2.0)(z))
    y.sum().backward()
    assert encoding.layer.linear.weight.grad.abs().max() > 0


def test_currents_of_near_rows_agree_more_than_those_of_far_ones():
    torch.manual_seed(0)
    encoding, x = SpikingPositionEncoding(32, neuron=None).eval(), _coordinates(300, 2)
    mean = encoding(x)[:, 0].mean(0)
    near, far = encoding(x + 0.3)[:, 0].mean(0), encoding(x.flip(0))[:, 0].mean(0)
    assert (near - mean).norm() < 0.5 * (far - mean).norm()
    assert mean.dtype == torch.float32
    assert torch.equal(encoding(x.flip(0))[:, 0].mean(0), mean.flip(0))


def test_far_coordinates_keep_their_precision():
    encoding, x = SpikingPositionEncoding(4, 2), _coordinates(200, 2)
    period = 256.0 * 1e6  # whole periods of the longest wavelength
    only_longest = slice(-2, None)
    moved = encoding.events(x + period)[..., only_longest]
    assert (moved == encoding.events(x)[..., only_longest]).double().mean() > 0.99


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_dims": 0}, "`n_dims` must be at least 1, found 0"),
        ({"n_waves": 0}, "`n_waves` must be at least 1, found 0"),
        ({"shortest": 10.0, "longest": 5.0}, "`shortest` must be above 0 and at most `longest`, found 10.0 and 5.0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SpikingPositionEncoding(8, **arguments)


def test_bad_coordinates():
    encoding = SpikingPositionEncoding(8)
    with pytest.raises(ValueError, match=r"`coordinates` must be \(n, 2\), found \(5, 3\)"):
        encoding(torch.zeros(5, 3))
    with pytest.raises(ValueError, match="`coordinates` must be finite"):
        encoding(torch.tensor([[0.0, math.nan]]))


def test_the_same_current_at_every_step():
    torch.manual_seed(0)
    encoding, x = SpikingEncoding(5, 6, 3), torch.randn(2, 30, 5)
    z = x @ encoding.layer.linear.weight.T
    z = (z - z.mean((0, 1))) / (z.var((0, 1), correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(encoding(x), LIFNode(tau=2.0)(z.expand(3, *z.shape)))
