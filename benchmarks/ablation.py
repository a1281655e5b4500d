"""Parts of PRAGASpike, one changed at a time from the default: agreement, error, time and memory. See README.md.

Every trained model is also asked what it owes to its spikes: once with all of them set to zero, once with the weights of
all maps that read spikes drawn anew, and once with those of the blocks alone drawn anew.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _runs import Runs, in_a_process
from domains import prepared, quiet, score, train_model
from mudata import MuData
from scipy.linalg import orthogonal_procrustes
from tables import RESULTS, print_tables
from torch import nn

from stomics_tools.model import PRAGASpike
from stomics_tools.nn import LIFNode, Multispike, QuantLinear

DATA = ("r1", "151673", "starmap_BZ5", "osmfish")
RESULT_COLUMNS = (
    *("ari", "nmi", "validation_error", "epochs", "ari_silent", "ari_redrawn", "change_redrawn"),
    *("ari_blocks_redrawn", "change_blocks_redrawn", "cpu_seconds"),
)
TRAINING = ("max_epochs", "lr", "early_stopping")

# Name of each change to what it passes to the model; what is in TRAINING goes to training.
FACTORS: dict[str, Mapping[str, Any]] = {
    "default": {},
    "untrained": {"max_epochs": 1, "lr": 1e-12},
    "relu": {"encoder": "relu"},
    "relu, weights float": {"encoder": "relu", "weight_bits": "float"},
    "no attention": {"use_attention": False},
    "no blocks": {"n_layers": 0},
    **{f"encoder {name}": {"encoder": name} for name in ("ssa", "sdt1", "sdt2", "sdt3", "qk_token", "qk_channel", "dssa")},
    "residual sew": {"residual": "sew"},
    "graph fusion conv": {"graph_fusion": "conv"},
    "no fusion": {"use_fusion": False},
    "edges free": {"edges": "free"},
    "edges uniform": {"edges": "uniform"},
    "weights float": {"weight_bits": "float"},
    "weights 8 bits": {"weight_bits": 8},
    "weights 2 bits": {"weight_bits": 2},
    "weights learned": {"weight_bits": "learned"},
    "levels 3": {"n_levels": 3},
    "levels 9": {"n_levels": 9},
    "layers 2": {"n_layers": 2},
    "attention of two scales": {"attention_windows": (128, None)},
    "prototypes 0.1": {"prototype_weight": 0.1},
    "all epochs": {"early_stopping": False},
    "hops 1": {"n_hops": 1},
    "hops 2": {"n_hops": 2},
    "neighbors 8": {"n_spatial_neighbors": 8},
    "no homogeneity": {"homogeneity_weight": 0.0},
    "second map": {"reparameterize": True},
}  # fmt: skip


def evaluate(mdata: MuData, arguments: Mapping[str, Any], seed: int) -> dict[str, float]:
    how = {name: value for name, value in arguments.items() if name in TRAINING}
    others = {name: value for name, value in arguments.items() if name not in TRAINING}
    start = time.process_time()
    model = train_model(PRAGASpike, mdata, seed, how.pop("max_epochs", None), how, **others)
    latent = model.get_latent_representation()
    cpu_seconds = time.process_time() - start
    scores = score(mdata, latent, seed)
    validation = model.history.get("validation_loss")
    return {
        "ari": scores["ari"],
        "nmi": scores["nmi"],
        "validation_error": np.nan if validation is None else float(validation.min().iloc[0]),
        "epochs": len(model.history["train_loss"]),
        "ari_silent": ari(mdata, changed(model, silence)[0], seed),
        **_owed(mdata, model, "redrawn", model.module, seed),
        **_owed(mdata, model, "blocks_redrawn", model.module.blocks, seed),
        "cpu_seconds": cpu_seconds,
    }


def _owed(mdata: MuData, model: PRAGASpike, name: str, part: nn.Module, seed: int) -> dict[str, float]:
    """Agreement without what a part has learned, and how far the latent representation moves."""
    if not any(isinstance(layer, QuantLinear) for layer in part.modules()):
        return {}
    blocks = part is model.module.blocks
    latent, change = changed(model, lambda module: redraw(module.blocks if blocks else module, seed))
    return {f"ari_{name}": ari(mdata, latent, seed), f"change_{name}": change}


def changed(model: PRAGASpike, change: Callable[[nn.Module], None]) -> tuple[np.ndarray, float]:
    """Latent representation of a changed copy of a module, and its distance from that of the module.

    The distance is that after the best orthogonal alignment, in units of the norm: 0 if only axes have turned, 1 if the
    representation is zero.
    """
    before, kept = model.get_latent_representation(), model.module
    model.module = copy.deepcopy(kept)
    try:
        change(model.module)
        latent = model.get_latent_representation()
    finally:
        model.module = kept
    turn, _ = orthogonal_procrustes(latent, before)
    return latent, float(np.linalg.norm(latent @ turn - before) / np.linalg.norm(before))


def silence(module: nn.Module) -> None:
    """No neuron fires any more, nor does ReLU let anything through."""
    for part in module.modules():
        if isinstance(part, Multispike | LIFNode | nn.ReLU):
            part.register_forward_hook(lambda _, __, spikes: torch.zeros_like(spikes))


@torch.no_grad()
def redraw(module: nn.Module, seed: int) -> None:
    """Draw the weights of all maps that read spikes anew, with the standard deviation that they had."""
    generator = torch.Generator().manual_seed(seed)
    for name, part in module.named_modules():
        if isinstance(part, QuantLinear) and not name.startswith(("encoders", "decoder")):
            part.weight.copy_(torch.randn(part.weight.shape, generator=generator) * part.weight.std())
            if part.quantizer is not None:
                part.quantizer.refit(part.weight)


def ari(mdata: MuData, latent: np.ndarray, seed: int) -> float:
    """Agreement with the labels; 0 where all spots are the same, which is one domain."""
    return 0.0 if np.ptp(latent, axis=0).max() < 1e-5 else score(mdata, latent, seed)["ari"]


def run_seeds(out: Path, name: str, label: str, seeds: Sequence[int]) -> None:
    runs = Runs(out, RESULT_COLUMNS)
    for seed in seeds:
        mdata = prepared(name, "default", seed)
        runs.run(name, label, seed, partial(evaluate, mdata, FACTORS[label], seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=list(DATA))
    parser.add_argument("--factors", nargs="+", choices=FACTORS, default=list(FACTORS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "ablation.csv")
    arguments = parser.parse_args()
    quiet()
    results = Runs(arguments.out, RESULT_COLUMNS)
    for label in arguments.factors:
        for name in arguments.data:
            seeds = [seed for seed in range(arguments.seeds) if not results.has(name, label, seed)]
            if seeds:
                in_a_process(run_seeds, arguments.out, name, label, seeds)
    print()
    print_tables(arguments.out)


if __name__ == "__main__":
    main()
