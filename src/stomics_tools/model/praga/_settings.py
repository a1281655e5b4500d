"""Settings of PRAGA, by the name of the technology."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from stomics_tools import _validate

FeatureWeights = Literal["similarity", "distance", "connectivity"]
Optimizer = Literal["sgd", "adam"]


@dataclass(frozen=True)
class PragaSettings:
    """All numbers of the model and its training, see :class:`~stomics_tools.model.PRAGA`; here those of ``"spots"``."""

    n_latent: int = 64
    n_spatial_neighbors: int = 3
    n_feature_neighbors: int = 20
    feature_weights: FeatureWeights = "distance"
    standardize: bool = False
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

    def __post_init__(self) -> None:
        for name in ("n_latent", "n_spatial_neighbors", "n_feature_neighbors", "prototype_every"):
            _validate.check_integer(getattr(self, name), argument=name)
        _validate.check_integer(self.n_prototypes, argument="n_prototypes", minimum=2)
        _validate.check_integer(self.prototype_start, argument="prototype_start", minimum=0)
        for name in ("homogeneity_weight", "prototype_weight"):
            _validate.check_number(getattr(self, name), argument=name, low=0)
        _validate.check_number(self.temperature, argument="temperature", low=0, open_low=True)
        _validate.check_number(self.ema_decay, argument="ema_decay", low=0, high=1)
        _validate.check_option(self.feature_weights, get_args(FeatureWeights), argument="feature_weights")
        _validate.check_option(self.standardize, [True, False], argument="standardize")

    def loss_weights_of(self, n_modalities: int) -> list[float]:
        """Reconstruction weights of so many modalities: the last one serves all that follow."""
        last = len(self.loss_weights) - 1
        return [self.loss_weights[min(m, last)] for m in range(n_modalities)]


# Source: the code published with PRAGA (arXiv 2409.12728): settings by technology and the weights of its run script.
# With 30 epochs, "10x" ends before its prototype loss begins.
PUBLISHED: dict[str, PragaSettings] = {
    "10x": PragaSettings(max_epochs=30),
    "spots": PragaSettings(),
    "stereo": PragaSettings(n_spatial_neighbors=6, max_epochs=300, weight_decay=5e-2),
    "epigenome": PragaSettings(
        n_spatial_neighbors=6,
        max_epochs=300,
        weight_decay=5e-2,
        loss_weights=(1.0, 10.0),
        prototype_weight=2.0,
        n_prototypes=14,
    ),
    "simulation": PragaSettings(
        n_latent=128,
        feature_weights="connectivity",
        lr=0.001,
        weight_decay=2e-2,
        loss_weights=(1.0, 3.0),
        n_prototypes=5,
        prototype_every=100,
    ),
}

_EFFECTS: tuple[_validate.Effect, ...] = (
    (("ema_decay",), lambda s: s.homogeneity_weight > 0, "`homogeneity_weight` is above 0"),
    (
        ("n_prototypes", "prototype_start", "prototype_every", "temperature"),
        lambda s: s.prototype_weight > 0,
        "`prototype_weight` is above 0",
    ),
)


def resolve(data_type: str, **given: Any) -> PragaSettings:
    """Published settings of a technology, with all that is not None in `given` in their place.

    Raises ``ValueError`` for an argument that has no effect beside the others.
    """
    _validate.check_option(data_type, list(PUBLISHED), argument="data_type")
    names = {field.name for field in fields(PragaSettings)}
    given = {name: value for name, value in given.items() if name in names and value is not None}
    settings = replace(PUBLISHED[data_type], **given)
    _validate.check_effects(given, settings, _EFFECTS)
    return settings
