"""Training on batches of spots."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from stomics_tools.train._plan import Plan

Batch = dict[str, Tensor]


class MiniBatchPlan(Plan):
    """One optimiser step a batch; the learning rate rises over the first tenth of the steps and falls as a cosine.

    Parameters
    ----------
    module, make_optimizer, meta, prefix
        See :class:`Plan`.
    """

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Losses of one step; their means over an epoch are logged by their names."""
        loss, values = self._losses(batch)
        logged = {f"{self._prefix}{name}": value for name, value in values.items()}
        n = len(next(iter(batch.values())))
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=n, sync_dist=True)
        return loss

    def configure_optimizers(self) -> Any:
        """Optimiser and schedule in Lightning's form."""
        optimizer = self._make_optimizer(p for p in self.module.parameters() if p.requires_grad)
        # Steps of this device: there are fewer of them on several devices, and where gradients are accumulated.
        share = partial(_share_of_rate, n_steps=int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _share_of_rate(step: int, n_steps: int) -> float:
    warm = max(n_steps // 10, 1)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * min((step - warm) / max(n_steps - warm, 1), 1.0)))


class _Rows(Dataset):
    """Rows of tensors of the same length, fetched a batch at a time."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def __len__(self) -> int:
        return len(next(iter(self._tensors.values())))

    def __getitems__(self, rows: Sequence[int]) -> Batch:
        index = torch.as_tensor(rows)
        return {name: tensor[index] for name, tensor in self._tensors.items()}


class _Shuffled(DistributedSampler):
    """Numbers below `n` in random order, another one each epoch; several devices take turns at the same order.

    On one device the order follows from torch's generator. On several, where these differ, it is what that of one device
    would be at first; numbers are repeated until all have the same number of them.
    """

    def __init__(self, n: int, seed: int) -> None:
        self._n, self._seed, self.epoch = n, seed, 0

    def __len__(self) -> int:
        return -(-self._n // _turn()[1])

    def __iter__(self) -> Iterator[int]:
        rank, n_devices = _turn()
        generator = torch.Generator()
        if n_devices == 1:
            generator.manual_seed(_draw(None))
        else:
            generator.manual_seed(self._seed)
            drawn = [_draw(generator) for _ in range(self.epoch + 1)]
            generator.manual_seed(drawn[-1])
        order = torch.randperm(self._n, generator=generator)
        total = len(self) * n_devices
        yield from order.repeat(-(-total // self._n))[:total][rank::n_devices].tolist()


def _turn() -> tuple[int, int]:
    """Number of this device, and how many there are."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _draw(generator: torch.Generator | None) -> int:
    return int(torch.empty((), dtype=torch.int64).random_(generator=generator).item())


def row_batches(tensors: Mapping[str, Tensor], batch_size: int, *, seed: int = 0) -> DataLoader:
    """Batches of the same rows of all `tensors`, shuffled anew each epoch by torch's generator.

    On several devices, `batch_size` is that of each, an epoch shows every row to one of them, and the order follows from
    `seed`.
    """
    rows = _Rows(tensors)
    # With a generator of its own, the loader draws no seed for workers from torch's, which a resumed run would not do.
    own = torch.Generator()
    return DataLoader(rows, batch_size, sampler=_Shuffled(len(rows), seed), generator=own, collate_fn=_as_it_is)


def _as_it_is(batch: Any) -> Batch:
    return batch
