"""Perceptron that sees a summary of the whole slide beside the spot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from sklearn.preprocessing import StandardScaler

from stomics_tools.baselines._base import Baseline
from stomics_tools.baselines._mlp import check_network, perceptron
from stomics_tools.baselines._training import train_network

if TYPE_CHECKING:
    import torch


class MFBP(Baseline):
    """Features of a spot beside an attention-pooled summary of its slide, through a perceptron to the expression.

    The structure of the method known as multi-feature bilinear pooling: attention over the spots of a slide gives one
    vector, which is projected and set beside the features of each spot, and three layers lead to the genes. The slide
    is that of `groups`, in training as in prediction, all spots being one without them. Missing values of genes do not
    count in the squared error.

    Parameters
    ----------
    hidden
        Width of each hidden layer; 2048, 1024 and 512 as published.
    dropout
        Of the hidden layers.
    input_dropout
        Of the features.
    weight_decay
        Decoupled decay (AdamW).
    lr
        Highest step of the one-cycle schedule.
    epochs
        Passes over the training spots.
    batch_size
        Spots a step, all of one slide.
    seed
        Of weights, order and dropout.
    """

    def __init__(
        self,
        hidden: Sequence[int] = (2048, 1024, 512),
        dropout: float = 0.5,
        input_dropout: float = 0.2,
        weight_decay: float = 3.0,
        lr: float = 3e-4,
        epochs: int = 40,
        batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        self.hidden = hidden
        self.dropout = dropout
        self.input_dropout = input_dropout
        self.weight_decay = weight_decay
        self.lr = lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.seed = seed

    def _fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> None:
        import torch

        check_network(self)
        self._scaler = StandardScaler().fit(x)
        features = torch.from_numpy(self._scaler.transform(x).astype(np.float32))
        slide_of = slides(groups, len(x))
        rows_of = [torch.from_numpy(np.flatnonzero(slide_of == slide)) for slide in range(slide_of.max() + 1)]

        def batches() -> Iterator[torch.Tensor]:
            parts = [part for rows in rows_of for part in rows[torch.randperm(len(rows))].split(self.batch_size)]
            yield from (parts[i] for i in torch.randperm(len(parts)).tolist())

        def forward(network: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
            return _forward(network, features[rows], features[rows_of[slide_of[rows[0]]]])

        self._network = train_network(
            lambda: _network(x.shape[1], self.hidden, y.shape[1], self.dropout, self.input_dropout),
            forward,
            batches,
            y - self.mean_,
            epochs=self.epochs,
            lr=self.lr,
            weight_decay=self.weight_decay,
            seed=self.seed,
        )

    def _predict(self, x: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
        import torch

        features = torch.from_numpy(self._scaler.transform(x).astype(np.float32))
        slide_of = slides(groups, len(x))
        out = np.empty((len(x), len(self.mean_)))
        with torch.no_grad():
            for slide in range(slide_of.max() + 1):
                inside = slide_of == slide
                here = features[torch.from_numpy(inside)]
                out[inside] = self.mean_ + _forward(self._network, here, here).numpy()
        return out


def slides(groups: np.ndarray | None, n_obs: int) -> np.ndarray:
    """Number of the slide of each spot ``(n_obs,)``, counted from 0."""
    return np.zeros(n_obs, dtype=np.int64) if groups is None else np.unique(groups, return_inverse=True)[1]


def _network(
    n_features: int, hidden: Sequence[int], n_genes: int, dropout: float, input_dropout: float
) -> torch.nn.Module:
    from torch import nn

    return nn.ModuleDict(
        {
            "score": nn.Sequential(nn.Linear(n_features, 64), nn.Tanh(), nn.Linear(64, 1)),
            "summary": nn.Linear(n_features, n_features),
            "drop": nn.Dropout(input_dropout),
            "mlp": perceptron(2 * n_features, hidden, n_genes, dropout),
        }
    )


def _forward(network: torch.nn.Module, spots: torch.Tensor, slide: torch.Tensor) -> torch.Tensor:
    """Predictions ``(n_spots, n_genes)`` of spots ``(n_spots, n_features)`` of a slide ``(n_all, n_features)``."""
    import torch

    parts = dict(network.named_children())
    pooled = (torch.softmax(parts["score"](slide), dim=0) * slide).sum(dim=0)
    summary = parts["summary"](pooled).expand(len(spots), -1)
    return parts["mlp"](parts["drop"](torch.cat([spots, summary], dim=1)))
