"""Settings of GraphST."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from stomics_tools import _validate

SelfLoop = Literal["before", "after"]
Corruption = Literal["permutation", "masking", "noise"]
Contrast = Literal["bce", "pairwise", "infonce"]


@dataclass(frozen=True)
class GraphSTSettings:
    """All numbers of the model, see :class:`~stomics_tools.model.GraphST`."""

    n_latent: int = 64
    n_spatial_neighbors: int = 6
    n_hops: int = 3
    self_loop: SelfLoop = "before"
    normalize_output: bool = False
    standardize: bool = True
    orient: bool = True
    dropout: float = 0.0
    tie_weights: bool = False
    corruption: Corruption = "permutation"
    corruption_rate: float = 0.5
    contrast: Contrast = "bce"
    temperature: float = 0.07
    n_negatives: int = 16
    reconstruction_weight: float = 10.0
    contrast_weight: float = 0.1
    max_epochs: int = 200

    def __post_init__(self) -> None:
        for name in ("n_latent", "n_spatial_neighbors", "n_hops", "max_epochs"):
            _validate.check_integer(getattr(self, name), argument=name)
        _validate.check_integer(self.n_negatives, argument="n_negatives", minimum=0)
        for name, options in (("self_loop", SelfLoop), ("corruption", Corruption), ("contrast", Contrast)):
            _validate.check_option(getattr(self, name), get_args(options), argument=name)
        for name in ("normalize_output", "standardize", "orient", "tie_weights"):
            _validate.check_option(getattr(self, name), [True, False], argument=name)
        for name in ("reconstruction_weight", "contrast_weight"):
            _validate.check_number(getattr(self, name), argument=name, low=0)
        if self.reconstruction_weight == self.contrast_weight == 0:
            raise ValueError("`reconstruction_weight` and `contrast_weight` are both 0: nothing would be learned.")
        _validate.check_number(self.temperature, argument="temperature", low=0, open_low=True)
        _validate.check_number(self.dropout, argument="dropout", low=0, high=0.99)
        high = 1.0 if self.corruption == "masking" else float("inf")
        _validate.check_number(self.corruption_rate, argument="corruption_rate", low=0, high=high, open_low=True)


_PUBLISHED = GraphSTSettings(
    n_spatial_neighbors=3,
    n_hops=1,
    self_loop="after",
    standardize=False,
    orient=False,
    contrast_weight=1.0,
    max_epochs=600,
)

# Source: the code published with GraphST (Long et al., Nature Communications 2023): "dense" is what it makes of Visium,
# "sparse" of Stereo-seq and Slide-seq. They differ in the graph and in the output, not only in how they are computed.
PRESETS: dict[str | None, GraphSTSettings] = {
    None: GraphSTSettings(),
    "dense": _PUBLISHED,
    "sparse": replace(_PUBLISHED, self_loop="before", normalize_output=True),
}


_EFFECTS: tuple[_validate.Effect, ...] = (
    (
        ("corruption", "corruption_rate", "contrast", "temperature", "n_negatives"),
        lambda s: s.contrast_weight > 0,
        "`contrast_weight` is above 0",
    ),
    (("corruption_rate",), lambda s: s.corruption != "permutation", "`corruption` is 'masking' or 'noise'"),
    (("temperature", "n_negatives"), lambda s: s.contrast == "infonce", "`contrast='infonce'`"),
)


def resolve(preset: str | None, **given: Any) -> GraphSTSettings:
    """Settings of a preset, with all that is not None in `given` in their place.

    Raises ``ValueError`` for an argument that has no effect beside the others.
    """
    _validate.check_option(preset, list(PRESETS), argument="preset")
    known = {field.name for field in fields(GraphSTSettings)}
    settings = replace(PRESETS[preset], **{n: value for n, value in given.items() if n in known and value is not None})
    _validate.check_effects(given, settings, _EFFECTS)
    return settings
