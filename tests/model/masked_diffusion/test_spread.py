from __future__ import annotations

import pytest
import torch
from scipy.stats import wasserstein_distance

from stomics_tools.model.masked_diffusion._spread import spread


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("n_dims", [2, 3])
def test_what_was_only_shrunk_and_moved_comes_back(n_dims):
    tissue = torch.randn(300, n_dims, generator=_generator())
    torch.testing.assert_close(spread(0.3 * tissue + 2, tissue, _generator()), tissue, atol=1e-4, rtol=0)


@pytest.mark.parametrize("n", [250, 1000])
def test_the_density_is_that_of_the_tissue_in_any_direction(n):
    generator = _generator()
    tissue = torch.rand(500, 2, generator=generator) * torch.tensor([3.0, 1.0])
    tissue = tissue[(tissue - torch.tensor([1.0, 0.5])).norm(dim=1) > 0.3]  # a hole
    cells = 0.2 * torch.randn(n, 2, generator=generator) ** 3
    found = spread(cells, tissue, generator)
    for angle in torch.linspace(0, torch.pi, 7):
        way = torch.stack([angle.cos(), angle.sin()])
        assert wasserstein_distance((found @ way).numpy(), (tissue @ way).numpy()) < 0.05
        assert wasserstein_distance((cells @ way).numpy(), (tissue @ way).numpy()) > 0.3


def test_neighbours_stay_neighbours():
    cells = torch.rand(400, 2, generator=_generator()).square()
    found = spread(cells, torch.randn(400, 2, generator=_generator()), _generator())
    near = torch.cdist(cells, cells).topk(11, largest=False).indices[:, 1:]
    then = torch.cdist(found, found).topk(31, largest=False).indices[:, 1:]
    kept = (near[:, :, None] == then[:, None]).any(2).double().mean()
    assert kept > 0.8  # by chance 30 of 399


def test_two_cells_and_no_random_state_of_torch():
    state = torch.get_rng_state()
    found = spread(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.randn(50, 2, generator=_generator()), _generator())
    assert torch.isfinite(found).all()
    assert torch.equal(torch.get_rng_state(), state)
