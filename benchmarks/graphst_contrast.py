"""What the contrastive loss of GraphST adds: labels found by a linear probe, and reconstruction. See README.md."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import _graphst
from _data import TRUTH, read
from _runs import Runs, in_a_process
from domains import quiet
from tables import RESULTS, print_tables

from stomics_tools.metrics import score_labels
from stomics_tools.tl import evaluate_reconstruction, evaluate_representation, spatial_domains

DEFAULT_OUT = RESULTS / "graphst_contrast.csv"
COLUMNS = ("macro_f1", "ari", "pcc_held_out", "mse_held_out", "variance_held_out")
DATA = ("151673", "151675", "starmap_BZ5", "starmap_BZ9", "starmap_BZ14", "starmap_vc", "osmfish")
PUBLISHED = {"preset": "dense"}
ARMS: dict[str, tuple[bool, dict[str, Any]]] = {  # whether the published preparation, and the arguments
    "reconstruction alone": (False, {"contrast_weight": 0.0}),
    "bce 10, 0.1": (False, {}),
    "bce 10, 0.1, weight decay": (False, {"train": {"weight_decay": 1e-3}}),
    "bce 10, 1": (False, {"contrast_weight": 1.0}),
    "pairwise 1, 0.5": (False, {"contrast": "pairwise", "reconstruction_weight": 1.0, "contrast_weight": 0.5}),
    "infonce 1, 0.5": (False, {"contrast": "infonce", "reconstruction_weight": 1.0, "contrast_weight": 0.5}),
    "published, reconstruction alone": (True, {**PUBLISHED, "contrast_weight": 0.0}),
    "published": (True, PUBLISHED),
}


def evaluate(dataset: str, arm: str, seed: int, held_out: bool) -> dict[str, float]:
    mdata = read(dataset)
    published, arguments = ARMS[arm]
    adata = _graphst.counts_of(mdata)
    adata.obs[TRUTH] = mdata.obs[TRUTH].to_numpy()
    if published:
        adata = _graphst.published_expression(adata)
    model = _graphst.trained(adata, seed, **arguments)
    adata.obsm["z"] = model.get_latent_representation()
    probe = evaluate_representation(adata, TRUTH, use_rep="z", seeds=[seed]).iloc[0]
    spatial_domains(adata, adata.obs[TRUTH].nunique(), use_rep="z", seed=seed)
    found = {
        "macro_f1": probe["macro_f1"],
        "ari": score_labels(adata.obs[TRUTH], adata.obs["spatial_domain"])["ari"],
    }
    if held_out:
        table = evaluate_reconstruction(adata, {"it": arguments}, seeds=[seed], n_folds=2)
        found |= {f"{name}_held_out": table[name].mean() for name in ("pcc", "mse", "variance")}
    return found


def run(out: Path, dataset: str, arm: str, seed: int, held_out: bool) -> None:
    Runs(out, COLUMNS).run(dataset, arm, seed, partial(evaluate, dataset, arm, seed, held_out))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--no-held-out", action="store_true", help="no reconstruction of tissue held out")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    arguments = parser.parse_args()
    quiet()
    runs = Runs(arguments.out, COLUMNS)
    for seed in range(arguments.seeds):
        for dataset in arguments.data:
            for arm in arguments.arms:
                if not runs.has(dataset, arm, seed):
                    in_a_process(run, arguments.out, dataset, arm, seed, not arguments.no_held_out)
    print_tables(arguments.out, COLUMNS)


if __name__ == "__main__":
    main()
