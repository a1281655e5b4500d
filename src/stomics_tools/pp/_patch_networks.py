"""Networks that turn patches into features: the user's own, or one of timm or open_clip with the user's weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from stomics_tools._paths import user_path
from stomics_tools.pp._patch_stream import Describe


def resolve_encoder(
    encoder: str | Callable[[torch.Tensor], Any] | None, weights: str | Path | None
) -> tuple[str, Describe]:
    """The name that is recorded of an encoder, and what it computes.

    Parameters
    ----------
    encoder
        A callable, ``"timm:<model>"`` or ``"open_clip:<model>"``.
    weights
        Of the latter two: a file; or ``"pretrained"`` (timm) or a tag (open_clip) for weights that the package knows,
        which it takes from its cache or downloads.

    Raises
    ------
    ImportError
        If the package is not installed.
    TypeError, ValueError
        If it is no encoder, if weights are missing or given to a callable.
    """
    if not isinstance(encoder, str):
        if weights is not None:
            raise ValueError("`weights` are for encoders given by name, 'timm:<model>' or 'open_clip:<model>'.")
        if not callable(encoder):
            raise TypeError(f"`encoder` must be a callable or a name, found {type(encoder).__name__}.")
        name = getattr(encoder, "__name__", type(encoder).__name__)
        return name, lambda patches: encode(encoder, patches, name)
    package, _, model = encoder.partition(":")
    if not model or package not in _LOADERS:
        raise ValueError(f"`encoder` must be 'timm:<model>', 'open_clip:<model>' or a callable, found {encoder!r}.")
    if str(weights).startswith("~"):
        weights = user_path(str(weights))
    network = _LOADERS[package](_installed(package), model, weights)
    return encoder, lambda patches: encode(network, patches, encoder)


def encode(encoder: Callable[[torch.Tensor], Any], patches: np.ndarray, name: str) -> tuple[list[str], np.ndarray]:
    """Features of a batch, of patches ``(n, side, side, 3)``; a network is run where its weights are, in evaluation mode."""
    module = encoder if isinstance(encoder, nn.Module) else nn.Module()
    weight = next(module.parameters(), torch.empty(0))
    images = torch.from_numpy(np.ascontiguousarray(patches.transpose(0, 3, 1, 2))).to(weight)
    with _evaluating(module), torch.inference_mode():
        out = encoder(images)
    values = out.float().cpu().numpy() if isinstance(out, torch.Tensor) else np.asarray(out, dtype=np.float32)
    if values.ndim != 2 or len(values) != len(patches):
        raise ValueError(
            f"`encoder` {name!r} must give features of shape (n, d) for patches of shape (n, 3, height, width), "
            f"found {values.shape} for {tuple(images.shape)}."
        )
    if not np.isfinite(values).all():
        raise ValueError(f"`encoder` {name!r} gave NaN or infinite features.")
    return [str(i) for i in range(values.shape[1])], values


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Within this context a network is in evaluation mode; afterwards every part is as it was."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


class _Normalised(nn.Module):
    """A network behind what it expects of its images: their size, mean and standard deviation."""

    mean: torch.Tensor
    sd: torch.Tensor

    def __init__(
        self, network: nn.Module, method: str, mean: Collection[float], sd: Collection[float], size: tuple[int, int]
    ) -> None:
        super().__init__()
        self.network = network
        self.method = method
        self.size = size
        self.register_buffer("mean", torch.tensor(list(mean))[:, None, None])
        self.register_buffer("sd", torch.tensor(list(sd))[:, None, None])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """``(n, 3, height, width)`` in [0, 1] to ``(n, d)``."""
        images = functional.interpolate(images, self.size, mode="bicubic", antialias=True).clamp(0, 1)
        return getattr(self.network, self.method)((images - self.mean) / self.sd)


def _installed(package: str) -> Any:
    try:
        return import_module(package)
    except ImportError as error:
        raise ImportError(
            f"`encoder='{package}:...'` needs the package {package}, which could not be imported ({error}). "
            "Install it by `pip install 'stomics-tools[histology]'`."
        ) from error


def _timm(timm: Any, model: str, weights: str | Path | None) -> nn.Module:
    known = _known_weights(weights, ["pretrained"])
    overlay = None if known else {"file": str(weights)}
    network = timm.create_model(model, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
    config = timm.data.resolve_model_data_config(network)
    return _Normalised(network, "forward", config["mean"], config["std"], config["input_size"][1:])


def _open_clip(open_clip: Any, model: str, weights: str | Path | None) -> nn.Module:
    _known_weights(weights, open_clip.list_pretrained_tags_by_model(model))
    network = open_clip.create_model(model, pretrained=str(weights))
    visual = network.visual
    return _Normalised(network, "encode_image", visual.image_mean, visual.image_std, visual.image_size)


def _known_weights(weights: str | Path | None, known: list[str]) -> bool:
    """Whether weights are `known` to the package; else they are a file. ``ValueError`` if they are neither."""
    if weights in known:
        return True
    if weights is None or not Path(weights).is_file():
        found = "none" if weights is None else f"{str(weights)!r}, which is neither"
        raise ValueError(f"`weights` must be a file of weights or one of {known}, found {found}.")
    return False


_LOADERS = {"timm": _timm, "open_clip": _open_clip}
