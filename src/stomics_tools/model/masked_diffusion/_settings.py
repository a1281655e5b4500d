"""Dimensions of MaskedDiffusion, and checks of its arguments."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np

from stomics_tools import _validate
from stomics_tools.model.masked_diffusion._schedule import Objective, Target

Mode = Literal["joint", "expr_to_pos", "pos_to_expr"]
GateType = Literal["elementwise", "headwise"]
ExpertWidth = Literal["same_total", "same_active"]
_LARGEST = 1e6


@dataclass(frozen=True)
class DiffusionSettings:
    """All numbers of the model, see :class:`~stomics_tools.model.MaskedDiffusion`."""

    width: int = 256
    n_heads: int = 8
    n_layers: int = 6
    n_hidden: int = 2048
    dropout: float = 0.1
    n_frequencies: int = 4
    n_latent: int = 64
    n_read: int = 10
    qk_norm: bool = True
    use_gated_attention: bool = False
    gate_type: GateType = "elementwise"
    use_moe: bool = False
    num_experts: int = 8
    moe_top_k: int = 2
    expert_width: ExpertWidth = "same_active"
    balance_weight: float = 0.01
    router_z_weight: float = 0.001
    training_mode: Mode = "joint"
    enable_masking: bool = True
    expression_mask_ratio: float = 0.3
    position_mask_ratio: float = 0.33
    objective: Objective = "diffusion"
    target: Target = "residual"
    min_snr: float | None = None
    self_conditioning: bool = False
    diffusion_steps: int = 1000
    augment_pose: bool = False
    n_window: int = 1024
    n_neighbors: int = 30
    n_members: int = 4
    n_regression_hidden: int = 512
    regression_dropout: float = 0.5
    mixup: float = 0.3

    def __post_init__(self) -> None:
        positive = (
            "width",
            "n_heads",
            "n_layers",
            "n_hidden",
            "n_frequencies",
            "n_latent",
            "n_read",
            "num_experts",
            "moe_top_k",
        )
        for name in (*positive, "diffusion_steps", "n_window", "n_neighbors", "n_members", "n_regression_hidden"):
            _validate.check_integer(getattr(self, name), argument=name)
        if self.n_latent > 64:
            raise ValueError(f"`n_latent` must be at most 64, found {self.n_latent}.")
        for name in ("dropout", "regression_dropout"):
            _validate.check_number(getattr(self, name), argument=name, low=0, high=0.95)
        for name in ("expression_mask_ratio", "position_mask_ratio"):
            _validate.check_number(getattr(self, name), argument=name, low=0, high=1, open_low=True)
        for name in ("balance_weight", "router_z_weight", "mixup"):
            _validate.check_number(getattr(self, name), argument=name, low=0, high=_LARGEST)
        if self.min_snr is not None:
            _validate.check_number(self.min_snr, argument="min_snr", low=0, high=_LARGEST, open_low=True)
        for name, options in (
            ("training_mode", Mode),
            ("objective", Objective),
            ("target", Target),
            ("gate_type", GateType),
            ("expert_width", ExpertWidth),
        ):
            _validate.check_option(getattr(self, name), options.__args__, argument=name)  # type: ignore[attr-defined]
        for name in (
            "qk_norm",
            "use_gated_attention",
            "use_moe",
            "enable_masking",
            "self_conditioning",
            "augment_pose",
        ):
            _validate.check_option(getattr(self, name), [True, False], argument=name)
        if self.width % self.n_heads:
            raise ValueError(f"`width` ({self.width}) must be a multiple of `n_heads` ({self.n_heads}).")
        if self.moe_top_k > self.num_experts:
            raise ValueError(f"`moe_top_k` ({self.moe_top_k}) must not be above `num_experts` ({self.num_experts}).")
        parts = self.moe_top_k if self.expert_width == "same_active" else self.num_experts
        if self.use_moe and self.n_hidden % parts:
            raise ValueError(f"`n_hidden` ({self.n_hidden}) must be a multiple of {parts} to be divided among experts.")

    def check_effects(self) -> None:
        """Raise for arguments that another one switches off; those at their defaults are not meant."""
        off = {
            "use_gated_attention=False": (self.use_gated_attention, ["gate_type"]),
            "use_moe=False": (
                self.use_moe,
                ["num_experts", "moe_top_k", "expert_width", "balance_weight", "router_z_weight"],
            ),
            "enable_masking=False": (self.enable_masking, ["expression_mask_ratio", "position_mask_ratio"]),
            "target='residual'": (self.target != "residual", ["min_snr"]),
        }
        defaults = {field.name: field.default for field in fields(self)}
        for cause, (effective, names) in off.items():
            for name in names:
                if not effective and getattr(self, name) != defaults[name]:
                    raise ValueError(f"`{name}={getattr(self, name)!r}` has no effect with `{cause}`. Leave it out.")

    def plain(self) -> dict[str, Any]:
        """As plain values, whatever numpy's types they were given in."""
        return {name: value.item() if isinstance(value, np.generic) else value for name, value in asdict(self).items()}
