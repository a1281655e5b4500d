"""How much the neurons of a module fire."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import nan

import torch
from torch import Tensor, nn

from stomics_tools.nn.lif import LIFNode
from stomics_tools.nn.multispike import Multispike


@dataclass
class FiringRate:
    """What the neurons of one layer have given out so far.

    Parameters
    ----------
    n_steps
        Binary events that a neuron can give out at most: time steps, or the largest count of a :class:`Multispike`.
    width
        Neurons of a row, the last axis.
    n_rows
        Rows seen, each over all time steps.
    n_events, n_silent
        Binary events of all of these, and rows without any.
    """

    n_steps: int = 0
    width: int = 0
    n_rows: int = 0
    n_events: float = 0.0
    n_silent: int = 0

    @property
    def events(self) -> float:
        """Mean number of events of a row; 0 if there was no row."""
        return self.n_events / max(self.n_rows, 1)

    @property
    def rate(self) -> float:
        """The same over the largest possible number."""
        return self.events / max(self.n_steps * self.width, 1)

    @property
    def silent_fraction(self) -> float:
        """Fraction of the rows without any event; NaN if there was no row."""
        return self.n_silent / self.n_rows if self.n_rows else nan

    def add(self, events: Tensor, n_steps: int) -> None:
        """Count events ``(..., width)``, summed over the time steps."""
        of_rows = events.sum(-1, dtype=torch.float64)
        self.n_steps, self.width = n_steps, events.shape[-1]
        self.n_rows += of_rows.numel()
        self.n_events += float(of_rows.sum())
        self.n_silent += int((of_rows == 0).sum())


@contextmanager
def firing_rates(module: nn.Module) -> Iterator[Mapping[str, FiringRate]]:
    """Count what every :class:`Multispike` and :class:`LIFNode` of a module gives out within a ``with`` block.

    Parameters
    ----------
    module
        Any module.

    Yields
    ------
    One :class:`FiringRate` a layer of neurons, by its name in `module`, in the order of its layers: those of all calls
    so far, of whatever rows.

    Examples
    --------
    >>> with firing_rates(module) as rates:
    ...     module(x)
    >>> {name: rate.rate for name, rate in rates.items()}
    """
    found = {name: layer for name, layer in module.named_modules() if isinstance(layer, Multispike | LIFNode)}
    rates = {name: FiringRate() for name in found}

    def counter(rate: FiringRate) -> Callable[[nn.Module, object, Tensor], None]:
        def count(layer: nn.Module, _: object, spikes: Tensor) -> None:
            if isinstance(layer, Multispike):
                n_steps = layer.n_levels - 1
                rate.add((spikes.detach() * n_steps).round(), n_steps)
            else:
                rate.add(spikes.detach().sum(0), len(spikes))

        return count

    hooks = [layer.register_forward_hook(counter(rates[name])) for name, layer in found.items()]
    try:
        yield rates
    finally:
        for hook in hooks:
            hook.remove()
