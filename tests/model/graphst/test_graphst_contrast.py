"""Contrastive losses against loops over the spots."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from stomics_tools.model.graphst._contrast import Discriminator, _sampled, contrast_loss
from stomics_tools.model.graphst._settings import GraphSTSettings

N, D = 12, 4


@pytest.fixture
def views() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(N, D, generator=generator, dtype=torch.float64) for _ in range(4)]


@pytest.fixture
def discriminator() -> Discriminator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = Discriminator(D).double()
    found.bias.data.fill_(0.3)
    return found


def test_scores_are_those_of_a_bilinear_layer(discriminator: Discriminator, views: list[torch.Tensor]) -> None:
    layer = nn.Bilinear(D, D, 1, dtype=torch.float64)
    layer.weight.data.copy_(discriminator.weight)
    layer.bias.data.copy_(discriminator.bias)
    found = discriminator.score(views[0], discriminator(views[1]))
    torch.testing.assert_close(found, layer(views[0], views[1]).squeeze(1))


def test_pairwise(discriminator: Discriminator, views: list[torch.Tensor]) -> None:
    spots, corrupted, around, around_corrupted = views
    b = discriminator.weight[0].detach()
    expected = 0.0
    for own, other, g in ((spots, corrupted, around), (corrupted, spots, around_corrupted)):
        for i in range(N):
            gap = float(own[i] @ b @ g[i] - other[i] @ b @ g[i])
            expected += math.log1p(math.exp(-gap)) / N
    found = contrast_loss(discriminator, *views, GraphSTSettings(contrast="pairwise"))
    assert found.item() == pytest.approx(expected)


def test_infonce(discriminator: Discriminator, views: list[torch.Tensor]) -> None:
    """With all other spots as negatives, nothing is left to chance."""
    spots, corrupted, around, around_corrupted = views
    b = discriminator.weight[0].detach()

    def cosine(x: torch.Tensor, y: torch.Tensor) -> float:
        return float(x @ y / (x.norm() * y.norm()))

    expected = 0.0
    for own, other, g in ((spots, corrupted, around), (corrupted, spots, around_corrupted)):
        for i in range(N):
            sought = b @ g[i]
            scores = [cosine(own[i], sought), cosine(other[i], sought)]
            scores += [cosine(own[j], sought) for j in range(N) if j != i]
            expected -= math.log(math.exp(scores[0] / 0.2) / sum(math.exp(s / 0.2) for s in scores)) / N
    settings = GraphSTSettings(contrast="infonce", temperature=0.2, n_negatives=100)
    assert contrast_loss(discriminator, *views, settings).item() == pytest.approx(expected)


def test_infonce_without_sampled_spots(discriminator: Discriminator, views: list[torch.Tensor]) -> None:
    settings = GraphSTSettings(contrast="infonce", n_negatives=0)
    one = contrast_loss(discriminator, *views, settings)
    more = contrast_loss(discriminator, *views, GraphSTSettings(contrast="infonce", n_negatives=3))
    assert 0 < one < more


@pytest.mark.parametrize("m", [1, 5, 11])
def test_sampled_negatives(m: int) -> None:
    """Never the spot itself, none twice, each spot as often as any other, and others at another call."""
    torch.manual_seed(0)
    graph, again = _sampled(N, m, torch.device("cpu")), _sampled(N, m, torch.device("cpu"))
    col = graph.col.view(N, m).long()
    assert (col != torch.arange(N)[:, None]).all()
    assert (col.sort(1).values.diff(dim=1) > 0).all()
    assert (torch.bincount(col.flatten(), minlength=N) == m).all()
    assert m == 11 or not torch.equal(col, again.col.view(N, m).long())


@pytest.mark.parametrize("contrast", ["bce", "pairwise", "infonce"])
def test_a_perfect_view_scores_better_than_a_shuffled_one(discriminator: Discriminator, contrast: str) -> None:
    generator = torch.Generator().manual_seed(1)
    discriminator.weight.data.copy_(torch.eye(D)[None])
    around = 3 * torch.randn(200, D, generator=generator, dtype=torch.float64)
    corrupted = 3 * torch.randn(200, D, generator=generator, dtype=torch.float64)
    settings = GraphSTSettings(contrast=contrast)
    right = contrast_loss(discriminator, around, corrupted, around, corrupted, settings)
    wrong = contrast_loss(discriminator, corrupted, around, around, corrupted, settings)
    assert right < wrong
