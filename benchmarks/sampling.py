"""What draws of positions cost: by sampler and steps, and by the number of cells. See README.md."""

from __future__ import annotations

import argparse
import logging
import time
from functools import partial
from pathlib import Path

import numpy as np
from _runs import Runs, in_a_process
from _sections import HELD_OUT, SIZE, split, trained
from tables import RESULTS, print_tables

from stomics_tools.datasets import simulate_sections
from stomics_tools.metrics import score_positions
from stomics_tools.model import MaskedDiffusion

DEFAULT_OUT = RESULTS / "sampling.csv"
SCORES = ("distance_spearman", "neighbor_overlap", "gyration_ratio", "sliced_wasserstein")
COLUMNS = (*SCORES, "draw_seconds", "n_steps")
WAYS = {
    f"{sampler} {n_steps}": (sampler, n_steps)
    for sampler, steps in (("dpm++", (5, 10, 20, 50)), ("ddim", (20, 50)), ("ancestral", (20, 100, 1000)))
    for n_steps in steps
}
N_TRAINING, N_GENES = 4000, 60


def by_steps(dataset: str, way: str, seed: int, models: Path | None) -> dict[str, float]:
    """A draw at the temperature of the model, of a held-out section."""
    test = split(dataset)[1]
    model = trained(dataset, seed, models, {})
    sampler, n_steps = WAYS[way]
    start = time.perf_counter()
    draw = model.sample(test, mode="expr_to_pos", sampler=sampler, n_steps=n_steps, temperature=1.0, seed=seed)
    seconds = time.perf_counter() - start
    found = score_positions(np.asarray(test.obsm["spatial"])[:, :2], draw)
    return {**{name: found[name] for name in SCORES}, "draw_seconds": seconds, "n_steps": n_steps}


def by_cells(n_cells: int, n_steps: int, seed: int) -> dict[str, float]:
    """A draw, with the defaults but for the steps, of a simulated section of so many cells."""
    adata = simulate_sections(2, n_cells, N_GENES, seed=seed)
    first = np.flatnonzero(adata.obs["section"] == "section0")[:N_TRAINING]
    training, test = adata[first].copy(), adata[(adata.obs["section"] == "section1").to_numpy()].copy()
    del adata
    MaskedDiffusion.setup_anndata(training)
    model = MaskedDiffusion(training, **SIZE)
    model.train(10, seed=seed, key_added=None, enable_progress_bar=False)
    del test.obsm["tissue"]
    start = time.perf_counter()
    draw = model.sample(test, mode="expr_to_pos", n_steps=n_steps, seed=seed)
    seconds = time.perf_counter() - start
    found = score_positions(np.asarray(test.obsm["spatial"]), draw)
    return {**{name: found[name] for name in SCORES}, "draw_seconds": seconds, "n_steps": n_steps}


def run_steps(out: Path, dataset: str, way: str, seed: int, models: Path | None) -> None:
    Runs(out, COLUMNS).run(dataset, way, seed, partial(by_steps, dataset, way, seed, models))


def run_cells(out: Path, n_cells: int, n_steps: int, seed: int) -> None:
    runs = Runs(out, COLUMNS)
    runs.run(f"{n_cells:,} cells", f"dpm++ {n_steps}", seed, partial(by_cells, n_cells, n_steps, seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="*", choices=HELD_OUT, default=["simulation"])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--cells", nargs="*", type=int, default=[1000, 10_000, 100_000])
    parser.add_argument("--cell-steps", type=int, default=20, help="steps of the draws of many cells")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--models", type=Path, help="folder in which trained models are kept")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    runs = Runs(arguments.out, COLUMNS)
    for seed in range(arguments.seeds):
        for dataset in arguments.data:
            for way in arguments.ways:
                if not runs.has(dataset, way, seed):
                    in_a_process(run_steps, arguments.out, dataset, way, seed, arguments.models)
        for n_cells in arguments.cells:
            if not runs.has(f"{n_cells:,} cells", f"dpm++ {arguments.cell_steps}", seed):
                in_a_process(run_cells, arguments.out, n_cells, arguments.cell_steps, seed)
    print_tables(arguments.out, COLUMNS)


if __name__ == "__main__":
    main()
