"""Domains of a few hundred spots, from 20 components and from as many as `spatial_domains` takes. See README.md."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from _data import TRUTH
from _runs import Runs
from domains import METHODS, REP, prepared, quiet
from mudata import MuData
from sklearn.metrics import adjusted_rand_score
from tables import RESULTS, print_tables

from stomics_tools.metrics import score_labels
from stomics_tools.tl import spatial_domains

DEFAULT_OUT = RESULTS / "few_spots.csv"
COLUMNS = ("agreement", "ari")
DATA = ("mob", *(f"her2st_{name}" for name in ("A1", "B1", "C1", "D1", "E1", "F1")))
COMPONENTS = {"20 components": 20, "default": None}
REPRESENTATIONS = {"one step": "smooth1_recipe", "two steps": "smooth2_recipe"}


def evaluate(mdata: MuData, n_pcs: int | None, seed: int) -> dict[str, float]:
    """Of two partitions that differ in the seed alone: their agreement, and that of the first with the labels."""
    found = []
    for start in (2 * seed, 2 * seed + 1):
        spatial_domains(mdata, mdata.obs[TRUTH].nunique(), use_rep=REP, n_pcs=n_pcs, seed=start)
        found.append(mdata.obs["spatial_domain"])
    return {
        "agreement": float(adjusted_rand_score(*found)),
        "ari": score_labels(mdata.obs[TRUTH], found[0])["ari"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    arguments = parser.parse_args()
    quiet()
    runs = Runs(arguments.out, COLUMNS)
    for name in arguments.data:
        for label, method_name in REPRESENTATIONS.items():
            method = METHODS[method_name]
            mdata = prepared(name, method.recipe, 0)
            mdata.obsm[REP] = method.fit(mdata, 0, None)
            for components, n_pcs in COMPONENTS.items():
                for seed in range(arguments.seeds):
                    runs.run(f"{name}, {label}", components, seed, partial(evaluate, mdata, n_pcs, seed))
    print_tables(arguments.out, COLUMNS)


if __name__ == "__main__":
    main()
