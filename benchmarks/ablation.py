"""Parts of PRAGASpike, one changed at a time from the default: agreement, error, time and memory. See README.md.

``layer_share`` is what the layers count in the end; ``full_error`` and ``best_error`` are the error of prediction on the
spots held out from training with the layers in full and with that share, over that without them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _runs import Runs, in_a_process
from domains import prepared, quiet, score, train_model
from mudata import MuData
from tables import RESULTS, print_tables

from stomics_tools.model import PRAGASpike

DATA = ("r1", "151673", "starmap_BZ5", "osmfish")
RESULT_COLUMNS = ("ari", "nmi", "reconstruction", "layer_share", "full_error", "best_error", "cpu_seconds")
LAST_EPOCHS = 10

# Name of each change to what it passes to the model; ``max_epochs`` goes to training.
FACTORS: dict[str, Mapping[str, Any]] = {
    "default": {},
    "encoder relu": {"encoder": "relu"},
    "encoder linear": {"encoder": "linear"},
    "encoder spikformer": {"encoder": "spikformer"},
    "no attention": {"use_attention": False},
    "layers 0": {"n_layers": 0},
    "closed form": {"max_epochs": 1},
    "no fusion": {"use_fusion": False},
    "edges free": {"edges": "free"},
    "edges uniform": {"edges": "uniform"},
    "weights float": {"weight_bits": "float"},
    "weights 8 bits": {"weight_bits": 8},
    "weights 2 bits": {"weight_bits": 2},
    "prototypes 0.1": {"prototype_weight": 0.1},
    "epochs 200": {"max_epochs": 200},
    "hops 1": {"n_hops": 1},
    "hops 2": {"n_hops": 2},
    "neighbors 8": {"n_spatial_neighbors": 8},
    "layers 2": {"n_layers": 2},
    "attention of two scales": {"attention_windows": (128, None)},
    "no homogeneity": {"homogeneity_weight": 0.0},
    "second map": {"reparameterize": True},
}


def evaluate(mdata: MuData, arguments: Mapping[str, Any], seed: int) -> dict[str, float]:
    arguments = dict(arguments)
    start = time.process_time()
    model = train_model(PRAGASpike, mdata, seed, arguments.pop("max_epochs", None), **arguments)
    latent = model.get_latent_representation()
    cpu_seconds = time.process_time() - start
    scores = score(mdata, latent, seed)
    reconstruction = model.history["reconstruction_loss"].to_numpy()[-LAST_EPOCHS:].mean()
    return {
        "ari": scores["ari"],
        "nmi": scores["nmi"],
        "reconstruction": float(reconstruction),
        **held_out_errors(model),
        "cpu_seconds": cpu_seconds,
    }


@torch.no_grad()
def held_out_errors(model: PRAGASpike) -> dict[str, float]:
    """What the layers of a model are worth on the spots that it was not trained to predict; nothing without layers."""
    module = model.module
    if not len(module.layers):
        return {}
    tissue, _ = model._inputs(None)
    share, held = model.layer_share, module._held_out(tissue)
    visible = [there * ~held[:, None] for there in tissue.present]
    errors = []
    for each in (0.0, 1.0, share):
        module.layer_share.fill_(each)
        predicted = module.encode(tissue, visible).predicted
        errors.append(float(module._prediction_error(tissue, predicted, held.nonzero()[:, 0])))
    without, full, best = errors
    return {"layer_share": share, "full_error": full / without, "best_error": best / without}


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
