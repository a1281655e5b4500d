from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stomics_tools.model.var_st._gene_tree import gene_tree
from stomics_tools.model.var_st._linear_start import start_linear
from stomics_tools.model.var_st._vqvae import GeneVQVAE
from stomics_tools.nn import FSQ
from stomics_tools.nn.codes import Quantized


class Exact(nn.Module):
    """Stands for the quantizer or the map to normal numbers, and changes nothing."""

    dim = 4

    def forward(self, z: Tensor) -> Quantized:
        return Quantized(z, torch.zeros(z.shape[:-1], dtype=torch.int64), z.new_zeros(()))

    def inverse(self, z: Tensor) -> Tensor:
        return z


class Unchanged(Exact):
    def forward(self, z: Tensor) -> Tensor:
        return z


def low_rank(n_obs: int = 300, n_genes: int = 30, rank: int = 7) -> np.ndarray:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(n_obs, rank)) * np.linspace(3, 1, rank)
    x = scores @ rng.normal(size=(rank, n_genes)) + 0.8 * rng.normal(size=(n_obs, n_genes))
    return (x - x.mean(axis=0)) / x.std(axis=0)


def started(x: np.ndarray, scales: tuple[int, ...], *, exact: bool) -> GeneVQVAE:
    torch.manual_seed(0)
    tree = gene_tree(x, scales)
    stage1 = GeneVQVAE(torch.as_tensor(tree), FSQ(), width=24, n_components=12, likelihood="normal")
    start_linear(stage1, x, tree)
    if exact:
        stage1.quantizer = Exact()  # type: ignore[assignment]
        stage1.whitening = nn.ModuleList(Unchanged() for _ in scales)
        stage1._spread = lambda values, scale: stage1.scales.up(  # type: ignore[method-assign]
            torch.einsum("btd,tdc->btc", values, stage1.unproject[stage1.scales.slices()[scale]]), scale
        )
    return stage1.double().eval()


def prefixes(stage1: GeneVQVAE, x: np.ndarray) -> list[np.ndarray]:
    profiles = torch.as_tensor(x)
    with torch.no_grad():
        field = stage1.quantize(stage1.encode(profiles, torch.ones_like(profiles)))
        return [stage1.decode(prefix).numpy() for prefix in field.prefixes]


def shrunk_components(x: np.ndarray, n_kept: int, n_found: int = 12) -> np.ndarray:
    """Probabilistic PCA with `n_found` components; the reconstruction from the leading `n_kept`."""
    variance, loadings = np.linalg.eigh(x.T @ x / len(x))
    variance, loadings = variance[::-1], loadings[:, ::-1]
    noise = variance[n_found:].mean()
    share = np.clip(1 - noise / variance, 0, 1)[:n_kept]
    return x @ (loadings[:, :n_kept] * share) @ loadings[:, :n_kept].T


def test_the_coarsest_token_tells_the_leading_components() -> None:
    x = low_rank()
    found = prefixes(started(x, (1, 6, 30), exact=True), x)
    np.testing.assert_allclose(found[0], shrunk_components(x, 4), atol=1e-4)


def test_without_rounding_all_scales_tell_the_profile() -> None:
    x = low_rank()
    found = prefixes(started(x, (1, 6, 30), exact=True), x)
    errors = [np.square(part - x).mean() for part in found]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3


def test_each_scale_tells_more_than_the_same_number_of_components() -> None:
    x = low_rank()
    found = prefixes(started(x, (1, 6, 30), exact=True), x)
    # A gene is told by the four numbers of all genes and the four of its group.
    assert np.square(found[1] - x).mean() < np.square(shrunk_components(x, 4) - x).mean()


@pytest.mark.parametrize("scales", [(1,), (30,), (1, 30), (1, 2, 4, 8)])
@pytest.mark.parametrize("rank", [1, 7])
def test_weights_are_neither_large_nor_broken(scales: tuple[int, ...], rank: int) -> None:
    x = low_rank(rank=rank)
    x[:, 3] = 0  # a gene that is constant
    stage1 = started(x, scales, exact=False)
    np.testing.assert_allclose(stage1.project.norm(dim=1).detach(), 1, atol=1e-6)
    assert float(stage1.unproject.detach().abs().max()) < 40
    assert all(bool(parameter.isfinite().all()) for parameter in stage1.parameters())


def test_memory_does_not_grow_with_the_square_of_the_genes() -> None:
    n_genes = 4000
    x = np.random.default_rng(0).normal(size=(40, n_genes))
    tracemalloc.start()
    stage1 = started(x, (1, 8), exact=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * n_genes**2 / 2
    assert bool(stage1.project.isfinite().all())
