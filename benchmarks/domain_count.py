"""How many domains are found in simulated slices of 3, 5, 8 and 12.

python benchmarks/domain_count.py [--domains 3 5 8 12] [--seeds 10] [--first-seed 0] [--data default noisy ...]
                                  [--epochs 100] [--out benchmarks/results/domain_count.csv]

Each seed is another slice; the model has its defaults. Prints the numbers found and how many are right within one.
"""

from __future__ import annotations

import argparse
import csv
import logging
import time
import warnings
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _runs import Runs
from sklearn.metrics import adjusted_rand_score

import stomics_tools as st
from stomics_tools.data import spatial_knn
from stomics_tools.model._clusters import find_prototypes

RESULTS = ("true", "found", "ari", "find_seconds")
DATA = {
    "default": {},
    "quiet": {"noise": 0.5},
    "noisy": {"noise": 1.5},
    "small": {"n_obs": 1000},
    "large": {"n_obs": 10_000},
    "cells": {"layout": "cells"},
}


def measure(n_domains: int, seed: int, data: str, method: str, epochs: int | None) -> dict[str, float]:
    mdata = st.datasets.simulate_multiomics(**{"n_obs": 2500, **DATA[data]}, n_domains=n_domains, seed=seed)
    st.pp.rna(mdata["rna"])
    st.pp.protein(mdata["protein"])
    st.model.PRAGASpike.setup_mudata(mdata, modalities={"rna": "X_pca", "protein": "X_protein"})
    model = st.model.PRAGASpike(mdata)
    model.train(**({} if epochs is None else {"max_epochs": epochs}), seed=seed, enable_progress_bar=False)
    latent = model.get_latent_representation()
    graph = spatial_knn(mdata.obsm["spatial"], 6) if method == "graph" else None
    if graph is not None:
        graph.data[:] = 1.0
    start = time.perf_counter()
    labels = find_prototypes(latent, graph=graph)
    return {
        "true": n_domains,
        "found": labels.max() + 1,
        "ari": adjusted_rand_score(mdata.obs["domain"], labels),
        "find_seconds": time.perf_counter() - start,
    }


def report(path: Path) -> None:
    """Numbers found, in the order of the runs, and the share within one of the truth."""
    table = defaultdict(list)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["found"]:
                table[row["dataset"], row["method"]].append((int(row["found"]), int(row["true"]), float(row["ari"])))
    for (dataset, method), rows in table.items():
        hits = np.mean([abs(found - true) <= 1 for found, true, _ in rows])
        ari = np.mean([ari for *_, ari in rows])
        print(f"{dataset:12} {method:6} within one: {hits:4.0%}  ARI {ari:.2f}  found", *(found for found, *_ in rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domains", type=int, nargs="+", default=[3, 5, 8, 12])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--data", nargs="+", choices=DATA, default=["default"])
    parser.add_argument("--method", choices=("graph", "latent"), default="graph", help="with or without neighbours")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "domain_count.csv")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    runs = Runs(args.out, RESULTS)
    for data in args.data:
        for n_domains in args.domains:
            for seed in range(args.first_seed, args.first_seed + args.seeds):
                run = partial(measure, n_domains, seed, data, args.method, args.epochs)
                runs.run(f"{data}_{n_domains}", args.method, seed, run)
    report(args.out)


if __name__ == "__main__":
    main()
