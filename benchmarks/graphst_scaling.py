"""Seconds an epoch and peak memory of GraphST, beside the released package while that fits. See README.md.

Every row is measured in a process of its own, on one thread unless OMP_NUM_THREADS says otherwise.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path

import _graphst
import numpy as np
from _runs import Runs, in_a_new_process, peak_mib
from tables import RESULTS, print_tables

DEFAULT_OUT = RESULTS / "graphst_scaling.csv"
COLUMNS = ("s_epoch", "s_training", "process_peak_mib", "data_mib")
N_GENES, SHARE = 3000, 0.1
FORMS = ("default", "dense", "sparse", "released dense", "released sparse")


def slice_of(n_obs: int, n_genes: int = N_GENES):
    """Expression of eight domains on a square lattice, sparse, a tenth of the values above zero."""
    from anndata import AnnData
    from scipy import sparse

    rng = np.random.default_rng(0)
    side = int(np.ceil(n_obs**0.5))
    xy = np.stack(np.unravel_index(np.arange(n_obs), (side, side)), axis=1).astype(float)
    domain = (xy[:, 0] // (side / 4)).astype(int) + 4 * (xy[:, 1] >= side / 2)
    per_spot = int(SHARE * n_genes)
    rows = np.repeat(np.arange(n_obs), per_spot)
    own = rng.random(len(rows)) < 0.3  # values in genes of the domain
    block = n_genes // 8
    col = np.where(
        own, domain[rows] * block + rng.integers(block, size=len(rows)), rng.integers(n_genes, size=len(rows))
    )
    values = rng.exponential(1.0, len(rows)).astype(np.float32)
    x = sparse.csr_matrix((values, (rows, col.astype(np.int32))), shape=(n_obs, n_genes))
    x.sum_duplicates()
    adata = AnnData(x, obsm={"spatial": xy * 100.0})
    adata.var["highly_variable"] = True
    return adata


def measure_ours(form: str, n_obs: int, epochs: int) -> dict[str, float]:
    from lightning.pytorch.callbacks import Callback

    import stomics_tools as st

    class Clock(Callback):
        ticks: list[float] = []

        def on_train_epoch_end(self, trainer, pl_module):
            self.ticks.append(time.perf_counter())

    adata = slice_of(n_obs)
    before = peak_mib()
    start = time.perf_counter()
    st.model.GraphST.setup_anndata(adata)
    model = st.model.GraphST(adata, preset=None if form == "default" else form)
    model.train(epochs, enable_progress_bar=False, callbacks=[Clock()])
    return {
        "s_epoch": float(np.median(np.diff(Clock.ticks))),
        "s_training": time.perf_counter() - start,
        "data_mib": before,
    }


def measure_released(form: str, n_obs: int, epochs: int) -> dict[str, float]:
    import contextlib
    import os

    adata = slice_of(n_obs)
    before = peak_mib()
    start = time.perf_counter()
    model = _graphst.release(adata, 0, 1, form)
    ticks = []
    # The difference of two calls, so that what a call does once is left out.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        for n in (1, 1 + epochs):
            model.epochs = n
            begun = time.perf_counter()
            model.train()
            ticks.append(time.perf_counter() - begun)
    return {
        "s_epoch": (ticks[1] - ticks[0]) / epochs,
        "s_training": time.perf_counter() - start,
        "data_mib": before,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 2000, 4000, 8000, 30_000, 100_000])
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--released-up-to", type=int, default=8000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    parser.add_argument("--one", nargs=3, metavar=("FORM", "N_OBS", "EPOCHS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        form, n_obs, epochs = arguments.one[0], int(arguments.one[1]), int(arguments.one[2])
        measure = measure_released if form.startswith("released") else measure_ours
        result = measure(form.removeprefix("released "), n_obs, epochs)
        print(json.dumps({**result, "process_peak_mib": peak_mib()}))
        return
    runs = Runs(arguments.out, COLUMNS)
    for repeat in range(arguments.repeats):
        for n_obs in arguments.sizes:
            for form in arguments.forms:
                epochs = arguments.epochs
                if form.startswith("released"):
                    if n_obs > arguments.released_up_to or not _graphst.installed():
                        continue
                    epochs = min(epochs, 3)
                label = f"{form}, {epochs} epochs"
                runs.run(str(n_obs), label, repeat, partial(in_a_new_process, __file__, form, n_obs, epochs))
    print_tables(arguments.out, COLUMNS)


if __name__ == "__main__":
    main()
