"""Training of the small networks among the baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def train_network(
    build: Callable[[], torch.nn.Module],
    forward: Callable[[torch.nn.Module, torch.Tensor], torch.Tensor],
    batches: Callable[[], Iterator[torch.Tensor]],
    targets: np.ndarray,
    *,
    epochs: int,
    lr: float,
    weight_decay: float,
    seed: int,
) -> torch.nn.Module:
    """Build a network and train it on the CPU by the squared error of what was measured (AdamW, one cycle of `lr`).

    Parameters
    ----------
    build
        Makes the network, with weights that follow from `seed`.
    forward
        Network and rows of the training spots to their predictions ``(n_rows, n_genes)``.
    batches
        Makes the rows of each batch of an epoch, in random order.
    targets
        ``(n_obs, n_genes)``; NaN does not count.
    epochs, lr, weight_decay
        Passes over the spots, highest step, decoupled decay of the weights.
    seed
        Of weights, order and dropout. The state of torch's own generator is left as it was.

    Returns
    -------
    The network, in evaluation mode.
    """
    import torch

    from stomics_tools._random import local_seed

    measured = torch.from_numpy(~np.isnan(targets))
    y = torch.from_numpy(np.nan_to_num(targets).astype(np.float32))
    with local_seed(seed):
        network = build().train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=weight_decay)
        steps = epochs * sum(1 for _ in batches())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
        for _ in range(epochs):
            for rows in batches():
                optimizer.zero_grad()
                error = (forward(network, rows) - y[rows]) ** 2 * measured[rows]
                (error.sum() / measured[rows].sum().clamp(min=1)).backward()
                optimizer.step()
                schedule.step()
    return network.eval()
