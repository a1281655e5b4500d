"""Patch splitting and encoding against stages written out with torch functions."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from stomics_tools.nn import LIFNode, Multispike, SpikingEncoding, SpikingPatchSplitting

B, N = 2, 5


def _randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


def _made(*arguments, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        splitting = SpikingPatchSplitting(*arguments, **settings).double()
    for norm in splitting.norms:
        norm.weight.data.fill_(3.0)
        norm.bias.data.fill_(0.5)
    return splitting


def _by_hand(splitting, images, n_steps):
    """All T copies through every stage, in training: norms are those of the batch."""
    conv, pool = (F.conv1d, F.max_pool1d) if images.dim() == 3 else (F.conv2d, F.max_pool2d)
    x = torch.stack([images] * n_steps)
    for layer in splitting.convs:
        z = conv(x.flatten(0, 1), layer.weight, padding=1)
        z = F.batch_norm(z, None, None, training=True)
        spikes = LIFNode(tau=2.0)((3.0 * z + 0.5).unflatten(0, (n_steps, -1)))
        x = pool(spikes.flatten(0, 1), 3, stride=2, padding=1).unflatten(0, (n_steps, -1))
    return x


@pytest.mark.parametrize("side", [(8, 8), (7, 10), (1, 1)])
def test_images_by_hand(side):
    splitting, x = _made(3, 8, 3, n_steps=3), _randn(B, N, 3, *side)
    expected = _by_hand(splitting, x.flatten(0, 1), 3)
    assert [conv.out_channels for conv in splitting.convs] == [2, 4, 8]
    assert expected.shape == (3, B * N, 8, -(-side[0] // 8), -(-side[1] // 8))
    found = splitting(x)
    assert found.shape == (3, B, N, 8)
    torch.testing.assert_close(found, expected.flatten(3).amax(-1).view(3, B, N, 8))
    assert set(found.unique().tolist()) == {0.0, 1.0}


def test_positions_as_rows():
    pooled, rows = (_made(3, 8, 1, n_steps=2, pool=pool) for pool in (True, False))
    x = _randn(B, N, 3, 6, 8)
    found = rows(x)
    assert found.shape == (2, B * N, 12, 8)
    expected = _by_hand(rows, x.flatten(0, 1), 2)
    torch.testing.assert_close(found[:, :, 5], expected[..., 1, 1])  # the fifth of 3 x 4 positions
    assert torch.equal(found.amax(2).view(2, B, N, 8), pooled(x))


def test_feature_vectors_are_cut_into_patches():
    splitting, x = _made(4, 6, 2, n_dims=1, n_steps=3, pool=False), _randn(B, N, 18)
    patches = torch.zeros(B * N, 4, 5, dtype=x.dtype)
    for i in range(18):
        patches[:, i % 4, i // 4] = x.flatten(0, 1)[:, i]
    torch.testing.assert_close(splitting(x), _by_hand(splitting, patches, 3).mT)
    assert splitting(x).shape == (3, B * N, 2, 6)
    assert _made(4, 6, 2, n_dims=1)(x).shape == (4, B, N, 6)


@pytest.mark.parametrize(("n_dims", "shape"), [(1, (B, N, 18)), (2, (B, N, 4, 6, 6))])
@pytest.mark.parametrize("settings", [{}, {"bits": 4}, {"neuron": lambda v_threshold: Multispike()}])
def test_gradients_reach_all_weights(n_dims, shape, settings):
    splitting, x = _made(4, 8, 2, n_dims=n_dims, **settings), _randn(*shape).requires_grad_()
    found = splitting(x)
    (found * _randn(*found.shape, seed=3)).sum().backward()
    for name, parameter in splitting.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    assert x.grad.abs().max() > 0


def test_each_spot_by_itself_in_any_order():
    splitting, x = _made(3, 8, 2), _randn(B, N, 3, 8, 8)
    splitting(x)
    splitting.eval()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(splitting(x[:, order]), splitting(x)[:, :, order])
    torch.testing.assert_close(splitting(x[1:, 2:3]), splitting(x)[:, 1:, 2:3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_features": 6, "n_stages": 3}, "`n_features` must be a multiple of 4 for 3 stages, found 6"),
        ({"n_inputs": 0}, "`n_inputs` must be at least 1, found 0"),
        ({"n_steps": 0}, "`n_steps` must be at least 1, found 0"),
        ({"n_dims": 3}, "`n_dims` must be 1 or 2, found 3"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SpikingPatchSplitting(**{"n_inputs": 3, "n_features": 8, **arguments})


@pytest.mark.parametrize(
    ("n_dims", "shape", "message"),
    [
        (2, (B, N, 4, 8, 8), r"Expected images \(sets, spots, 3, height, width\), found \(2, 5, 4, 8, 8\)"),
        (2, (B, N, 9), "Expected images"),
        (1, (B, N, 3, 8), r"Expected feature vectors .* found \(2, 5, 3, 8\)"),
    ],
)
def test_bad_input(n_dims, shape, message):
    with pytest.raises(ValueError, match=message):
        SpikingPatchSplitting(3, 8, n_dims=n_dims)(torch.zeros(shape))


# ------------------------------------------------------------------- encoding


def test_encoding_by_hand():
    encoding = SpikingEncoding(7, 6, 5).double()
    encoding.layer.norm.weight.data.fill_(2.0)
    x = _randn(B, N, 7)
    z = x @ encoding.layer.linear.weight.T
    currents = 2.0 * (z - z.mean((0, 1))) / z.var((0, 1), correction=0).add(1e-5).sqrt()
    found = encoding(x)
    assert found.shape == (5, B, N, 6)
    torch.testing.assert_close(found, LIFNode(tau=2.0)(torch.stack([currents] * 5)))
    plain = SpikingEncoding(7, 6, 5, neuron=None).double()
    plain.load_state_dict(encoding.state_dict())
    torch.testing.assert_close(plain(x)[3], currents)
    assert torch.equal(plain(x)[0], plain(x)[4])


def test_larger_numbers_fire_more_often():
    encoding = SpikingEncoding(1, 1, 20).double().eval()
    encoding.layer.linear.weight.data.fill_(1.0)
    rates = encoding(torch.linspace(-1, 6, 50, dtype=torch.float64).view(1, -1, 1)).mean(0).flatten()
    assert (rates.diff() >= 0).all()
    assert rates[0] == 0
    assert rates[-1] == 1


def test_bad_number_of_steps():
    with pytest.raises(ValueError, match="`n_steps` must be at least 1, found 0"):
        SpikingEncoding(3, 4, 0)
