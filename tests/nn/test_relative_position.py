from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree

from stomics_tools.nn import LIFNode, SpikingRelativePosition

T, B, C = 3, 2, 5


def _around(xy, k, unit=1.0):
    near = cKDTree(xy).query(xy, k)[1]
    return torch.as_tensor(near), torch.as_tensor((xy[near] - xy[:, None]) / unit)


def _encoding(n_dims=2, neuron=None):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SpikingRelativePosition(C, n_dims, neuron).double()


def _x(n, seed=0):
    return torch.randn(T, B, n, C, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_on_a_square_lattice_it_is_a_convolution_of_each_channel():
    side = 7
    xy = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1).reshape(-1, 2) * 50.0
    encoding, x = _encoding(), _x(side * side)
    found = encoding(x, *_around(xy, 16, unit=50.0))
    image = x.view(T * B, side, side, C).permute(0, 3, 1, 2)
    weight = encoding.kernel.T.reshape(C, 1, 3, 3)
    y = torch.nn.functional.conv2d(image, weight, padding=1, groups=C)
    expected = torch.nn.functional.batch_norm(y, None, None, training=True)
    torch.testing.assert_close(found, expected.permute(0, 2, 3, 1).reshape(T, B, -1, C))


def test_between_the_points_the_kernel_is_interpolated():
    encoding = _encoding().eval()
    x = torch.zeros(1, 1, 2, C, dtype=torch.float64)
    x[0, 0, 1] = 1.0
    offsets = torch.tensor([[[0.0, 0.0], [0.25, -0.5]], [[0.0, 0.0], [-0.25, 0.5]]], dtype=torch.float64)
    found = encoding(x, torch.tensor([[0, 1], [1, 0]]), offsets)[0, 0, 0]
    kernel = dict(zip(map(tuple, encoding.points.tolist()), encoding.kernel, strict=True))
    expected = 0.75 * (0.5 * kernel[0, 0] + 0.5 * kernel[0, -1]) + 0.25 * (0.5 * kernel[1, 0] + 0.5 * kernel[1, -1])
    torch.testing.assert_close(found, expected / (1 + 1e-5) ** 0.5)


def test_moved_spots_and_order_of_rows_do_not_matter():
    xy = np.random.default_rng(0).normal(size=(30, 3)) * 2
    encoding, x = _encoding(3), _x(30)
    found = encoding(x, *_around(xy, 6))
    assert found.std() > 0.5
    torch.testing.assert_close(encoding(x, *_around(xy + 100.0, 6)), found)
    order = np.random.default_rng(1).permutation(30)
    torch.testing.assert_close(encoding(x[:, :, order], *_around(xy[order], 6)), found[:, :, order])


def test_spikes_and_gradients():
    xy = np.random.default_rng(0).normal(size=(20, 2))
    plain, spiking = _encoding(), _encoding(neuron=lambda v_threshold: LIFNode(v_threshold=v_threshold))
    x, around = _x(20).requires_grad_(), _around(xy, 5)
    torch.testing.assert_close(spiking(x, *around), LIFNode()(plain(x, *around)))
    spiking(x, *around).sum().backward()
    assert spiking.kernel.grad.abs().min() > 0
    assert x.grad.abs().max() > 0
