"""The trained layers in their forms for inference: folded, packed, and in bfloat16 for comparison."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from stomics_tools.model.praga_spike._spike_module import SpikeModule
from stomics_tools.nn import Graph, PackedLinear, QuantLinear, fold_all

_BITS = "packed_bits"
"""Buffer of a packed module: the bits of each packed layer, in the order of the layers."""


def is_packed(module: nn.Module) -> bool:
    """Whether the layers were packed by :func:`quantize`."""
    return hasattr(module, _BITS)


def forms_of(layers: nn.ModuleList) -> dict[str, nn.ModuleList]:
    """The trained layers in the forms that can stand in their place.

    Parameters
    ----------
    layers
        Trained layers in evaluation mode; they are not changed.

    Returns
    -------
    ``trained``: these themselves. ``folded``: each linear map one layer, quantized again. ``packed``: the same with
    weights of as many bits as they have; not there if they are of floating point. ``bf16``: folded, not quantized, and
    all but the graph aggregation in bfloat16.
    """
    folded = cast(nn.ModuleList, fold_all(layers))
    forms = {"trained": layers, "folded": folded}
    quantized = [layer for layer in folded.modules() if isinstance(layer, QuantLinear) and layer.bits is not None]
    if quantized:
        forms["packed"] = copy.deepcopy(folded, {id(layer): PackedLinear.of(layer) for layer in quantized})
    forms["bf16"] = nn.ModuleList(_InBfloat16(layer) for layer in folded)
    return forms


class _InBfloat16(nn.Module):
    """A copy of a layer in bfloat16, for which there are no sparse products on a CPU: those stay as they are."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = copy.deepcopy(layer)
        for part in self.layer.modules():
            if isinstance(part, QuantLinear):
                part.quantizer = None
        self.layer.bfloat16()

    def forward(self, membrane: Tensor, graph: Graph, weight: Tensor, segments: Tensor) -> Tensor:
        """Membrane to membrane, both in their own dtype."""

        def aggregate(x: Tensor, weight: Tensor) -> Tensor:
            return graph(x.to(weight), weight).to(x)

        return self.layer(membrane.bfloat16(), aggregate, weight, segments).to(membrane)


@torch.no_grad()
def compare_forms(
    module: SpikeModule, forms: Mapping[str, nn.ModuleList], latent: Callable[[], Tensor], n_repeats: int
) -> pd.DataFrame:
    """Size, time and latent of a module with its layers in several forms.

    Parameters
    ----------
    module
        Evaluated with each of the forms in the place of its layers, then left as it was.
    forms
        Layers by name, the trained ones as ``trained``.
    latent
        Latent of `module` ``(n_obs, n_latent)``.
    n_repeats
        Forward passes of each form that are timed, turn by turn.

    Returns
    -------
    One row a form. ``bytes``: of all parameters and buffers of the layers. ``seconds``: median time of a forward pass
    of the layers. ``max_abs_difference``, ``relative_difference``: of the latent to that of the trained form, the
    largest and the root of the sum of squares over that of the trained latent; the layers count in full, whatever
    their share.
    """
    inputs = _inputs_of_layers(module, latent)
    latents, seconds = {}, {name: np.empty(n_repeats) for name in forms}
    kept, share = module.layers, module.layer_share.clone()
    module.layer_share.fill_(1.0)
    try:
        for name, layers in forms.items():
            module.layers = cast(Any, layers)
            latents[name] = latent()
    finally:
        module.layers = kept
        module.layer_share.copy_(share)
    for repeat in range(n_repeats):
        for name, layers in forms.items():
            seconds[name][repeat] = _time(layers, *inputs)
    trained = latents["trained"]
    size = torch.linalg.vector_norm(trained).clamp(min=torch.finfo(trained.dtype).tiny)
    rows = {
        name: {
            "bytes": sum(x.numel() * x.element_size() for x in layers.state_dict().values()),
            "seconds": float(np.median(seconds[name])),
            "max_abs_difference": float((latents[name] - trained).abs().max()),
            "relative_difference": float(torch.linalg.vector_norm(latents[name] - trained) / size),
        }
        for name, layers in forms.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("form").astype({"bytes": int})


def _inputs_of_layers(module: SpikeModule, run: Callable[[], Tensor]) -> tuple[Any, ...]:
    """What the first layer is called with."""
    seen: list[tuple[Any, ...]] = []
    hook = module.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    try:
        run()
    finally:
        hook.remove()
    return seen[0]


def _time(layers: nn.ModuleList, membrane: Tensor, *others: Any) -> float:
    start = time.perf_counter()
    for layer in layers:
        membrane = layer(membrane, *others)
    membrane[0, 0].item()  # waits for an accelerator
    return time.perf_counter() - start


def quantize(module: SpikeModule, latent: Callable[[], Tensor], n_repeats: int) -> pd.DataFrame:
    """Put the packed form of the layers in their place, and say what that changes, as :func:`compare_forms` does.

    Raises
    ------
    RuntimeError
        If they are packed already.
    ValueError
        If there is nothing to pack.
    """
    if is_packed(module):
        raise RuntimeError("This model is quantized already.")
    if not len(module.layers):
        raise ValueError("`n_layers=0`: there are no layers whose weights could be packed.")
    if module.settings.bits is None:
        raise ValueError(
            "`weight_bits='float'`: there are no integers to pack. Make the model with `weight_bits` from 2 to 8 or "
            "'learned'."
        )
    forms = forms_of(cast(nn.ModuleList, module.layers))
    table = compare_forms(module, forms, latent, n_repeats)
    module.layers = cast(Any, forms["packed"])
    bits = [layer.bits for layer in forms["packed"].modules() if isinstance(layer, PackedLinear)]
    module.register_buffer(_BITS, torch.tensor(bits, dtype=torch.uint8, device=module.gain.device))
    return table


def restore_packed(module: SpikeModule, tensors: Mapping[str, Tensor]) -> None:
    """Make a new module one into which the tensors of a packed one fit; others leave it as it is."""
    if _BITS not in tensors:
        return
    folded = fold_all(cast(nn.ModuleList, module.layers))
    layers = [layer for layer in folded.modules() if isinstance(layer, QuantLinear)]
    packed = {
        id(layer): PackedLinear(layer.in_features, layer.out_features, bits)
        for layer, bits in zip(layers, tensors[_BITS].tolist(), strict=True)
    }
    module.layers = copy.deepcopy(cast(Any, folded), packed)
    module.register_buffer(_BITS, torch.zeros_like(tensors[_BITS]))
