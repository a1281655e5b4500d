"""Settings of PRAGASpike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from stomics_tools import _validate

Encoder = Literal["spike", "ssa", "sdt1", "sdt2", "sdt3", "qk_token", "qk_channel", "dssa", "relu"]
Edges = Literal["inductive", "free", "uniform"]
Residual = Literal["membrane", "sew"]
GraphFusion = Literal["attention", "conv"]
WeightBits = int | Literal["learned", "float"]
Optimizer = Literal["sgd", "adam"]
ADDED_ENCODERS: dict[str, Callable[[SpikeSettings], Any]] = {}
"""Attentions of encoders beside those above, by name: see :func:`register_encoder`."""
_STEPPED = ("ssa", "sdt1", "sdt2", "qk_token", "qk_channel", "dssa")  # neurons leak and fire over time steps


@dataclass(frozen=True)
class SpikeSettings:
    """All numbers of the model; their defaults stand in :class:`~stomics_tools.model.PRAGASpike`."""

    n_latent: int
    n_spatial_neighbors: int
    n_feature_neighbors: int
    n_hops: int
    edges: Edges
    encoder: Encoder | str
    residual: Residual
    graph_fusion: GraphFusion
    n_layers: int
    n_heads: int
    n_levels: int
    n_copies: int
    n_steps: int
    use_attention: bool
    attention_windows: tuple[int | None, ...]
    weight_bits: WeightBits
    bit_budget: float
    reparameterize: bool
    use_fusion: bool
    signal_threshold: float
    blind_fraction: float
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
            "n_copies",
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
        _validate.check_number(self.temperature, argument="temperature", low=0, open_low=True)
        _validate.check_number(self.bit_budget, argument="bit_budget", low=2, high=8)
        for name in ("ema_decay", "signal_threshold"):
            _validate.check_number(getattr(self, name), argument=name, low=0, high=1)
        _validate.check_number(self.blind_fraction, argument="blind_fraction", low=0.01, high=0.9)
        _validate.check_option(self.residual, get_args(Residual), argument="residual")
        _validate.check_option(self.graph_fusion, get_args(GraphFusion), argument="graph_fusion")
        _validate.check_option(self.edges, get_args(Edges), argument="edges")
        _validate.check_option(self.encoder, [*get_args(Encoder), *ADDED_ENCODERS], argument="encoder")
        for name in ("use_attention", "reparameterize", "use_fusion"):
            _validate.check_option(getattr(self, name), [True, False], argument=name)
        if self.weight_bits not in ("learned", "float"):
            _validate.check_option(self.weight_bits, [*range(2, 9), "learned", "float"], argument="weight_bits")
        self._check_heads()

    def _check_heads(self) -> None:
        if not self.use_attention or not self.n_layers:
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
    def n_staggered(self) -> int:
        """Neurons of either sign that code a number; ReLU needs no second one."""
        return 1 if self.encoder == "relu" else self.n_copies

    @property
    def bits(self) -> int | Literal["learned"] | None:
        """What the layers of :mod:`stomics_tools.nn` take: None for floating point."""
        return None if self.weight_bits == "float" else self.weight_bits

    @property
    def has_feature_graphs(self) -> bool:
        """Whether there are graphs of similar neighborhoods."""
        return self.use_fusion and self.n_feature_neighbors > 0


def _is_added(settings: SpikeSettings) -> bool:
    return settings.n_layers > 0 and settings.encoder in ADDED_ENCODERS  # which may read any setting


EFFECTS: tuple[_validate.Effect, ...] = (
    (
        ("n_heads", "n_steps", "use_attention", "attention_windows", "reparameterize", "layer_scale", "residual"),
        lambda s: s.n_layers > 0,
        "`n_layers` is above 0",
    ),
    (("n_heads", "attention_windows"), lambda s: s.use_attention, "`use_attention=True`"),
    (
        ("attention_windows",),
        lambda s: _is_added(s) or s.encoder in ("spike", "relu"),
        "`encoder='spike'` or 'relu'",
    ),
    (("n_levels", "n_copies"), lambda s: _is_added(s) or s.encoder != "relu", "`encoder` is another than 'relu'"),
    (
        ("n_steps",),
        lambda s: _is_added(s) or (s.encoder in _STEPPED and s.use_attention),
        f"`encoder` is one of {list(_STEPPED)}, with attention",
    ),
    (("bit_budget",), lambda s: s.weight_bits == "learned", "`weight_bits='learned'`"),
    (("n_feature_neighbors",), lambda s: s.use_fusion, "`use_fusion=True`"),
    (("graph_fusion",), lambda s: s.has_feature_graphs, "`use_fusion=True` and `n_feature_neighbors` is above 0"),
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


def early_stopping_arguments(early_stopping: bool, patience: int, validation_size: float) -> dict[str, Any]:
    """Checked arguments of early stopping, those without effect left out."""
    _validate.check_option(early_stopping, [True, False], argument="early_stopping")
    _validate.check_integer(patience, argument="early_stopping_patience")
    _validate.check_number(validation_size, argument="validation_size", low=0.01, high=0.5)
    if early_stopping:
        return {"early_stopping": True, "early_stopping_patience": patience, "validation_size": validation_size}
    for name, value, default in (
        ("early_stopping_patience", patience, 5),
        ("validation_size", validation_size, 0.1),
    ):
        if value != default:
            raise ValueError(f"`{name}={value}` has no effect with `early_stopping=False`. Leave it out.")
    return {"early_stopping": False}
