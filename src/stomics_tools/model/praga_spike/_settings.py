"""Settings of the published model, by the name of the technology."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from stomics_tools import _validate

FeatureWeights = Literal["similarity", "distance", "connectivity"]
Optimizer = Literal["sgd", "adam"]


@dataclass(frozen=True)
class PragaSettings:
    """All numbers of the published model and its training, see :class:`~stomics_tools.model.PRAGASpike`."""

    n_latent: int = 64
    n_spatial_neighbors: int = 6
    n_feature_neighbors: int = 20
    feature_weights: FeatureWeights = "similarity"
    standardize: bool = True
    loss_weights: tuple[float, ...] = (5.0, 5.0)
    homogeneity_weight: float = 1.0
    ema_decay: float = 0.9
    prototype_weight: float = 1.0
    n_prototypes: int = 10
    prototype_start: int = 100
    prototype_every: int = 50
    temperature: float = 2.0
    optimizer: Optimizer = "sgd"
    max_epochs: int = 200
    lr: float = 0.01
    weight_decay: float = 5e-3
    patience: int | None = None
    clip_grad: float | None = None
    scheduler: Literal["cosine", "plateau"] | None = None

    def __post_init__(self) -> None:
        for name in ("n_latent", "n_spatial_neighbors", "n_feature_neighbors", "prototype_every", "max_epochs"):
            _validate.check_integer(getattr(self, name), argument=name)
        _validate.check_integer(self.n_prototypes, argument="n_prototypes", minimum=2)
        _validate.check_integer(self.prototype_start, argument="prototype_start", minimum=0)
        for name in ("homogeneity_weight", "prototype_weight", "weight_decay"):
            _validate.check_number(getattr(self, name), argument=name, low=0)
        for name in ("temperature", "lr"):
            _validate.check_number(getattr(self, name), argument=name, low=0, open_low=True)
        _validate.check_number(self.ema_decay, argument="ema_decay", low=0, high=1)
        _validate.check_option(self.feature_weights, FeatureWeights.__args__, argument="feature_weights")  # type: ignore[attr-defined]
        _validate.check_option(self.standardize, [True, False], argument="standardize")
        _validate.check_option(self.optimizer, Optimizer.__args__, argument="optimizer")  # type: ignore[attr-defined]
        for weight in self.loss_weights:
            _validate.check_number(weight, argument="loss_weights", low=0)

    def weight_of(self, position: int) -> float:
        """Reconstruction weight of a modality: the last one given serves all that follow."""
        return self.loss_weights[min(position, len(self.loss_weights) - 1)]

    def replaced(self, **given: Any) -> PragaSettings:
        """These settings with all that is not None in `given`."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})


_PUBLISHED = PragaSettings(n_spatial_neighbors=3, feature_weights="distance", standardize=False)

# Source: the code published with PRAGA (arXiv 2409.12728): settings by technology and the weights of its run script.
# With 30 epochs, "10x" ends before its prototype loss begins.
PRAGA: dict[str, PragaSettings] = {
    "10x": replace(_PUBLISHED, max_epochs=30),
    "spots": _PUBLISHED,
    "stereo": replace(_PUBLISHED, n_spatial_neighbors=6, max_epochs=300, weight_decay=5e-2),
    "epigenome": replace(
        _PUBLISHED,
        n_spatial_neighbors=6,
        max_epochs=300,
        weight_decay=5e-2,
        loss_weights=(1.0, 10.0),
        prototype_weight=2.0,
        n_prototypes=14,
    ),
    "simulation": replace(
        _PUBLISHED,
        n_latent=128,
        feature_weights="connectivity",
        lr=0.001,
        weight_decay=2e-2,
        loss_weights=(1.0, 3.0),
        n_prototypes=5,
        prototype_every=100,
    ),
}
