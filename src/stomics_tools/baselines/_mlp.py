"""Multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from sklearn.preprocessing import StandardScaler

from stomics_tools._validate import check_integer, check_number
from stomics_tools.baselines._base import Baseline
from stomics_tools.baselines._training import train_network

if TYPE_CHECKING:
    import torch


class MLP(Baseline):
    """Perceptron with layer normalisation and dropout, from standardised features to the deviation from the mean.

    Missing values of genes do not count in the squared error that it is trained by. It runs on the CPU.

    Parameters
    ----------
    hidden
        Width of each hidden layer.
    dropout
        Of the hidden layers.
    input_dropout
        Of the features.
    weight_decay
        Decoupled decay (AdamW); large, since there are few spots.
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
        hidden: Sequence[int] = (256, 256),
        dropout: float = 0.5,
        input_dropout: float = 0.2,
        weight_decay: float = 3.0,
        lr: float = 1e-3,
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

        def batches() -> Iterator[torch.Tensor]:
            yield from torch.randperm(len(features)).split(self.batch_size)

        self._network = train_network(
            lambda: torch.nn.Sequential(
                torch.nn.Dropout(self.input_dropout), perceptron(x.shape[1], self.hidden, y.shape[1], self.dropout)
            ),
            lambda network, rows: network(features[rows]),
            batches,
            y - self.mean_,
            epochs=self.epochs,
            lr=self.lr,
            weight_decay=self.weight_decay,
            seed=self.seed,
        )

    def _predict(self, x: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
        import torch

        with torch.no_grad():
            features = torch.from_numpy(self._scaler.transform(x).astype(np.float32))
            return self.mean_ + self._network(features).numpy().astype(np.float64)


def perceptron(n_features: int, hidden: Sequence[int], n_genes: int, dropout: float) -> torch.nn.Module:
    """Linear layers, each but the last with layer normalisation, GELU and dropout; the last one begins at 0."""
    from torch import nn

    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(n_features, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout)]
        n_features = width
    last = nn.Linear(n_features, n_genes)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


def check_network(estimator: Baseline) -> None:
    """Check the arguments that all networks have."""
    values = estimator.get_params()
    for width in values["hidden"]:
        check_integer(width, argument="hidden")
    for name in ("epochs", "batch_size"):
        check_integer(values[name], argument=name)
    check_number(values["lr"], argument="lr", low=0, open_low=True)
    check_number(values["weight_decay"], argument="weight_decay", low=0)
    for name in ("dropout", "input_dropout"):
        check_number(values[name], argument=name, low=0, high=0.99)
