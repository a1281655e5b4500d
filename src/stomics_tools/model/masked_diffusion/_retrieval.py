"""Cells of training that are kept, to be found again by cells alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

MAX_REFERENCES = 8192
_N_ALIKE = 50


class Alike(NamedTuple):
    """Rows of the references most alike, int64 ``(n, k)``, and whether each counts, 0 or 1 ``(n, k)``."""

    rows: Tensor
    counted: Tensor

    def sum(self, values: Tensor) -> Tensor:
        """``(n, width)``, of values ``(n_references, width)``."""
        return embedding_bag(self.rows, values, mode="sum", per_sample_weights=self.counted)

    @property
    def number(self) -> Tensor:
        """How many count, ``(n, 1)``."""
        return self.counted.sum(1, keepdim=True)


class References(nn.Module):
    """Principal components, positions and folds of cells of training.

    Parameters
    ----------
    n_references, n_latent, n_dims
        Sizes.
    """

    scores: Tensor
    position: Tensor
    fold: Tensor

    def __init__(self, n_references: int, n_latent: int, n_dims: int) -> None:
        super().__init__()
        self.register_buffer("scores", torch.zeros(n_references, n_latent))
        self.register_buffer("position", torch.zeros(n_references, n_dims))
        self.register_buffer("fold", torch.zeros(n_references, dtype=torch.int64))

    def keep(self, scores: Tensor, position: Tensor, fold: Tensor) -> None:
        """Keep some of the cells, drawn at random."""
        chosen = torch.randperm(len(scores))[: len(self.scores)]
        self.scores.copy_(scores[chosen])
        self.position.copy_(position[chosen])
        self.fold.copy_(fold[chosen])

    def alike(self, scores: Tensor, told: Callable[[Tensor], Tensor], fold: Tensor | None = None) -> Alike:
        """The cells of training most alike in what is known of both.

        Parameters
        ----------
        scores
            Principal components, as some genes tell them, ``(n, L)``.
        told
            Principal components ``(m, L)`` to what the same genes would tell of them.
        fold
            ``(n,)``: cells of the same fold do not count.
        """
        distance = torch.cdist(scores, told(self.scores))  # at most 8,192 references, and cells by blocks
        if fold is not None:
            distance = distance.masked_fill(self.fold == fold[:, None], torch.inf)
        nearest = distance.topk(min(_N_ALIKE, len(self.scores)), dim=1, largest=False)
        return Alike(nearest.indices, nearest.values.isfinite().to(scores))
