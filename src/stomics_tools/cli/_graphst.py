"""``stomics graphst``."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any, Literal

from stomics_tools import __version__


def graphst(
    input: Path,
    *,
    output: Path,
    save_model: Path | None = None,
    load_model: Path | None = None,
    overwrite: bool = False,
    modality: str | None = None,
    layer: str | None = None,
    counts: bool | None = None,
    keep_controls: bool = False,
    genes: str | None = None,
    n_top_genes: int | None = 3000,
    spatial_key: str = "spatial",
    batch_key: str | None = None,
    label_key: str | None = None,
    n_domains: int | None = None,
    preset: Literal["dense", "sparse"] | None = None,
    n_latent: int | None = None,
    n_spatial_neighbors: int | None = None,
    n_hops: int | None = None,
    contrast: Literal["bce", "pairwise", "infonce"] | None = None,
    max_epochs: int | None = None,
    lr: float | None = None,
    patience: int | None = None,
    seed: int = 0,
    accelerator: str = "auto",
    devices: int | str = "auto",
) -> None:
    """Spatial domains from one modality (GraphST).

    Trains on the expression and writes the input with what was found: obsm["X_graphst"] (latent representation),
    obs["graphst_domain"] (domains, if their number is given or there are labels), the spatial graph in obsp, and
    settings in uns["graphst"]. In an h5mu file, and in a zarr folder of several modalities, these lie in the modality.

    Parameters
    ----------
    input
        Slice: an h5ad or h5mu file, or a zarr folder of either object.
    output
        File of the results, .h5ad for the modality alone, .h5mu for all of them, .zarr as the input.
    save_model
        Folder that the trained model is saved to, before the results are written, for GraphST.load and load_model.
    load_model
        Folder of a saved model that is applied to the input; nothing is trained.
    overwrite
        Replace output and model if they are there, even if the output is the input.
    modality
        Modality of an h5mu file that is used. Default: the only one. Of an h5ad file with features of several kinds, the
        kind that is used, by default rna; of any other its name in h5mu.
    layer
        Layer of the expression, counts or other values. Default: X.
    counts
        Whether values are counts. Default: those that are whole and not negative.
    keep_controls
        Take control features (negative control probes, blanks, ...) as genes; they are left out by default.
    genes
        Column of var (True and False) of the genes. Default: highly_variable if it is there, else the most variable.
    n_top_genes
        How many these are; null for all.
    spatial_key
        Key of the coordinates in obsm.
    batch_key
        Column that tells several slices apart, or none. Default: one with a usual name (slice, section, sample, ...).
    label_key
        Column of true labels, to compare domains with, or none. Default: one with a usual name (domain, layer, ...).
    n_domains
        Number of domains. Default: as many as there are labels; without labels, no domains.
    preset
        The published models: dense, of Visium; sparse, of Stereo-seq and Slide-seq. Default: that of this package.
    n_latent
        Dimensions of the latent representation.
    n_spatial_neighbors
        Nearest spots of the graph.
    n_hops
        Steps on the graph over which the latent representation reaches.
    contrast
        Loss that tells spots from those of a corrupted slice.
    max_epochs
        Steps of training. Default: that of the preset.
    lr
        Learning rate. Default: 0.001.
    patience
        Stop when the loss has not fallen for so many epochs.
    seed
        Seed of everything random.
    accelerator
        Of Lightning: auto, cpu, gpu, ...
    devices
        Of Lightning: auto, or how many.

    Examples
    --------
    stomics simulate multiomics --output slice.h5ad --modalities rna --n-obs 1000
    stomics graphst slice.h5ad --output domains.h5ad --n-domains 6 --save-model model
    stomics graphst slice.h5ad --load-model model --output again.h5ad --n-domains 6
    """
    from stomics_tools.cli._checks import check_loading, check_numbers, check_paths
    from stomics_tools.cli._output import Clock, losses

    clock = Clock()
    settings: dict[str, Any] = {
        "preset": preset,
        "n_latent": n_latent,
        "n_spatial_neighbors": n_spatial_neighbors,
        "n_hops": n_hops,
        "contrast": contrast,
    }
    training: dict[str, Any] = {"max_epochs": max_epochs, "patience": patience, "lr": lr}
    check_loading(load_model, {"save_model": save_model, "layer": layer, "genes": genes, **settings, **training})
    check_paths([input], output, save_model, overwrite=overwrite)
    check_numbers(n_domains=n_domains, max_epochs=max_epochs, seed=seed)

    # These bring torch, which help and a mistyped option need not wait for.
    from stomics_tools.cli._annotation import Annotation
    from stomics_tools.cli._apply import apply_model, as_trained
    from stomics_tools.cli._domains import finish
    from stomics_tools.cli._features import check_measured
    from stomics_tools.cli._files import check_writable, model_kept, one_modality, read_input
    from stomics_tools.data import expression_matrix
    from stomics_tools.model import GraphST

    clock.step("import", f"stomics-tools {__version__}")
    adata, whole = one_modality(
        read_input(input),
        modality,
        output=output,
        spatial_key=spatial_key,
        keep_controls=keep_controls,
        report=partial(clock.say, "features"),
    )
    if load_model is not None:
        _, batch_key = as_trained(GraphST, load_model, adata, batch_key, say=clock.say)
    known = Annotation.of(adata, spatial_key=spatial_key, label_key=label_key, batch_key=batch_key)
    clock.step("read", f"{input}, {adata.n_obs} spots{known.by_slices}")
    for remark in known.remarks:
        clock.say("columns", remark)
    check_writable(whole, output)
    last: dict[str, Any] = {"seed": seed, "output": output, "save_model": save_model, "clock": clock}
    if load_model is not None:
        apply_model(GraphST, load_model, adata)
        clock.step("apply", f"the model in {load_model}")
        finish(adata, whole, "graphst", known, n_domains, **last)
        return
    check_measured(adata, modality or "rna", expression_matrix(adata, layer)[0])
    with known.named():
        GraphST.setup_anndata(
            adata,
            layer,
            spatial_key=spatial_key,
            batch_key=known.slice_key,
            genes=genes,
            n_top_genes=n_top_genes,
            counts=counts,
        )
        model = GraphST(adata, **settings)
    (state,) = model._state["modalities"].values()
    clock.step("setup", f"{len(model.genes)} genes, {'counts' if state['counts'] else 'values as they are'}")
    given = {name: value for name, value in training.items() if value is not None}
    model.train(**given, seed=seed, accelerator=accelerator, devices=devices, enable_progress_bar=sys.stderr.isatty())
    clock.step("train", f"GraphST, {losses(model.history)}")
    with model_kept(model, output, save_model, overwrite=overwrite):
        finish(adata, whole, "graphst", known, n_domains, **last)
