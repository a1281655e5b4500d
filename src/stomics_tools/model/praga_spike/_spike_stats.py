"""How much the neurons fire, what their spikes set off, and an estimate of the energy of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor, nn

from stomics_tools.model.praga_spike._inputs import Inputs
from stomics_tools.model.praga_spike._module import SpikeModule
from stomics_tools.nn import PackedLinear, QuantLinear

PJ_PER_MAC = 4.6
PJ_PER_SYNAPTIC_OPERATION = 0.9
_MJ_PER_PJ = 1e-9
_ROUNDING = 1e-3
_SOURCE = (
    "An estimate, not a measurement: 4.6 pJ a multiply-accumulate of real-valued input, 0.9 pJ an addition set off by "
    "a spike, both of 32-bit floating point at 45 nm (Horowitz, Computing's energy problem, ISSCC 2014)."
)


@dataclass
class _Seen:
    """What a linear map has read: rows, binary events, rows without any, the most events a row could have; if spikes."""

    n_rows: int = 0
    n_events: float = 0.0
    n_silent: int = 0
    capacity: int = 0
    is_spikes: bool = True


@contextmanager
def _reading(module: nn.Module, n_levels: int) -> Iterator[dict[str, _Seen]]:
    """Count what every linear map of `module` reads; spikes are 0 to 1 in steps of ``1 / (n_levels - 1)``."""
    maps = {name: part for name, part in module.named_modules() if isinstance(part, QuantLinear | PackedLinear)}
    seen = {name: _Seen() for name in maps}

    def counter(found: _Seen) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def count(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            x = arguments[0].detach()
            counts = x * (n_levels - 1)
            found.is_spikes &= bool(((counts - counts.round()).abs() < _ROUNDING).all())  # not a mean of spikes
            events = counts.round().reshape(-1, x.shape[-1]).double().sum(1)
            found.n_rows += len(events)
            found.n_events += float(events.sum())
            found.n_silent += int((events == 0).sum())
            found.capacity = x.shape[-1] * (n_levels - 1)

        return count

    hooks = [part.register_forward_pre_hook(counter(seen[name])) for name, part in maps.items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def spike_stats(module: SpikeModule, inputs: Inputs, run: Callable[[], object]) -> pd.DataFrame:
    """The table of :meth:`PRAGASpike.spike_stats` for a module that `run` calls once, with all spots of `inputs`.

    Raises
    ------
    ValueError
        If there are no spikes.
    """
    settings = module.settings
    if settings.encoder == "relu":
        raise ValueError("`encoder='relu'`: there are no spikes to count. Make the model with another `encoder`.")
    with _reading(module, settings.n_levels) as seen:
        run()
    rows: dict[str, dict[str, float]] = {}
    for name, found in seen.items():
        if not found.n_rows:  # not passed through, such as the decoder
            continue
        part: Any = module.get_submodule(name)
        passes = found.n_rows / inputs.n_obs
        macs = part.in_features * part.out_features * passes
        if not found.is_spikes:
            rows[name] = {"macs": macs}
            continue
        binary = ".attention.inner." in name  # neurons that fire or do not, over time steps
        events = found.n_events / (settings.n_levels - 1) if binary else found.n_events
        capacity = found.capacity // (settings.n_levels - 1) if binary else found.capacity
        per_row = events / found.n_rows
        rows[name] = {
            "firing_rate": per_row / capacity,
            "silent_fraction": found.n_silent / found.n_rows,
            "events": per_row * passes,
            "macs": macs,
            "synaptic_operations": per_row * passes * part.out_features,
        }
    rows |= _without_maps(module, inputs, rows)
    return _with_energy(pd.DataFrame.from_dict(rows, orient="index"), inputs.n_obs)


def _without_maps(
    module: SpikeModule, inputs: Inputs, rows: dict[str, dict[str, float]]
) -> dict[str, dict[str, float]]:
    """Operations a spot outside of linear maps: sums over graphs, and products of queries, keys and values."""
    settings, d = module.settings, module.n_directions
    degree = [graph.n_edges / inputs.n_obs for graph in (*inputs.rings, *inputs.feature_graphs)]
    n_rings = len(inputs.rings)
    passes = 2 if settings.edges == "inductive" else 1  # over the rings, the first of them to score the edges
    found = {
        "graphs": {"macs": d * (len(inputs.values) * passes * sum(degree[:n_rings]) + sum(degree[n_rings:]))},
    }
    if len(module.blocks):
        found["graphs"]["macs"] += d * degree[0] * len(module.blocks)
    if settings.edges == "inductive":
        found["edges"] = {"macs": sum(part.project.weight.numel() + n * part.project.out_features for part, n in zip(module.edges, degree, strict=True))}  # type: ignore[union-attr, operator, misc]  # fmt: skip
    if settings.use_attention and settings.encoder == "spike":
        width, of_head = settings.n_latent, settings.n_latent // settings.n_heads
        for i in range(len(module.blocks)):
            reads = [row for name, row in rows.items() if name.startswith(f"blocks.{i}.attention.query")]
            rate = float(np.mean([row["firing_rate"] for row in reads])) if reads else float("nan")
            macs = 2.0 * width * (of_head + 1)
            found[f"blocks.{i}.attention.products"] = {
                "macs": macs,
                "synaptic_operations": macs * rate * (settings.n_levels - 1),
            }
    return found


def _with_energy(table: pd.DataFrame, n_obs: int) -> pd.DataFrame:
    """Estimates of energy and the row ``total``."""
    columns = ["firing_rate", "silent_fraction", "events", "macs", "synaptic_operations"]
    table = table.reindex(columns=columns).astype(float)
    energy = table["synaptic_operations"] * PJ_PER_SYNAPTIC_OPERATION
    table["energy_estimate_mj"] = energy.fillna(table["macs"] * PJ_PER_MAC) * n_obs * _MJ_PER_PJ
    table["floating_energy_estimate_mj"] = table["macs"] * PJ_PER_MAC * n_obs * _MJ_PER_PJ
    capacity = (table["events"] / table["firing_rate"].replace(0, np.nan)).sum()
    total = table.sum()
    total["firing_rate"] = table["events"].sum() / capacity if capacity else np.nan
    total["silent_fraction"] = np.nan
    table.loc["total"] = total
    table.index.name = "map"
    table.attrs["estimate"] = _SOURCE
    return table
