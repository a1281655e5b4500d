"""Methods side by side on one slice, or on every slice of a folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from stomics_tools.cli._compare_slice import Options

_SUFFIXES = (".h5ad", ".h5mu", ".zarr")


def compare(
    input: Path | None = None,
    *,
    data: str | None = None,
    output_dir: Path = Path("."),
    models: list[str] | None = None,
    settings: dict[str, dict[str, Any]] | None = None,
    seeds: int = 3,
    max_epochs: int | None = None,
    n_domains: int | None = None,
    label_key: str | None = None,
    batch_key: str | None = None,
    spatial_key: str = "spatial",
    modality: Literal["rna", "protein", "atac"] | None = None,
    counts: bool | None = None,
    keep_controls: bool = False,
) -> None:
    """Compare methods that find spatial domains, each with several seeds.

    By default the published PRAGA (praga) and PRAGASpike (praga_spike), beside spatial components, principal components
    (pca) and their averages over neighbours (smooth2), which a model has to beat. Prints mean and standard deviation of agreement with
    the labels, stability between seeds, reconstruction error, time and memory, and writes compare.csv (one row a run)
    and compare.png. Every finished run is in compare.csv at once: the same command goes on where it was stopped.

    Parameters
    ----------
    input
        h5ad, h5mu or zarr file with counts and coordinates. Default: a simulated slice.
    data
        Instead of one input, a folder all of whose files are compared, each into a folder of its own in output_dir,
        where compare.csv then holds the runs on all; "all" for the folder that the environment variable STOMICS_DATA names. Files without labels are skipped unless
        n_domains is given; a file that fails does not stop the others.
    output_dir
        Folder of the results, made if need be.
    models
        Names: praga, praga_spike, graphst, spatial_components, pca, smooth1, smooth2, smooth3, or of settings. Default:
        praga, praga_spike, spatial_components, pca, smooth2, and all of settings.
    settings
        Methods by a name of your own, to arguments; best written in the file of --config, for example
        "settings: {wide: {n_latent: 128}, dense: {model: GraphST, preset: dense, train: {lr: 0.001}}}".
    seeds
        Number of seeds: 0, 1, ...
    max_epochs
        Steps of training of all models, for a quick look. Default: those of each.
    n_domains
        Number of domains. Default: as many as there are labels.
    label_key
        Column of true labels, or none. Default: one with a usual name (domain, layer, region, ...).
    batch_key
        Column that tells several slices apart, or none. Default: one with a usual name (slice, section, sample, ...).
    spatial_key
        Key of the coordinates in obsm.
    modality
        What an h5ad file holds. Default: recognised by its feature types, names and values.
    counts
        Whether values are counts. Default: those that are whole and not negative.
    keep_controls
        Take control features (negative control probes, blanks, ...) as features; they are left out by default.

    Examples
    --------
    stomics compare slice.h5mu --output-dir compared
    stomics compare --data all --models praga praga_spike graphst --output-dir compared
    """
    from stomics_tools._validate import check_integer
    from stomics_tools.cli._checks import check_input, check_permission

    if input is not None and data is not None:
        raise ValueError("`input` names one file and `data` a folder of them. Leave one of them out.")
    if input is not None:
        check_input(input)
    check_permission(output_dir, "output_dir")
    for argument, value, minimum in (("seeds", seeds, 1), ("max_epochs", max_epochs, 1), ("n_domains", n_domains, 2)):
        if value is not None:
            check_integer(value, argument=argument, minimum=minimum)
    files = None if data is None else slice_files(data)

    # This brings torch, which help and a mistyped option need not wait for.
    from stomics_tools.cli._compare_slice import Options, chosen_models, compare_slice

    keys = {"label_key": label_key, "batch_key": batch_key, "spatial_key": spatial_key}
    options = Options(
        chosen_models(models, settings or {}, max_epochs),
        seeds,
        max_epochs,
        n_domains,
        keys,
        modality,
        counts,
        keep_controls,
    )
    if files is None:
        compare_slice(input, output_dir, options)
    else:
        _compare_all(files, output_dir, options)


def slice_files(data: str) -> dict[str, Path]:
    """Name of the results to file, of a folder or of the one of ``STOMICS_DATA``."""
    folder = data
    if data == "all":
        folder = os.environ.get("STOMICS_DATA", "")
        if not folder:
            raise ValueError("`data`: 'all' stands for the folder of the variable STOMICS_DATA, which is not set.")
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise FileNotFoundError(f"`data`: no such folder '{folder}'.")
    paths = sorted(path for path in place.iterdir() if path.suffix in _SUFFIXES)
    if not paths:
        raise ValueError(f"`data`: '{folder}' holds no file that ends in one of {list(_SUFFIXES)}.")
    stems = [path.stem for path in paths]
    return {path.stem if stems.count(path.stem) == 1 else path.name: path for path in paths}


def _compare_all(files: Mapping[str, Path], output_dir: Path, options: Options) -> None:
    """Compare file after file, then all of them in one table; fail in the end if one of them did."""
    from stomics_tools.cli._compare_slice import Skipped, compare_slice
    from stomics_tools.cli._output import one_line

    tables: dict[str, pd.DataFrame] = {}
    failed: dict[str, Exception] = {}
    for i, (name, path) in enumerate(files.items(), start=1):
        print(f"\n[{i} of {len(files)}] {path.name}", flush=True)
        try:
            tables[name] = compare_slice(path, output_dir / name, options)
        except Skipped as reason:
            print(f"skipped: {reason}", flush=True)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one file, the others are to be compared
            failed[path.name] = error
            print(f"failed: {one_line(error)}", file=sys.stderr, flush=True)
    if tables:
        _write_all(tables, output_dir / "compare.csv")
    if failed:
        raise ValueError(f"{len(failed)} of {len(files)} files could not be compared: {', '.join(failed)}.") from next(
            iter(failed.values())
        )


def _write_all(tables: Mapping[str, pd.DataFrame], path: Path) -> None:
    """The runs on all files in one table, and the mean agreement printed."""
    import pandas as pd

    from stomics_tools._paths import replacing

    joined = pd.concat([table.assign(data=name) for name, table in tables.items()], ignore_index=True)
    joined = joined[["data", *joined.columns.drop("data")]]
    with replacing(path) as part:
        joined.to_csv(part, index=False)
    if "ari" in joined:
        agreement = joined.pivot_table("ari", "data", "model", sort=False)
        print(f"\nmean ARI\n{agreement.to_string(float_format='{:.3f}'.format, na_rep='-')}")
    print(f"\nall runs: {path}", flush=True)
