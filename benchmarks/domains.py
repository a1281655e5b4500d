"""Spatial domains on labelled slices: agreement with the labels, by method and seed. See README.md."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import _spatialglue
import dense_praga
import numpy as np
from _data import COMPONENTS, SLICES, TRUTH, components, prepare, read
from _runs import Runs
from mudata import MuData
from tables import RESULTS, print_tables

from stomics_tools.metrics import score_labels
from stomics_tools.model import PRAGASpike
from stomics_tools.pp import smooth
from stomics_tools.tl import spatial_domains

DEFAULT_OUT = RESULTS / "domains.csv"
REP = "X_benchmark"
RESULT_COLUMNS = ("ari", "nmi", "fit_seconds")


def smoothed(mdata: MuData, seed: int, epochs: int | None, *, n_hops: int) -> np.ndarray:
    mdata.obsm[REP] = np.hstack([x / x.std() for x in components(mdata)])
    smooth(mdata, REP, n_hops=n_hops)
    return mdata.obsm["X_smooth"]


def praga(mdata: MuData, seed: int, epochs: int | None, **arguments: str) -> np.ndarray:
    PRAGASpike.setup_mudata(mdata, {name: COMPONENTS[name] for name in mdata.mod})
    model = PRAGASpike(mdata, **arguments)
    model.train(epochs, seed=seed, accelerator="cpu", key_added=None, enable_progress_bar=False)
    return model.get_latent_representation()


def dense(mdata: MuData, seed: int, epochs: int | None, *, data_type: str) -> np.ndarray:
    return dense_praga.fit(components(mdata), mdata.obsm["spatial"], data_type, seed, epochs)


def spatialglue(mdata: MuData, seed: int, epochs: int | None) -> np.ndarray:
    return _spatialglue.fit(components(mdata), mdata.obsm["spatial"], seed, epochs)


@dataclass(frozen=True)
class Method:
    """How to make a representation, of which recipe's components, with how many seeds; `paired` needs two modalities."""

    fit: Callable[[MuData, int, int | None], np.ndarray]
    recipe: str
    seeds: int = 10
    paired: bool = False


METHODS = {
    **{"pca" if n == 0 else f"smooth{n}": Method(partial(smoothed, n_hops=n), "baseline", seeds=3) for n in range(4)},
    "praga_10x": Method(partial(praga, preset="praga", data_type="10x"), "published"),
    "dense_10x": Method(partial(dense, data_type="10x"), "published", paired=True),
    "spatialglue": Method(spatialglue, "published", seeds=3, paired=True),
    "praga_spike": Method(praga, "default"),
    "praga_spots": Method(partial(praga, preset="praga", data_type="spots"), "published"),
    "praga_simulation": Method(
        partial(praga, preset="praga", data_type="simulation"), "published_unscaled", paired=True
    ),
    "dense_spots": Method(partial(dense, data_type="spots"), "published", seeds=3, paired=True),
    "dense_simulation": Method(partial(dense, data_type="simulation"), "published_unscaled", seeds=3, paired=True),
}


def evaluate(mdata: MuData, method: Method, seed: int, epochs: int | None) -> dict[str, float]:
    """Scores of the domains, all representations being clustered in the same way into the true number."""
    start = time.perf_counter()
    mdata.obsm[REP] = method.fit(mdata, seed, epochs)
    fit_seconds = time.perf_counter() - start
    spatial_domains(mdata, mdata.obs[TRUTH].nunique(), use_rep=REP, method="gmm", seed=seed)
    scores = score_labels(mdata.obs[TRUTH], mdata.obs["domain"])
    return {"ari": scores["ari"], "nmi": scores["nmi"], "fit_seconds": fit_seconds}


def run_seeds(out: Path, name: str, label: str, seeds: Sequence[int], epochs: int | None) -> None:
    method, mdata = METHODS[label], read(name)
    prepare(mdata, method.recipe)
    runs = Runs(out, RESULT_COLUMNS)
    for seed in seeds:
        runs.run(name, label, seed, partial(evaluate, mdata, method, seed, epochs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", choices=SLICES, default=list(SLICES))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, help="seeds of every method (default: 3 or 10, see README.md)")
    parser.add_argument("--epochs", type=int, help="for a quick try, with an --out of its own")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    arguments = parser.parse_args()
    if arguments.epochs is not None and arguments.out == DEFAULT_OUT:
        parser.error("--epochs needs an --out of its own")
    if "spatialglue" in arguments.methods and not _spatialglue.installed():
        print("spatialglue: not installed: pip install SpatialGlue")
        arguments.methods.remove("spatialglue")
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    results = Runs(arguments.out, RESULT_COLUMNS)
    fork = multiprocessing.get_context("fork")
    for name in arguments.data:
        for label in arguments.methods:
            method = METHODS[label]
            seeds = [s for s in range(arguments.seeds or method.seeds) if not results.has(name, label, s)]
            if not seeds or (method.paired and len(SLICES[name].files) < 2):
                continue
            # In a process of its own, so that the peak of memory is that of this method.
            process = fork.Process(target=run_seeds, args=(arguments.out, name, label, seeds, arguments.epochs))
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(process.exitcode)
    print()
    print_tables(arguments.out, ("ari", "nmi"))


if __name__ == "__main__":
    main()
