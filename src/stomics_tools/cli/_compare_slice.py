"""One slice of ``stomics compare``: prepared, compared, printed and drawn."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from stomics_tools import datasets, pl, tl
from stomics_tools._paths import replacing
from stomics_tools._validate import check_new_key, check_obs_names, check_option
from stomics_tools.cli._annotation import Annotation
from stomics_tools.cli._features import usable_features
from stomics_tools.cli._output import Clock, check_not_input
from stomics_tools.cli._prepare import as_mudata, prepare
from stomics_tools.data._feature_types import Kind
from stomics_tools.datasets._read import read_file
from stomics_tools.tl._compare_input import DEFAULT, READY, check_contenders

_COLUMNS = {
    "ari": ("ARI", ".3f"),
    "nmi": ("NMI", ".3f"),
    "silhouette": ("silhouette", ".3f"),
    "stability": ("stability", ".3f"),
    "reconstruction_mse": ("error", ".3f"),
    "seconds": ("seconds", ".1f"),
    "peak_mib": ("MiB", ".0f"),
}


class Skipped(ValueError):
    """Why a slice cannot be compared, though nothing is wrong with it."""


@dataclass(frozen=True)
class Options:
    """What to compare, and where in a slice the data lie; ``keys`` are those of :meth:`Annotation.of`."""

    models: Mapping[str, Mapping[str, Any]]
    seeds: int
    max_epochs: int | None
    n_domains: int | None
    keys: Mapping[str, Any]
    modality: Kind | None
    counts: bool | None = None
    keep_controls: bool = False


def chosen_models(
    names: Sequence[str] | None, settings: Mapping[str, Mapping[str, Any]], max_epochs: int | None
) -> dict[str, Mapping[str, Any]]:
    """Arguments of the methods to be compared, checked.

    Raises
    ------
    TypeError, ValueError
        If a name stands for nothing, or an argument is unknown.
    """
    known = {**READY, **settings}
    chosen = list(dict.fromkeys([*DEFAULT, *settings] if names is None else names))
    for name in chosen:
        check_option(name, list(known), argument="models")
    models = {name: known[name] for name in chosen}
    check_contenders(models, max_epochs, {})
    return models


def compare_slice(path: Path | None, folder: Path, options: Options) -> pd.DataFrame:
    """Compare on one file, or on a simulated slice, into a folder that is made.

    Raises
    ------
    Skipped
        If there are no labels, and no number of domains is given.
    """
    clock = Clock()
    csv, picture = folder / "compare.csv", folder / "compare.png"
    check_not_input(path, [csv, picture])
    data = datasets.simulate_multiomics(1500, 6, seed=0) if path is None else read_file(path)
    check_obs_names(data.obs_names)
    report = partial(clock.say, "features")
    data = usable_features(data, options.modality, keep_controls=options.keep_controls, report=report)
    mdata = as_mudata(data, options.modality, report=report)
    known = Annotation.of(mdata, **options.keys)
    if known.labels is None and options.n_domains is None:
        raise Skipped("it has no labels. Name their column in `label_key`, or give `n_domains`.")
    if known.labels is not None:
        mdata.obs[known.label_key] = known.labels
    by = f", {known.labels.nunique()} labels in {known.label_key!r}" if known.labels is not None else ""
    what = "simulated slice" if path is None else path.name
    clock.step("read", f"{what}, {mdata.n_obs} spots{by}{known.by_slices}")
    for remark in known.remarks if path is not None else ():
        clock.say("columns", remark)
    modalities = {}
    for name, adata in mdata.mod.items():
        check_new_key(name, argument="modalities")
        modalities[name], how = prepare(name, adata, seed=0, counts=options.counts)
        clock.step("prepare", how)

    with known.named():
        table = tl.compare_models(
            mdata,
            options.models,
            options.seeds,
            modalities=modalities,
            spatial_key=options.keys["spatial_key"],
            batch_key=known.slice_key,
            labels_key=known.label_key,
            n_domains=options.n_domains,
            max_epochs=options.max_epochs,
            train_kwargs={"enable_progress_bar": False},
            out=csv,
            progress=sys.stderr.isatty(),
        )
    clock.step("compare", f"{len(options.models)} methods, {options.seeds} seeds")
    if (table["error"] == "").any():
        figure = pl.compare_models(table, return_fig=True)
        assert isinstance(figure, Figure)
        with replacing(picture) as part:
            figure.savefig(part, dpi=100)
        clock.step("write", f"{csv}, {picture}")
    print(f"\n{summary(table).to_string(na_rep='')}", flush=True)
    return table


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean ± standard deviation over the seeds of each model, as text; runs that diverged are counted."""
    rows = {}
    for name, runs in table.groupby("model", sort=False):
        row = {}
        for column, (title, digits) in _COLUMNS.items():
            values = runs.loc[runs["error"] == "", column].dropna() if column in runs else pd.Series(dtype=float)
            row[title] = "-" if values.empty else format(values.mean(), digits)
            if len(values) > 1 and column != "stability":  # one value a model
                row[title] += f" ± {format(values.std(), digits)}"
        rows[name] = row | {"diverged": int((runs["error"] != "").sum())}
    result = pd.DataFrame.from_dict(rows, orient="index")
    empty = (result == "-").all()
    if not result["diverged"].any():
        empty["diverged"] = True
    return result.loc[:, ~empty]
