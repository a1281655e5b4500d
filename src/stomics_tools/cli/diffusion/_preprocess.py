"""One object of several slices to the cells of training and of test."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from anndata import AnnData


def preprocess(
    *,
    input: Path,
    data_dir: Path,
    num_genes: int = 1000,
    layer: str | None = None,
    counts: bool | None = None,
    modality: str | None = None,
    keep_controls: bool = False,
    spatial_key: str = "spatial",
    batch_key: str | None = None,
    test_batches: list[str] | None = None,
) -> None:
    """Choose genes and hold out whole slices.

    Checks the cells and writes train.h5ad and, of the slices held out, test.h5ad. Genes are chosen on the slices of
    training alone.

    Parameters
    ----------
    input
        h5ad file of the cells of one or more slices, or a folder of such files, with the genes that all of them have.
    data_dir
        Folder of the results, made if need be.
    num_genes
        Most variable genes that are kept; all of a smaller panel.
    layer
        Layer of the expression, counts or other values. Default: X.
    counts
        Whether values are counts. Default: those that are whole and not negative.
    modality
        What is used of features of several kinds. Default: the RNA of an h5ad file; of an h5mu file it must be named.
    keep_controls
        Take control features (negative control probes, blanks, ...) as genes; they are left out by default.
    spatial_key
        Key of the coordinates in obsm.
    batch_key
        Column of the slices in obs, or none. Default: all cells of a file are of one slice; the slices of a folder are
        told apart by the column slice, the name of the file.
    test_batches
        Slices that are held out.

    Examples
    --------
    stomics diffusion preprocess cells.h5ad --data-dir data --batch-key section --test-batches section3
    stomics diffusion preprocess raw_folder --data-dir data --test-batches slice7
    """
    from stomics_tools._validate import check_integer, check_key
    from stomics_tools.cli._checks import check_permission
    from stomics_tools.cli._output import Clock, check_not_input

    clock = Clock()
    check_integer(num_genes, argument="num_genes")
    batch_key = None if batch_key == "none" else batch_key
    if test_batches and batch_key is None and not input.is_dir():
        raise ValueError("`test_batches` are slices: name their column by `batch_key`.")
    check_permission(data_dir, "data_dir")
    paths = {part: data_dir / f"{part}.h5ad" for part in ("train", "test")}
    check_not_input(input, list(paths.values()), argument="data_dir")

    from stomics_tools._params import plain_params
    from stomics_tools.cli._files import write_output
    from stomics_tools.cli._genes import chosen_genes
    from stomics_tools.cli.diffusion._data import RECORD, read_folder, read_object
    from stomics_tools.data import CellsSpec, read_cells

    reading: dict[str, Any] = {"argument": "input", "modality": modality, "keep_controls": keep_controls}
    reading["report"] = partial(clock.say, "features")
    if input.is_dir() and input.suffix != ".zarr":
        adata, batch_key = read_folder(input, batch_key, **reading)
    else:
        adata = read_object(input, **reading)
    if layer is not None:
        check_key(layer, adata.layers, argument="layer", where="adata.layers")
    held_out = _held_out(adata, batch_key, test_batches or [])
    clock.step("read", f"{input}, {adata.n_obs} cells, {adata.n_vars} genes")
    genes = chosen_genes(adata[~held_out], layer, num_genes, counts)
    spec = CellsSpec(layer, spatial_key, batch_key, counts)
    parts = {"train": ~held_out, "test": held_out} if held_out.any() else {"train": ~held_out}
    objects, lines = {}, []
    for part, rows in parts.items():
        own = adata[rows, genes].copy()
        cells = read_cells(own, spec, training=part == "train")
        lines.append(f"{part}: {cells.n_obs} cells of {len(cells.batch_names)} slices")
        unit = "counts" if cells.counts else "values as they are"
        own.raw = None
        own.obsp.clear()
        own.uns = {RECORD: plain_params(vars(spec))}
        objects[part] = own
    clock.step("choose", f"{len(genes)} genes, {unit}; {', '.join(lines)}")
    data_dir.mkdir(parents=True, exist_ok=True)
    for part, path in paths.items():
        path.unlink(missing_ok=True)  # of an earlier call: cells of training could lie in it
        if part in objects:
            write_output(objects[part], path)
    clock.step("write", ", ".join(str(paths[part]) for part in objects))


def _held_out(adata: AnnData, batch_key: str | None, test_batches: list[str]) -> np.ndarray:
    """Mask of the cells of the slices of test."""
    import numpy as np

    from stomics_tools._validate import check_categories, check_key, check_option

    if batch_key is None:
        return np.zeros(adata.n_obs, dtype=bool)
    check_key(batch_key, adata.obs, argument="batch_key", where="adata.obs")
    codes, names = check_categories(adata.obs[batch_key], argument="batch_key", where=f"adata.obs[{batch_key!r}]")
    for name in test_batches:
        check_option(name, names, argument="test_batches")
    held_out = np.isin(np.asarray(names)[codes], test_batches)
    if held_out.all():
        raise ValueError(f"`test_batches`: all of {names} are held out, nothing is left to train on.")
    return held_out
