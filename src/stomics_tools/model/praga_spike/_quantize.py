"""The trained module in its form for inference: maps and normalisations folded into one, weights packed."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from stomics_tools.model.praga_spike._module import SpikeModule
from stomics_tools.nn import PackedLinear, QuantLinear, fold_all

_BITS = "packed_bits"
"""Buffer of a packed module: the bits of each packed layer, in the order of the layers."""


def is_packed(module: nn.Module) -> bool:
    """Whether the weights were packed by :func:`packed`."""
    return hasattr(module, _BITS)


def packed(module: SpikeModule) -> tuple[SpikeModule, SpikeModule]:
    """The module folded, and the same with packed weights; `module` is not changed.

    Raises
    ------
    RuntimeError
        If it is packed already.
    ValueError
        If there is nothing to pack.
    """
    if is_packed(module):
        raise RuntimeError("This model is quantized already.")
    if module.settings.bits is None:
        raise ValueError(
            "`weight_bits='float'`: there are no integers to pack. Make the model with `weight_bits` from 2 to 8 or "
            "'learned'."
        )
    folded: Any = fold_all(module)
    layers = _quantized(folded)
    result = copy.deepcopy(folded, {id(layer): PackedLinear.of(layer) for layer in layers})
    bits = torch.tensor([layer.bits for layer in layers], dtype=torch.uint8, device=module.self_weights.device)
    result.register_buffer(_BITS, bits)
    return folded, result


@torch.no_grad()
def compare_forms(
    forms: Mapping[str, SpikeModule], latent: Callable[[SpikeModule], Tensor], n_repeats: int
) -> pd.DataFrame:
    """Size, time and latent of a module in several forms.

    Parameters
    ----------
    forms
        Modules by name, ``"trained"`` among them.
    latent
        Latent of a module, ``(n_obs, n_latent)``.
    n_repeats
        Passes of each form that are timed, turn by turn.

    Returns
    -------
    One row a form. ``bytes``: of the weights of all linear maps with their normalisations, as they are saved.
    ``seconds``: median time of the latent. ``max_abs_difference``, ``relative_difference``: of the latent to that of the
    trained form, the largest and the root of the sum of squares over that of the trained latent.
    """
    latents = {name: latent(module) for name, module in forms.items()}  # also unpacks the weights
    seconds = {name: np.empty(n_repeats) for name in forms}
    for repeat in range(n_repeats):
        for name, module in forms.items():
            start = time.perf_counter()
            latent(module)[0, 0].item()  # waits for an accelerator
            seconds[name][repeat] = time.perf_counter() - start
    trained = latents["trained"]
    size = torch.linalg.vector_norm(trained).clamp(min=torch.finfo(trained.dtype).tiny)
    rows = {
        name: {
            "bytes": _n_bytes(module),
            "seconds": float(np.median(seconds[name])),
            "max_abs_difference": float((latents[name] - trained).abs().max()),
            "relative_difference": float(torch.linalg.vector_norm(latents[name] - trained) / size),
        }
        for name, module in forms.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("form").astype({"bytes": int})


def restore_packed(module: SpikeModule, tensors: Mapping[str, Tensor]) -> None:
    """Make a new module one into which the tensors of a packed one fit; others leave it as it is."""
    if _BITS not in tensors:
        return
    folded: Any = fold_all(module)
    replaced = {
        id(layer): PackedLinear(layer.in_features, layer.out_features, bits, layer.bias is not None)
        for layer, bits in zip(_quantized(folded), tensors[_BITS].tolist(), strict=True)
    }
    result = copy.deepcopy(folded, replaced)
    result.register_buffer(_BITS, torch.zeros_like(tensors[_BITS]))
    module.__dict__.update(result.__dict__)


def _quantized(module: nn.Module) -> list[QuantLinear]:
    return [layer for layer in module.modules() if isinstance(layer, QuantLinear) and layer.bits is not None]


def _n_bytes(module: nn.Module) -> int:
    """Bytes of the linear maps and normalisations of a module."""
    total = 0
    for layer in module.modules():
        if isinstance(layer, QuantLinear | PackedLinear | nn.BatchNorm1d):
            total += sum(x.numel() * x.element_size() for x in layer.state_dict().values())
    return total
