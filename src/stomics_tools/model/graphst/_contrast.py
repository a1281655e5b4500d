"""Contrastive losses of spots against their neighbourhoods."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stomics_tools.model.graphst._settings import GraphSTSettings
from stomics_tools.nn import Graph


class Discriminator(nn.Module):
    """How well spots and neighbourhoods belong together, ``D(e, g) = e^T B g + b``.

    Source: Deep Graph Infomax (Velickovic et al., 2019), equation 4; GraphST.
    """

    def __init__(self, n_latent: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, n_latent, n_latent)))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, neighborhood: Tensor) -> Tensor:
        """``B g`` of ``(n, n_latent)``: what a spot is multiplied by."""
        return neighborhood @ self.weight[0].T

    def score(self, spots: Tensor, sought: Tensor) -> Tensor:
        """Logits ``(n,)`` of spots against what :meth:`forward` gave."""
        return (spots * sought).sum(1) + self.bias


def contrast_loss(
    discriminator: Discriminator,
    spots: Tensor,
    corrupted: Tensor,
    around: Tensor,
    around_corrupted: Tensor,
    settings: GraphSTSettings,
) -> Tensor:
    """Loss of both views: each spot with its neighbourhood, against the same spot of the other view.

    Parameters
    ----------
    discriminator
        Scores pairs.
    spots, corrupted
        Spots of the true and of the corrupted view, ``(n, n_latent)``.
    around, around_corrupted
        Neighbourhoods in both.
    settings
        The form of the loss and its numbers.
    """
    total = spots.new_zeros(())
    for own, other, neighborhood in ((spots, corrupted, around), (corrupted, spots, around_corrupted)):
        sought = discriminator(neighborhood)
        if settings.contrast == "infonce":
            total = total + _infonce(own, other, sought, settings)
            continue
        positive, negative = discriminator.score(own, sought), discriminator.score(other, sought)
        if settings.contrast == "pairwise":
            total = total + F.softplus(negative - positive).mean()
        else:
            total = total + (F.softplus(-positive).mean() + F.softplus(negative).mean()) / 2
    return total


def _infonce(own: Tensor, other: Tensor, sought: Tensor, settings: GraphSTSettings) -> Tensor:
    """``-log`` of the share of the own spot among itself, the one of the other view and sampled spots.

    Scores are cosines over the temperature. Sampled are `n_negatives` shifts along a random order of the spots: every
    spot is as often a negative as any other, and none its own.

    Source: van den Oord et al., 2018, equation 4.
    """
    own, other, sought = (F.normalize(x, dim=1) for x in (own, other, sought))
    scores = [(own * sought).sum(1), (other * sought).sum(1)]
    n, m = len(own), min(settings.n_negatives, len(own) - 1)
    if m:
        scores += list(_sampled(n, m, own.device).edge_dots(sought, own).view(n, m).T)
    return (torch.stack(scores).div(settings.temperature).logsumexp(0) - scores[0] / settings.temperature).mean()


def _sampled(n: int, m: int, device: torch.device) -> Graph:
    """`m` other spots of each of `n`, as a graph."""
    order = torch.randperm(n)
    shifts = torch.randperm(n - 1)[:m] + 1
    place = torch.argsort(order)
    col = order[(place[:, None] + shifts) % n].sort(1).values
    return Graph(torch.arange(0, n * m + 1, m), col.flatten()).to(device)
