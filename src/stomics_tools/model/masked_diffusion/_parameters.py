"""What configurations of the network cost, counted and timed on the network itself."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stomics_tools._random import local_seed, seed_generators
from stomics_tools.model.masked_diffusion._network import Cells, DiffusionTransformer
from stomics_tools.model.masked_diffusion._settings import DiffusionSettings
from stomics_tools.nn import MixtureOfExperts

CONFIGS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "gated": {"use_gated_attention": True},
    "moe 4-of-2": {"use_moe": True, "num_experts": 4, "moe_top_k": 2},
    "moe 8-of-2": {"use_moe": True, "num_experts": 8, "moe_top_k": 2},
    "moe 16-of-4": {"use_moe": True, "num_experts": 16, "moe_top_k": 4},
    "gated, moe 8-of-2": {"use_gated_attention": True, "use_moe": True, "num_experts": 8, "moe_top_k": 2},
}


def parameter_table(
    configs: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    n_cells: int = 1024,
    n_steps: int = 3,
    n_dims: int = 2,
    seed: int = 0,
) -> pd.DataFrame:
    """Parameters, floating-point operations and time of the networks of some configurations.

    Parameters
    ----------
    configs
        Arguments of :class:`~stomics_tools.model.MaskedDiffusion` by name. Default: without and with a gate and
        mixtures of experts.
    n_cells
        Cells of a set.
    n_steps
        Forward and backward passes that are timed, after one that is not; the fastest counts.
    n_dims
        Of positions.
    seed
        Of weights and cells.

    Returns
    -------
    A row a configuration: ``total`` and ``active`` parameters (those that one cell meets), ``flops_per_cell`` of a forward
    pass (two a multiplication and addition), ``seconds_per_step``, on this machine.
    """
    rows = {}
    with local_seed(seed):
        for name, arguments in (CONFIGS if configs is None else configs).items():
            seed_generators(seed)
            settings = DiffusionSettings(**arguments)
            network = DiffusionTransformer(settings, n_dims, settings.n_latent)
            cells = _cells(settings, n_cells, n_dims)
            rows[name] = {
                "total": sum(p.numel() for p in network.parameters()),
                "active": _active(network),
                "flops_per_cell": _flops(network, cells) / n_cells,
                "seconds_per_step": min(_seconds(network, cells) for _ in range(n_steps + 1)),
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def _active(network: nn.Module) -> int:
    idle = [
        sum(p.numel() for p in part.parameters()) - part.n_parameters_active()
        for part in network.modules()
        if isinstance(part, MixtureOfExperts)
    ]
    return sum(p.numel() for p in network.parameters()) - sum(idle)


def _flops(network: DiffusionTransformer, cells: Cells) -> int:
    # Only the plain form of attention is made of operations that are counted.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(cells)
    return counter.get_total_flops()


def _seconds(network: DiffusionTransformer, cells: Cells) -> float:
    start = time.perf_counter()
    found = network(cells)
    (found.position.square().mean() + found.expression.square().mean() + found.router.balance).backward()
    return time.perf_counter() - start


def _cells(settings: DiffusionSettings, n: int, n_dims: int) -> Cells:
    position, latent = torch.randn(1, n, n_dims), torch.randn(1, n, settings.n_latent)
    time_ = torch.stack([torch.full((1, n), 0.5), torch.zeros(1, n)], dim=-1)
    return Cells(
        position,
        latent,
        time_,
        position,
        torch.ones_like(position),
        latent,
        torch.ones_like(latent),
        torch.randn(1, n, 3 * settings.n_latent),
        torch.ones(1, n, 3),
        torch.randn(1, n, n_dims + settings.n_latent),
        None,
    )
