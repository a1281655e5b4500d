"""Settings of PRAGASpike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from stomics_tools import _validate

Encoder = Literal["spike", "spikformer", "relu", "linear"]
Edges = Literal["inductive", "free", "uniform"]
WeightBits = int | Literal["learned", "float"]
Optimizer = Literal["sgd", "adam"]
ADDED_ENCODERS: dict[str, Callable[[SpikeSettings], Any]] = {}
"""Layers of encoders beside those above, by name: see :func:`register_encoder`."""


@dataclass(frozen=True)
class SpikeSettings:
    """All numbers of the model; their defaults stand in :class:`~stomics_tools.model.PRAGASpike`."""

    n_latent: int
    n_spatial_neighbors: int
    n_feature_neighbors: int
    n_hops: int
    edges: Edges
    encoder: Encoder | str
    n_layers: int
    n_heads: int
    n_levels: int
    n_steps: int
    use_attention: bool
    attention_windows: tuple[int | None, ...]
    weight_bits: WeightBits
    bit_budget: float
    reparameterize: bool
    use_fusion: bool
    signal_threshold: float
    hidden_share: float
    layer_scale: float
    homogeneity_weight: float
    ema_decay: float
    prototype_weight: float
    n_prototypes: int | None
    prototype_start: int
    prototype_every: int
    temperature: float
    distill_weight: float

    def __post_init__(self) -> None:
        for name in (
            "n_latent",
            "n_spatial_neighbors",
            "n_hops",
            "n_heads",
            "n_steps",
            "prototype_every",
        ):
            _validate.check_integer(getattr(self, name), argument=name)
        for name in ("n_feature_neighbors", "n_layers", "prototype_start"):
            _validate.check_integer(getattr(self, name), argument=name, minimum=0)
        for name in ("n_levels", "n_prototypes"):
            if getattr(self, name) is not None:
                _validate.check_integer(getattr(self, name), argument=name, minimum=2)
        for name in ("homogeneity_weight", "prototype_weight", "distill_weight", "layer_scale"):
            _validate.check_number(getattr(self, name), argument=name, low=0)
        for name in ("temperature", "bit_budget"):
            _validate.check_number(getattr(self, name), argument=name, low=0, open_low=True)
        for name in ("ema_decay", "signal_threshold"):
            _validate.check_number(getattr(self, name), argument=name, low=0, high=1)
        _validate.check_number(self.hidden_share, argument="hidden_share", low=0.01, high=0.9)
        _validate.check_option(self.edges, get_args(Edges), argument="edges")
        _validate.check_option(self.encoder, [*get_args(Encoder), *ADDED_ENCODERS], argument="encoder")
        for name in ("use_attention", "reparameterize", "use_fusion"):
            _validate.check_option(getattr(self, name), [True, False], argument=name)
        if self.weight_bits not in ("learned", "float"):
            _validate.check_option(self.weight_bits, [*range(2, 9), "learned", "float"], argument="weight_bits")
        self._check_heads()

    def _check_heads(self) -> None:
        if not self.attends:
            return
        if self.n_latent % self.n_heads:
            raise ValueError(f"`n_latent={self.n_latent}` must be a multiple of `n_heads={self.n_heads}`.")
        if not self.attention_windows or self.n_heads % len(self.attention_windows):
            raise ValueError(
                f"`n_heads={self.n_heads}` must be a multiple of the {len(self.attention_windows)} scales of "
                "`attention_windows`."
            )
        for window in self.attention_windows:
            if window is not None:
                _validate.check_integer(window, argument="attention_windows")

    @property
    def attends(self) -> bool:
        """Whether there is attention: it is no linear map."""
        return self.use_attention and self.encoder != "linear"

    @property
    def bits(self) -> int | Literal["learned"] | None:
        """What the layers of :mod:`stomics_tools.nn` take: None for floating point."""
        return None if self.weight_bits == "float" else self.weight_bits

    @property
    def feature_graphs(self) -> bool:
        """Whether there are graphs of similar neighborhoods."""
        return self.use_fusion and self.n_feature_neighbors > 0


def _is_added(settings: SpikeSettings) -> bool:
    return settings.n_layers > 0 and settings.encoder in ADDED_ENCODERS  # which may read any setting


EFFECTS: tuple[_validate.Effect, ...] = (
    (
        ("encoder", "n_heads", "n_levels", "n_steps", "use_attention", "attention_windows", "weight_bits", "bit_budget")
        + ("reparameterize", "layer_scale"),
        lambda s: s.n_layers > 0,
        "`n_layers` is above 0",
    ),
    (("use_attention",), lambda s: _is_added(s) or s.encoder != "linear", "`encoder` is another than 'linear'"),
    (
        ("n_heads", "attention_windows"),
        lambda s: _is_added(s) or s.attends,
        "there is attention (`use_attention=True`, and another `encoder` than 'linear')",
    ),
    (
        ("attention_windows", "reparameterize"),
        lambda s: s.encoder != "spikformer",
        "`encoder` is another than 'spikformer'",
    ),
    (("n_levels",), lambda s: _is_added(s) or s.encoder == "spike", "`encoder='spike'`"),
    (("n_steps",), lambda s: _is_added(s) or s.encoder == "spikformer", "`encoder='spikformer'`"),
    (("bit_budget",), lambda s: s.weight_bits == "learned", "`weight_bits='learned'`"),
    (("n_feature_neighbors",), lambda s: s.use_fusion, "`use_fusion=True`"),
    (("homogeneity_weight",), lambda s: s.edges != "uniform", "`edges` is another than 'uniform'"),
    (
        ("ema_decay",),
        lambda s: s.homogeneity_weight > 0 and s.edges != "uniform",
        "`homogeneity_weight` is above 0 and `edges` another than 'uniform'",
    ),
    (
        ("prototype_start", "prototype_every", "temperature"),
        lambda s: s.prototype_weight > 0,
        "`prototype_weight` is above 0",
    ),
)
