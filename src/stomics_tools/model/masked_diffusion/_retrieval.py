"""Cells of training that are kept, to be found again by cells alike."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

MAX_REFERENCES = 8192
_N_AVERAGED = 50


class References(nn.Module):
    """Principal components and positions of cells of training.

    Parameters
    ----------
    n_references, n_latent, n_dims
        Sizes.
    """

    scores: Tensor
    position: Tensor

    def __init__(self, n_references: int, n_latent: int, n_dims: int) -> None:
        super().__init__()
        self.register_buffer("scores", torch.zeros(n_references, n_latent))
        self.register_buffer("position", torch.zeros(n_references, n_dims))

    def keep(self, scores: Tensor, position: Tensor) -> None:
        """Keep some of the cells, drawn at random."""
        chosen = torch.randperm(len(scores))[: len(self.scores)]
        self.scores.copy_(scores[chosen])
        self.position.copy_(position[chosen])

    def mean_scores(self, scores: Tensor, of_references: Callable[[Tensor], Tensor]) -> Tensor:
        """Mean principal components ``(n, L)`` of the cells of training most alike in what is known of both.

        Parameters
        ----------
        scores
            As some genes tell them, ``(n, L)``.
        of_references
            Principal components ``(m, L)`` to what the same genes would tell of them.
        """
        distance = torch.cdist(scores, of_references(self.scores))  # at most 8,192 references, and cells by blocks
        return self.scores[distance.topk(min(_N_AVERAGED, len(self.scores)), dim=1, largest=False).indices].mean(1)
