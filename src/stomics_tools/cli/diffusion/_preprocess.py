"""One object of several slices to the cells of training and of test."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from anndata import AnnData


def preprocess(
    *,
    input: Path,
    data_dir: Path,
    num_genes: int = 1000,
    layer: str | None = None,
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
        h5ad file of the cells of one or more slices.
    data_dir
        Folder of the results, made if need be.
    num_genes
        Most variable genes that are kept; all of a smaller panel.
    layer
        Layer of the expression, counts or other values. Default: X.
    spatial_key
        Key of the coordinates in obsm.
    batch_key
        Column of the slices in obs. Default: all cells are of one slice.
    test_batches
        Slices that are held out.

    Examples
    --------
    stomics diffusion preprocess --input cells.h5ad --data-dir data --batch-key section --test-batches section3
    """
    from stomics_tools._validate import check_integer, check_key
    from stomics_tools.cli._output import Clock, check_not_input, replacing

    clock = Clock()
    check_integer(num_genes, argument="num_genes")
    if test_batches and batch_key is None:
        raise ValueError("`test_batches` are slices: name their column by `batch_key`.")
    paths = {part: data_dir / f"{part}.h5ad" for part in ("train", "test")}
    check_not_input(input, list(paths.values()), argument="data_dir")

    from stomics_tools._params import plain_params
    from stomics_tools.cli._genes import chosen_genes
    from stomics_tools.cli.diffusion._data import RECORD, read_object
    from stomics_tools.data import CellsSpec, read_cells

    adata = read_object(input, argument="input")
    if layer is not None:
        check_key(layer, adata.layers, argument="layer", where="adata.layers")
    held_out = _held_out(adata, batch_key, test_batches or [])
    clock.step("read", f"{input}, {adata.n_obs} cells, {adata.n_vars} genes")
    genes = chosen_genes(adata[~held_out], layer, num_genes)
    spec = CellsSpec(layer, spatial_key, batch_key)
    parts = {"train": ~held_out, "test": held_out} if held_out.any() else {"train": ~held_out}
    objects, lines = {}, []
    for part, rows in parts.items():
        own = adata[rows, genes].copy()
        cells = read_cells(own, spec, training=part == "train")
        lines.append(f"{part}: {cells.n_obs} cells of {len(cells.batch_names)} slices")
        own.raw = None
        own.obsp.clear()
        own.uns = {RECORD: plain_params(vars(spec))}
        objects[part] = own
    clock.step("choose", f"{len(genes)} genes; {', '.join(lines)}")
    data_dir.mkdir(parents=True, exist_ok=True)
    for part, path in paths.items():
        path.unlink(missing_ok=True)  # of an earlier call: cells of training could lie in it
        if part in objects:
            with replacing(path) as partial:
                objects[part].write_h5ad(partial)
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
