"""``stomics praga-spike``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from stomics_tools import __version__


def praga_spike(
    input: Path,
    *,
    output: Path,
    save_model: Path | None = None,
    overwrite: bool = False,
    modalities: list[str] | None = None,
    modality: Literal["rna", "protein", "atac"] | None = None,
    spatial_key: str = "spatial",
    batch_key: str | None = None,
    label_key: str | None = None,
    n_domains: int | None = None,
    preset: Literal["enhanced", "praga"] | None = None,
    data_type: Literal["10x", "spots", "stereo", "epigenome", "simulation"] = "10x",
    encoder: Literal["spike", "relu", "linear", "spikformer"] | None = None,
    n_latent: int | None = None,
    n_spatial_neighbors: int | None = None,
    n_feature_neighbors: int | None = None,
    max_epochs: int | None = None,
    lr: float | None = None,
    patience: int | None = None,
    seed: int = 0,
    accelerator: str = "auto",
    devices: int | str = "auto",
) -> None:
    """Spatial domains from one or several modalities (PRAGASpike).

    Prepares each modality, trains, and writes the input with what was found: obsm["X_praga_spike"] (latent
    representation), obs["praga_spike_domain"] (domains, if their number is given or there are labels), graphs in obsp,
    weights of modalities in obsm, and settings in uns["praga_spike"].

    Parameters
    ----------
    input
        Slice: an h5ad or h5mu file, or a zarr folder of either object.
    output
        File of the results, .h5ad for one object, .h5mu for several modalities, .zarr for either.
    save_model
        Folder that the trained model is saved to, for PRAGASpike.load.
    overwrite
        Replace output and model if they are there, even if the output is the input.
    modalities
        NAME or NAME=KEY of those to use, such as rna=X_pca; an obsm key is taken as it is. Default: all, prepared.
    modality
        What an h5ad file holds. Default: recognised by its feature types, names and values.
    spatial_key
        Key of the coordinates in obsm.
    batch_key
        Column that tells several slices apart. Default: one with a usual name (slice, section, sample, ...).
    label_key
        Column of true labels, to compare domains with. Default: one with a usual name (domain, layer, region, ...).
    n_domains
        Number of domains. Default: as many as there are labels; without labels, no domains.
    preset
        enhanced: published settings of training. praga: the published PRAGA. Default: the model of this package.
    data_type
        Technology whose published settings the preset praga takes.
    encoder
        What stands between the linear maps of a layer.
    n_latent
        Dimensions of the latent representation.
    n_spatial_neighbors
        Nearest spots of the spatial graph.
    n_feature_neighbors
        Spots of each feature graph.
    max_epochs
        Steps of training. Default, as for the next two: that of the preset.
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
    stomics simulate multiomics --output slice.h5mu --n-obs 1000
    stomics praga-spike slice.h5mu --output domains.h5mu --n-domains 6 --save-model model
    """
    from stomics_tools.cli._checks import check_numbers, check_paths
    from stomics_tools.cli._output import Clock, losses

    clock = Clock()
    check_paths([input], output, save_model, overwrite=overwrite)
    check_numbers(n_domains=n_domains, max_epochs=max_epochs, seed=seed)

    # These bring torch, which help and a mistyped option need not wait for.
    from mudata import MuData

    from stomics_tools.cli._annotation import Annotation
    from stomics_tools.cli._domains import find_domains
    from stomics_tools.cli._files import check_fits, read_input, write_results
    from stomics_tools.cli._prepare import as_mudata, representations
    from stomics_tools.model import PRAGASpike

    clock.step("import", f"stomics-tools {__version__}")
    data = read_input(input)
    check_fits(data, output)
    if output.suffix == ".h5mu":
        data = as_mudata(data, modality)
    known = Annotation.of(data, spatial_key=spatial_key, label_key=label_key, batch_key=batch_key)
    clock.step("read", f"{input}, {data.n_obs} spots{known.by_slices}")
    keys = representations(data, modality, modalities, seed=seed, report=lambda line: clock.step("prepare", line))
    places: dict[str, Any] = {"spatial_key": spatial_key, "batch_key": known.slice_key}
    if isinstance(data, MuData):
        PRAGASpike.setup_mudata(data, keys, **places)
    else:
        PRAGASpike.setup_anndata(data, keys, **places)
    model = PRAGASpike(
        data,
        preset=preset,
        data_type=data_type,
        encoder=encoder,
        n_latent=n_latent,
        n_spatial_neighbors=n_spatial_neighbors,
        n_feature_neighbors=n_feature_neighbors,
    )
    model.train(
        max_epochs,
        lr=lr,
        patience=patience,
        seed=seed,
        accelerator=accelerator,
        devices=devices,
        enable_progress_bar=sys.stderr.isatty(),
    )
    clock.step("train", f"PRAGASpike, {losses(model.history)}")
    clock.step("domains", find_domains(data, "praga_spike", known, n_domains, seed=seed))
    clock.step("write", write_results(data, model, output, save_model, overwrite=overwrite))
