"""``stomics graphst``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from stomics_tools import __version__


def graphst(
    input: Path,
    *,
    output: Path,
    save_model: Path | None = None,
    overwrite: bool = False,
    modality: str | None = None,
    layer: str | None = None,
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
    lr: float = 1e-3,
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
        Folder that the trained model is saved to, for GraphST.load.
    overwrite
        Replace output and model if they are there, even if the output is the input.
    modality
        Modality of an h5mu file that is used. Default: the only one. From an h5ad file, its name in h5mu: rna.
    layer
        Layer of the expression, counts or other values. Default: X.
    genes
        Column of var (True and False) of the genes. Default: highly_variable if it is there, else the most variable.
    n_top_genes
        How many these are; null for all.
    spatial_key
        Key of the coordinates in obsm.
    batch_key
        Column that tells several slices apart. Default: one with a usual name (slice, section, sample, ...).
    label_key
        Column of true labels, to compare domains with. Default: one with a usual name (domain, layer, region, ...).
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
        Learning rate.
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
    stomics graphst slice.h5ad --output domains.h5ad --n-domains 6
    """
    from stomics_tools.cli._checks import check_numbers, check_paths
    from stomics_tools.cli._output import Clock, losses

    clock = Clock()
    check_paths([input], output, save_model, overwrite=overwrite)
    check_numbers(n_domains=n_domains, max_epochs=max_epochs, seed=seed)

    # These bring torch, which help and a mistyped option need not wait for.
    from stomics_tools.cli._annotation import Annotation
    from stomics_tools.cli._domains import find_domains
    from stomics_tools.cli._files import one_modality, read_input, write_results
    from stomics_tools.model import GraphST

    clock.step("import", f"stomics-tools {__version__}")
    adata, whole = one_modality(read_input(input), modality, output=output, spatial_key=spatial_key)
    known = Annotation.of(adata, spatial_key=spatial_key, label_key=label_key, batch_key=batch_key)
    GraphST.setup_anndata(
        adata, layer, spatial_key=spatial_key, batch_key=known.slice_key, genes=genes, n_top_genes=n_top_genes
    )
    model = GraphST(
        adata,
        preset=preset,
        n_latent=n_latent,
        n_spatial_neighbors=n_spatial_neighbors,
        n_hops=n_hops,
        contrast=contrast,
    )
    clock.step("read", f"{input}, {adata.n_obs} spots{known.by_slices}, {len(model.genes)} genes")
    model.train(
        max_epochs,
        lr=lr,
        patience=patience,
        seed=seed,
        accelerator=accelerator,
        devices=devices,
        enable_progress_bar=sys.stderr.isatty(),
    )
    clock.step("train", f"GraphST, {losses(model.history)}")
    clock.step("domains", find_domains(adata, "graphst", known, n_domains, seed=seed))
    clock.step("write", write_results(whole, model, output, save_model, overwrite=overwrite))
