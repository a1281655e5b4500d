"""Spatial domains on labelled slices: agreement with the labels, by method and seed. See README.md."""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import _graphst
import _hops
import _spatialglue
import dense_praga
import numpy as np
from _data import COMPONENTS, SLICES, TRUTH, Simulation, batch_key, components, prepare, read
from _runs import Runs, in_a_process
from mudata import MuData
from tables import RESULTS, print_tables

from stomics_tools.data import spatial_knn
from stomics_tools.metrics import score_labels
from stomics_tools.model import PRAGA, PRAGASpike
from stomics_tools.pp import smooth
from stomics_tools.tl import spatial_components, spatial_domains

DEFAULT_OUT = RESULTS / "domains.csv"
REP = "X_benchmark"
RESULT_COLUMNS = ("ari", "nmi", "fit_seconds")


def side_by_side(mdata: MuData) -> np.ndarray:
    return np.hstack([x / x.std() for x in components(mdata)])


def smoothed(mdata: MuData, seed: int, epochs: int | None, *, n_hops: int) -> np.ndarray:
    mdata.obsm[REP] = side_by_side(mdata)
    smooth(mdata, REP, n_hops=n_hops, batch_key=batch_key(mdata))
    return mdata.obsm["X_smooth"]


def components_of_space(mdata: MuData, seed: int, epochs: int | None) -> np.ndarray:
    keys = {name: COMPONENTS[name] for name in mdata.mod}
    spatial_components(mdata, keys, batch_key=batch_key(mdata), key_added="benchmark")
    return mdata.obsm["X_benchmark"]


def hops(mdata: MuData, seed: int, epochs: int | None) -> np.ndarray:
    return _hops.fit(side_by_side(mdata), spatial_knn(mdata.obsm["spatial"], 6))


def train_model(
    cls: Any, mdata: MuData, seed: int, epochs: int | None, training: Mapping[str, Any] | None = None, **arguments: Any
) -> Any:
    """A model of a class; without `epochs` it trains as long as it does by default."""
    cls.setup_mudata(mdata, {name: COMPONENTS[name] for name in mdata.mod}, batch_key=batch_key(mdata))
    model = cls(mdata, **arguments)
    how = {**(training or {}), **({} if epochs is None else {"max_epochs": epochs})}
    model.train(**how, seed=seed, accelerator="cpu", key_added=None, enable_progress_bar=False)
    return model


def praga_spike(mdata: MuData, seed: int, epochs: int | None) -> np.ndarray:
    return train_model(PRAGASpike, mdata, seed, epochs).get_latent_representation()


def praga(mdata: MuData, seed: int, epochs: int | None, *, data_type: str) -> np.ndarray:
    return train_model(PRAGA, mdata, seed, epochs, data_type=data_type).get_latent_representation()


def dense(mdata: MuData, seed: int, epochs: int | None, *, data_type: str) -> np.ndarray:
    return dense_praga.fit(components(mdata), mdata.obsm["spatial"], data_type, seed, epochs)


def spatialglue(mdata: MuData, seed: int, epochs: int | None) -> np.ndarray:
    return _spatialglue.fit(components(mdata), mdata.obsm["spatial"], seed, epochs)


@dataclass(frozen=True)
class Method:
    """How to make a representation, of which recipe's components, with how many seeds, on which slices."""

    fit: Callable[[MuData, int, int | None], np.ndarray]
    recipe: str
    seeds: int = 3
    data: Sequence[str] = tuple(SLICES)


PAIRED = tuple(name for name, source in SLICES.items() if source.paired)
PUBLISHED_PAIRS = ("r1", "r2")
RNA = tuple(name for name, source in SLICES.items() if not source.paired and "rna" in source.files)  # type: ignore[union-attr]

METHODS = {
    **{"pca" if n == 0 else f"smooth{n}": Method(partial(smoothed, n_hops=n), "baseline") for n in range(4)},
    **{f"smooth{n}_recipe": Method(partial(smoothed, n_hops=n), "default") for n in range(1, 4)},
    "hops3": Method(hops, "baseline"),
    "spatial_components": Method(components_of_space, "default", seeds=10),
    "praga_10x": Method(partial(praga, data_type="10x"), "published"),
    "dense_10x": Method(partial(dense, data_type="10x"), "published", data=PUBLISHED_PAIRS),
    "spatialglue": Method(spatialglue, "published", data=PAIRED),
    "praga_spike": Method(praga_spike, "default", seeds=10),
    "praga_spots": Method(partial(praga, data_type="spots"), "published"),
    "praga_simulation": Method(partial(praga, data_type="simulation"), "published_unscaled", data=PUBLISHED_PAIRS),
    "dense_spots": Method(partial(dense, data_type="spots"), "published", data=PUBLISHED_PAIRS),
    "graphst": Method(_graphst.latent, "default", seeds=5, data=RNA),
    **{
        f"graphst_{form}": Method(partial(_graphst.preset, form=form), "default", 5, RNA)
        for form in ("dense", "sparse")
    },
    **{
        f"released_{form}": Method(partial(_graphst.released, form=form), "default", 1, RNA)
        for form in ("dense", "sparse")
    },
    "dense_simulation": Method(partial(dense, data_type="simulation"), "published_unscaled", data=PUBLISHED_PAIRS),
}


def prepared(name: str, recipe: str, seed: int) -> MuData:
    """A slice with its components; a simulated one is another at each seed."""
    return _prepared(name, recipe, seed if isinstance(SLICES[name], Simulation) else 0)


@lru_cache(maxsize=1)
def _prepared(name: str, recipe: str, seed: int) -> MuData:
    mdata = read(name, seed)
    prepare(mdata, recipe)
    return mdata


def score(mdata: MuData, latent: np.ndarray, seed: int) -> dict[str, float]:
    """Agreement of the domains, all representations being clustered in the same way into the true number."""
    mdata.obsm[REP] = latent
    spatial_domains(mdata, mdata.obs[TRUTH].nunique(), use_rep=REP, method="gmm", seed=seed)
    return dict(score_labels(mdata.obs[TRUTH], mdata.obs["spatial_domain"]))


def evaluate(mdata: MuData, method: Method, seed: int, epochs: int | None) -> dict[str, float]:
    start = time.perf_counter()
    latent = method.fit(mdata, seed, epochs)
    fit_seconds = time.perf_counter() - start
    scores = score(mdata, latent, seed)
    return {"ari": scores["ari"], "nmi": scores["nmi"], "fit_seconds": fit_seconds}


def run_seeds(out: Path, name: str, label: str, seeds: Sequence[int], epochs: int | None) -> None:
    runs, method = Runs(out, RESULT_COLUMNS), METHODS[label]
    for seed in seeds:
        mdata = prepared(name, method.recipe, seed)
        runs.run(name, label, seed, partial(evaluate, mdata, method, seed, epochs))


def quiet() -> None:
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", choices=SLICES, default=list(SLICES))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, help="seeds of every method (default: see README.md)")
    parser.add_argument("--epochs", type=int, help="for a quick try, with an --out of its own")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    arguments = parser.parse_args()
    if arguments.epochs is not None and arguments.out == DEFAULT_OUT:
        parser.error("--epochs needs an --out of its own")
    if "spatialglue" in arguments.methods and not _spatialglue.installed():
        print("spatialglue: not installed: pip install SpatialGlue")
        arguments.methods.remove("spatialglue")
    if not _graphst.installed():
        print("released_*: not installed: pip install GraphST POT")
        arguments.methods = [label for label in arguments.methods if not label.startswith("released_")]
    quiet()

    results = Runs(arguments.out, RESULT_COLUMNS)
    for name in arguments.data:
        for label in arguments.methods:
            method = METHODS[label]
            seeds = [s for s in range(arguments.seeds or method.seeds) if not results.has(name, label, s)]
            if seeds and name in method.data:
                in_a_process(run_seeds, arguments.out, name, label, seeds, arguments.epochs)
    print()
    print_tables(arguments.out, ("ari", "nmi"))


if __name__ == "__main__":
    main()
