"""How much the layers fire, what their spikes set off, and an estimate of the energy of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd
from torch import nn

from stomics_tools.model.praga_spike._edges import InductiveEdges
from stomics_tools.model.praga_spike._layers import FusionAttention
from stomics_tools.model.praga_spike._spike_module import SpikeModule
from stomics_tools.model.praga_spike._tissue import Tissue
from stomics_tools.nn import SpikeAttention, firing_rates

PJ_PER_MAC = 4.6
PJ_PER_SYNAPTIC_OPERATION = 0.9
_MJ_PER_PJ = 1e-9
_SOURCE = (
    "An estimate, not a measurement: 4.6 pJ a multiply-accumulate of real-valued input, 0.9 pJ an addition set off by "
    "a spike, both of 32-bit floating point at 45 nm (Horowitz, Computing's energy problem, ISSCC 2014)."
)


def count_spikes(module: nn.Module, run: Callable[[], object]) -> pd.DataFrame:
    """What the neurons of a module give out during a run.

    Parameters
    ----------
    module
        Any module.
    run
        Calls it, once or in several parts of the rows.

    Returns
    -------
    One row a layer of neurons, by its name in `module`. ``n_steps``: largest number of binary events of a neuron.
    ``width``: neurons of a row. ``events``: mean number of binary events of a row. ``firing_rate``: the same over the
    largest possible number. ``silent_share``: share of the rows without any.
    """
    with firing_rates(module) as rates:
        run()
    rows = {
        name: {
            "n_steps": found.n_steps,
            "width": found.width,
            "events": found.events,
            "firing_rate": found.rate,
            "silent_share": found.silent_share,
        }
        for name, found in rates.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def driven_maps(module: SpikeModule, tissue: Tissue) -> dict[str, float]:
    """Multiply-accumulates a spot, in floating point, of the linear maps that each layer of neurons drives."""
    settings = module.settings
    n_latent, of_head = settings.n_latent, settings.n_latent // settings.n_heads
    aggregate, perceptron, inputs = _degree(tissue, 0) * n_latent, 2.0 * n_latent**2, 3.0 * n_latent**2
    if settings.encoder == "spikformer":
        product = float(n_latent * of_head)
        of_layer = {"spike": aggregate, "second_spike": perceptron, "mlp.hidden.neuron": perceptron}
        of_attention = {
            "spike": inputs,
            "inner.layers.query.neuron": product,
            "inner.layers.key.neuron": product,
            "inner.layers.value.neuron": 0.0,  # what a key fires adds it
            "inner.attention_neuron": float(n_latent**2),
        }
    else:
        product = n_latent * (of_head + 1.0)
        of_layer = {"spike": aggregate, "second_spike": perceptron, "inner_spike": perceptron}
        of_attention = {
            "spike": inputs,
            "query_spike": product,
            "key_spike": product,
            "value_spike": float(n_latent),
        }
    if settings.attends:
        of_layer |= {f"attention.{name}": macs for name, macs in of_attention.items()}
    return {f"layers.{i}.{name}": macs for i in range(len(module.layers)) for name, macs in of_layer.items()}


def real_maps(module: SpikeModule, tissue: Tissue) -> dict[str, float]:
    """Multiply-accumulates a spot of the linear maps whose input is no spikes."""
    n_latent, n_directions, n_modalities = module.settings.n_latent, module.hops.shape[2], len(tissue.values)
    near = sum(_degree(tissue, i) for i in range(len(tissue.rings)))
    far = sum(_degree(tissue, i) for i in range(len(module.edges))) - near
    fusions = [part for part in module.modules() if isinstance(part, FusionAttention)]
    scored = [(i, part.project) for i, part in enumerate(module.edges) if isinstance(part, InductiveEdges)]
    passes = 2 if scored else 1  # over the rings, the first of them to score the edges
    maps = {
        "encoders": float(sum(weight.numel() for weight in module.encoders)),
        "graphs": (passes * n_modalities * near + far) * n_directions,
        "edges": float(sum(p.weight.numel() + _degree(tissue, i) * p.out_features for i, p in scored)),
        "fusion": float(sum(len(f.bias) * (f.hidden.weight.numel() + len(f.score)) for f in fusions)),
    }
    for i, layer in enumerate(module.layers):
        maps[f"layers.{i}.aggregate"] = float(n_latent**2)
        if isinstance(layer.attention, SpikeAttention):
            maps[f"layers.{i}.attention.project"] = float(n_latent**2)
    return maps


def _degree(tissue: Tissue, i: int) -> float:
    """Mean number of neighbours in a graph, the rings first."""
    return [*tissue.rings, *tissue.alike][i].n_edges / tissue.n_obs


def spike_table(
    spikes: pd.DataFrame, driven: Mapping[str, float], real: Mapping[str, float], n_obs: int
) -> pd.DataFrame:
    """Operations and energy of spikes and real-valued maps.

    Parameters
    ----------
    spikes
        Of :func:`count_spikes`.
    driven
        Multiply-accumulates a spot of what each row of `spikes` drives.
    real
        Multiply-accumulates a spot of all other maps.
    n_obs
        Number of spots.

    Returns
    -------
    Rows of `spikes`, of `real` and ``total``, columns as of :meth:`PRAGASpike.spike_stats`.
    """
    table = spikes[["firing_rate", "silent_share", "events"]].copy()
    table["macs"] = pd.Series(driven, dtype=float).loc[table.index]
    table["synaptic_operations"] = table["firing_rate"] * spikes["n_steps"] * table["macs"]
    table = pd.concat([table, pd.DataFrame({"macs": pd.Series(real, dtype=float)})])
    total = table[["events", "synaptic_operations", "macs"]].sum()
    total["firing_rate"] = total["events"] / (spikes["n_steps"] * spikes["width"]).sum()
    energy = table["synaptic_operations"] * PJ_PER_SYNAPTIC_OPERATION
    energy = energy.fillna(table["macs"] * PJ_PER_MAC)
    table["energy_estimate_mj"] = energy * n_obs * _MJ_PER_PJ
    total["energy_estimate_mj"] = table["energy_estimate_mj"].sum()
    table.loc["total"] = total
    table["floating_energy_estimate_mj"] = table["macs"] * PJ_PER_MAC * n_obs * _MJ_PER_PJ
    table.index.name = "map"
    table.attrs["estimate"] = _SOURCE
    return table


def spike_stats(module: SpikeModule, tissue: Tissue, run: Callable[[], object]) -> pd.DataFrame:
    """The table of a module whose layers `run` calls for all spots of `tissue`.

    Raises
    ------
    ValueError
        If there are no spikes.
    """
    encoder = module.settings.encoder
    if encoder not in ("spike", "spikformer"):
        raise ValueError(
            f"`encoder={encoder!r}`: there are no spikes to count. Make the model with `encoder='spike'` or 'spikformer'."
        )
    if not len(module.layers):
        raise ValueError("`n_layers=0`: there are no layers, hence no spikes to count.")
    spikes = count_spikes(module, run)
    return spike_table(spikes, driven_maps(module, tissue), real_maps(module, tissue), tissue.n_obs)
