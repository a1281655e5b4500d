"""Parts of MaskedDiffusion on and off, one section of STARmap held out. See README.md."""

from __future__ import annotations

import argparse
import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _runs import Runs, in_a_process
from _sections import SIZE, split, trained
from expression_of_cells import DIFFUSION, diffusion
from tables import RESULTS, print_tables

from stomics_tools.metrics import score_positions
from stomics_tools.model import MaskedDiffusion

DEFAULT_OUT = RESULTS / "diffusion_parts.csv"
DATA = ("starmap_1", "starmap_2", "starmap_3")
COLUMNS = (
    *("distance_spearman", "neighbor_overlap", "pcc_hidden_cells", "pcc_missing_genes"),
    *("share_position", "share_expression", "total", "active", "flops_per_cell"),
)
EXPERTS = {"use_moe": True, "n_hidden": 512}
ARMS: dict[str, dict[str, Any]] = {
    "default": {},
    "closed form alone": {},
    "gate, elementwise": {"use_gated_attention": True},
    "gate, headwise": {"use_gated_attention": True, "gate_type": "headwise"},
    "experts 4-of-2": {**EXPERTS, "num_experts": 4, "moe_top_k": 2},
    "experts 8-of-2": {**EXPERTS, "num_experts": 8, "moe_top_k": 2},
    "gate, experts 8-of-2": {"use_gated_attention": True, **EXPERTS, "num_experts": 8, "moe_top_k": 2},
    "no masking": {"enable_masking": False},
    "default dimensions": {"width": 256, "n_layers": 6, "n_hidden": 2048},
    "self-conditioning": {"self_conditioning": True},
    "poses at random": {"augment_pose": True},
}


def scores(dataset: str, model: MaskedDiffusion, arguments: dict[str, Any], seed: int) -> dict[str, float]:
    test = split(dataset)[1]
    placed = score_positions(
        np.asarray(test.obsm["spatial"])[:, :2], model.consensus(test, n_samples=1, n_steps=1, seed=seed).position
    )
    told = [diffusion(dataset, label, seed, lambda: model)["pcc"] for label in DIFFUSION[:2]]
    cost = MaskedDiffusion.parameter_table({"it": {**SIZE, **arguments}}, n_steps=1).loc["it"]
    return {
        **{name: placed[name] for name in COLUMNS[:2]},
        **dict(zip(COLUMNS[2:4], told, strict=True)),
        **dict(zip(COLUMNS[4:6], model.module.share.tolist(), strict=True)),
        **{name: float(cost[name]) for name in COLUMNS[6:]},
    }


def run(out: Path, dataset: str, arm: str, seed: int, models: Path | None) -> None:
    runs, arguments = Runs(out, COLUMNS), ARMS[arm]

    def evaluate() -> dict[str, float]:
        model = trained(dataset, seed, models if arm == "default" else None, arguments)
        if arm == "default" and not runs.has(dataset, "closed form alone", seed):
            share = model.module.share.clone()
            model.module.share.zero_()
            runs.run(dataset, "closed form alone", seed, partial(scores, dataset, model, arguments, seed))
            model.module.share.copy_(share)
        return scores(dataset, model, arguments, seed)

    runs.run(dataset, arm, seed, evaluate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=[arm for arm in ARMS if arm != "closed form alone"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", type=Path, help="folder where positions.py has kept the models of the defaults")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    runs = Runs(arguments.out, COLUMNS)
    for seed in range(arguments.seeds):
        for dataset in arguments.data:
            for arm in arguments.arms:
                if not runs.has(dataset, arm, seed):
                    in_a_process(run, arguments.out, dataset, arm, seed, arguments.models)
    print_tables(arguments.out, COLUMNS)


if __name__ == "__main__":
    main()
