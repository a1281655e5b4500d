"""Options of ``stomics diffusion train`` in sections, and how they map onto the arguments of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

# Spelled out and not read off the model, which would bring torch to every help; a test compares both.
Mode = Literal["joint", "expr_to_pos", "pos_to_expr"]
Kind = Literal["basic", "gated", "moe", "combined", "full"]


@dataclass(frozen=True)
class Network:
    """Network: the transformer, its gates and experts, and the regression that it begins with.

    Parameters
    ----------
    width
        Width of the tokens, a multiple of n_heads.
    n_heads
        Heads of attention.
    n_layers
        Layers.
    n_hidden
        Width of the perceptrons.
    dropout
        Dropout of the transformer.
    n_frequencies
        Waves by which a position is told.
    n_latent
        Principal components of the expression, 64 at most.
    n_read
        Leading components that are read of cells whose expression is known.
    qk_norm
        Normalise queries and keys.
    use_gated_attention
        A sigmoid gate after attention.
    gate_type
        A gate for each number or for each head.
    use_moe
        A mixture of experts in place of the perceptrons.
    num_experts
        Experts of a layer.
    moe_top_k
        Experts that a cell passes through.
    expert_width
        What is as wide as the perceptron: the experts that a cell passes through, or all.
    balance_weight
        Weight of the loss that evens out the load of experts.
    router_z_weight
        Weight of the loss that keeps the router's values small.
    n_neighbors
        Neighbours whose mean expression is read.
    n_members
        Perceptrons of the regression of places on genes.
    n_regression_hidden
        Width of these.
    regression_dropout
        Dropout of these.
    mixup
        Beta parameter of the mixtures of cells that these are trained with.
    """

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
    gate_type: Literal["elementwise", "headwise"] = "elementwise"
    use_moe: bool = False
    num_experts: int = 8
    moe_top_k: int = 2
    expert_width: Literal["same_total", "same_active"] = "same_active"
    balance_weight: float = 0.01
    router_z_weight: float = 0.001
    n_neighbors: int = 30
    n_members: int = 4
    n_regression_hidden: int = 512
    regression_dropout: float = 0.5
    mixup: float = 0.3


@dataclass(frozen=True)
class Diffusion:
    """Diffusion: what is made noisy, how, and what the network predicts.

    Parameters
    ----------
    objective
        Variance-preserving diffusion, or straight lines.
    target
        What the network predicts.
    min_snr
        Largest weight of a signal-to-noise ratio; null for equal weights.
    self_conditioning
        Let the network read what it found a step before.
    diffusion_steps
        Times of the grid.
    augment_pose
        Turn and reflect sets at random.
    n_window
        Cells of a set; up to twice as many are drawn together.
    """

    objective: Literal["diffusion", "flow"] = "diffusion"
    target: Literal["residual", "x0", "v", "eps"] = "residual"
    min_snr: float | None = None
    self_conditioning: bool = False
    diffusion_steps: int = 1000
    augment_pose: bool = False
    n_window: int = 1024


@dataclass(frozen=True)
class Training:
    """Training: how long and how fast.

    Parameters
    ----------
    max_epochs
        Passes over the data.
    batch_size
        Sets of a step.
    lr
        Rate of learning.
    weight_decay
        Decay of the weights.
    ema_decay
        Share of the average of the weights that a step keeps.
    patience
        Stop when the loss has not fallen for so many epochs; null for never.
    clip_grad
        Largest norm of the gradient; null for any.
    seed
        Seed of everything random.
    accelerator
        Of Lightning: auto, cpu, gpu, ...
    checkpoint_every
        Epochs between two checkpoints.
    """

    max_epochs: int = 40
    batch_size: int = 1
    lr: float = 1e-3
    weight_decay: float = 1e-2
    ema_decay: float = 0.995
    patience: int | None = None
    clip_grad: float | None = 1.0
    seed: int = 0
    accelerator: str = "auto"
    checkpoint_every: int = 10


@dataclass(frozen=True)
class Masking:
    """Masking: what is hidden, and given, in training.

    Parameters
    ----------
    enable_masking
        Hide genes, and give positions, in a part of the sets.
    expression_mask_ratio
        Mean share of the genes that is hidden.
    position_mask_ratio
        Least share of the cells whose position is hidden.
    """

    enable_masking: bool = True
    expression_mask_ratio: float = 0.3
    position_mask_ratio: float = 0.33


@dataclass(frozen=True)
class Config:
    """All of them."""

    training_mode: Mode = "joint"
    network: Network = Network()
    diffusion: Diffusion = Diffusion()
    training: Training = Training()
    masking: Masking = Masking()

    @classmethod
    def of_kind(cls, kind: Kind) -> Config:
        """The defaults with a gate (``"gated"``), experts (``"moe"``), both (``"combined"``), and masking (``"full"``)."""
        gated, moe = kind in ("gated", "combined", "full"), kind in ("moe", "combined", "full")
        return cls(
            network=Network(use_gated_attention=gated, use_moe=moe),
            masking=Masking(enable_masking=kind == "full"),
        )

    def model_arguments(self) -> dict[str, Any]:
        """Arguments of the constructor of the model."""
        parts = (self.network, self.diffusion, self.masking)
        return {"training_mode": self.training_mode, **{k: v for part in parts for k, v in asdict(part).items()}}

    def training_arguments(self) -> dict[str, Any]:
        """Arguments of its ``train``."""
        return asdict(self.training)

    def plain(self) -> dict[str, Any]:
        """As in a file of options."""
        return asdict(self)


def resumed(given: Config, before: Mapping[str, Any], others: Mapping[str, Any], origin: Path) -> Config:
    """The options of the run that is resumed.

    Raises ``ValueError`` at the first of those given that is neither a default nor what the run has.
    """
    sections = {"network": Network, "diffusion": Diffusion, "training": Training, "masking": Masking}
    options = Config(before["training_mode"], **{name: section(**before[name]) for name, section in sections.items()})
    default = Config().plain()
    for name, value in given.plain().items():
        pairs = value.items() if isinstance(value, dict) else [(name, value)]
        for key, own in pairs:
            nested = isinstance(value, dict)
            usual = default[name][key] if nested else default[name]
            there = before[name][key] if nested else before[name]
            if own not in (usual, there):
                _refuse(f"{name}.{key}" if nested else name, own, there, origin)
    for name, own in others.items():
        there = before.get(name)
        same = own == there or (isinstance(own, Path) and str(own.resolve()) == there)
        if own is not None and not same and not (name == "logger" and own == "csv"):
            _refuse(name, own, there, origin)
    return options


def _refuse(name: str, own: Any, there: Any, origin: Path) -> None:
    raise ValueError(f"`resume`: '{name}' is {own!r} here, {there!r} in '{origin}'. Leave it out.")
