"""Dimensions of VARST by name, and checks of its arguments."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from stomics_tools import _validate
from stomics_tools.model.var_st._scales import check_scales
from stomics_tools.nn import FSQ

Quantization = Literal["fsq", "ema", "vq"]
Likelihood = Literal["normal", "nb"]
Head = Literal["factorized", "joint"]
Tree = Literal["correlation", "order"]
Size = Literal["tiny", "small", "paper"]


@dataclass(frozen=True)
class VarSTSettings:
    """All numbers of the model, see :class:`~stomics_tools.model.VARST`."""

    scales: tuple[int, ...] = (1, 8, 32, 200)
    gene_tree: Tree = "correlation"
    quantizer: Quantization = "fsq"
    n_codes: int = 4096
    n_field: int = 128
    n_components: int = 64
    hide_genes: float = 0.5
    likelihood: Likelihood = "normal"
    n_condition: int = 96
    n_heads: int = 4
    n_layers: int = 2
    n_hidden: int = 192
    dropout: float = 0.1
    head: Head | None = None
    label_softness: float = 0.0
    condition_dropout: float = 0.1
    n_members: int = 6
    n_mean_hidden: int = 256
    mean_dropout: float = 0.3
    mixup: float = 2.0
    n_neighbors: int = 0
    use_coordinates: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", check_scales(self.scales))
        for name in ("n_field", "n_components", "n_condition", "n_heads", "n_layers", "n_hidden", "n_members"):
            _validate.check_integer(getattr(self, name), argument=name)
        _validate.check_integer(self.n_mean_hidden, argument="n_mean_hidden")
        _validate.check_integer(self.n_codes, argument="n_codes", minimum=2)
        if self.quantizer == "fsq":
            FSQ.for_vocabulary(self.n_codes)  # raises unless it is a power of two
        _validate.check_integer(self.n_neighbors, argument="n_neighbors", minimum=0)
        for name in ("dropout", "mean_dropout", "condition_dropout", "hide_genes"):
            _validate.check_number(getattr(self, name), argument=name, low=0, high=0.95)
        for name in ("label_softness", "mixup"):
            _validate.check_number(getattr(self, name), argument=name, low=0)
        for name, options in (
            ("gene_tree", Tree),
            ("quantizer", Quantization),
            ("likelihood", Likelihood),
        ):
            _validate.check_option(getattr(self, name), options.__args__, argument=name)  # type: ignore[attr-defined]
        _validate.check_option(self.head, [None, "factorized", "joint"], argument="head")
        _validate.check_option(self.use_coordinates, [True, False], argument="use_coordinates")
        if self.n_components >= self.n_field:
            raise ValueError(
                f"`n_components` ({self.n_components}) must be below `n_field` ({self.n_field}): the rest of the field "
                "tells what a group's own genes do."
            )
        if self.n_condition % self.n_heads:
            raise ValueError(
                f"`n_condition` ({self.n_condition}) must be a multiple of `n_heads` ({self.n_heads}): "
                "the heads divide the width of the transformer among them."
            )
        if self.head == "factorized" and self.quantizer != "fsq":
            raise ValueError(
                f"`head='factorized'` needs `quantizer='fsq'`, whose codes are made of levels; found "
                f"{self.quantizer!r}. Set `head='joint'`."
            )

    @property
    def factorized(self) -> bool:
        """Whether a token has logits of levels, not of codes."""
        return self.quantizer == "fsq" if self.head is None else self.head == "factorized"

    def plain(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "scales": list(self.scales)}


_SIZES: dict[str, VarSTSettings] = {
    "tiny": VarSTSettings(
        n_codes=64, n_field=16, n_components=8, n_condition=16, n_heads=2, n_hidden=32, n_members=2, n_mean_hidden=32
    ),
    "small": VarSTSettings(),
    "paper": VarSTSettings(n_condition=640, n_heads=8, n_layers=12, n_hidden=2560, head="joint", label_softness=0.1),
}


def resolve(size: str, given: dict[str, Any]) -> VarSTSettings:
    """Settings of a size, with all that is not None in `given` in their place."""
    _validate.check_option(size, list(_SIZES), argument="size")
    known = {name: value for name, value in given.items() if value is not None}
    if "quantizer" in known and known["quantizer"] != "fsq" and "head" not in known:
        known["head"] = "joint"
    return replace(_SIZES[size], **known)
