"""Regression from groups of genes to single genes, the next scale from the last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.cluster.hierarchy import cut_tree, linkage
from sklearn.preprocessing import StandardScaler

from stomics_tools._validate import check_integer
from stomics_tools.baselines._base import Baseline
from stomics_tools.baselines._mlp import check_network, perceptron
from stomics_tools.baselines._training import train_network

if TYPE_CHECKING:
    import torch


class NextScale(Baseline):
    """Means of ever smaller groups of genes, each scale from the features and the scale before it; no codes.

    What a next-scale model is without its first stage: groups of genes that vary together (Ward's method) are pooled
    to their mean, and a perceptron a scale tells the next smaller groups, and at last the genes, from the features and
    the groups before. In training these are the true ones, in prediction those just predicted. Missing values of genes
    do not count, neither in the means nor in the squared error.

    Parameters
    ----------
    scales
        Numbers of groups before the genes themselves, ascending; those that are not below the number of genes are left
        out.
    hidden
        Width of each hidden layer of a scale.
    dropout
        Of the hidden layers.
    input_dropout
        Of the features and of the groups before.
    weight_decay
        Decoupled decay (AdamW).
    lr
        Highest step of the one-cycle schedule.
    epochs
        Passes over the training spots.
    batch_size
        Spots a step.
    seed
        Of weights, order and dropout.
    """

    def __init__(
        self,
        scales: Sequence[int] = (1, 8, 32),
        hidden: Sequence[int] = (256, 256),
        dropout: float = 0.5,
        input_dropout: float = 0.2,
        weight_decay: float = 3.0,
        lr: float = 1e-3,
        epochs: int = 40,
        batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        self.scales = scales
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
        for scale in self.scales:
            check_integer(scale, argument="scales")
        self._scaler = StandardScaler().fit(x)
        features = torch.from_numpy(self._scaler.transform(x).astype(np.float32))
        deviation = y - self.mean_
        tree = _nested_groups(deviation, [scale for scale in sorted(set(self.scales)) if scale < y.shape[1]])
        self._parents = _parents(tree)
        truth = [_group_means(deviation, labels) for labels in tree]
        known = [torch.from_numpy(np.nan_to_num(scale).astype(np.float32)) for scale in truth]

        def batches() -> Iterator[torch.Tensor]:
            yield from torch.randperm(len(features)).split(self.batch_size)

        def forward(network: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
            return torch.cat(self._scales(network, features[rows], [scale[rows] for scale in known]), dim=1)

        self._network = train_network(
            lambda: torch.nn.ModuleList(
                torch.nn.Sequential(
                    torch.nn.Dropout(self.input_dropout),
                    perceptron(x.shape[1] + n_before, self.hidden, scale.shape[1], self.dropout),
                )
                for n_before, scale in zip([1, *(scale.shape[1] for scale in truth)], truth, strict=False)
            ),
            forward,
            batches,
            np.concatenate(truth, axis=1),
            epochs=self.epochs,
            lr=self.lr,
            weight_decay=self.weight_decay,
            seed=self.seed,
        )

    def _predict(self, x: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
        import torch

        with torch.no_grad():
            features = torch.from_numpy(self._scaler.transform(x).astype(np.float32))
            return self.mean_ + self._scales(self._network, features, None)[-1].numpy().astype(np.float64)

    def _scales(
        self, network: torch.nn.Module, features: torch.Tensor, truth: list[torch.Tensor] | None
    ) -> list[torch.Tensor]:
        """Each scale ``(n_obs, n_groups)`` from the one before: the true one, or without `truth` the predicted one."""
        import torch

        before, found = features.new_zeros(len(features), 1), []
        for number, (layer, parent) in enumerate(zip(network.children(), self._parents, strict=True)):
            predicted = before[:, parent] + layer(torch.cat([features, before], dim=1))
            found.append(predicted)
            before = predicted if truth is None else truth[number]
        return found


def _nested_groups(deviation: np.ndarray, scales: Sequence[int]) -> list[np.ndarray]:
    """Group of each gene at each scale, by Ward's method on standardised genes, and last each gene by itself."""
    n_genes = deviation.shape[1]
    genes = [np.arange(n_genes)]
    if not scales:
        return genes
    filled = np.nan_to_num(deviation)
    standardized = filled / np.maximum(filled.std(axis=0), 1e-12) / np.sqrt(len(filled))
    return [*cut_tree(linkage(standardized.T, method="ward"), n_clusters=list(scales)).T, *genes]


def _parents(tree: list[np.ndarray]) -> list[np.ndarray]:
    """Group of the scale before that holds each group of a scale; the first scale hangs from a single root."""
    parents, coarser = [], np.zeros_like(tree[0])
    for labels in tree:
        parents.append(coarser[np.unique(labels, return_index=True)[1]])
        coarser = labels
    return parents


def _group_means(deviation: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean of the measured genes of each group ``(n_obs, n_groups)``; NaN where none was measured."""
    members = np.eye(labels.max() + 1)[labels]
    measured = ~np.isnan(deviation)
    count = measured @ members
    total = np.nan_to_num(deviation) @ members
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
