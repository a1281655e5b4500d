"""``stomics praga`` and ``stomics praga-spike``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from stomics_tools import __version__


def praga(
    input: Path,
    *,
    output: Path,
    save_model: Path | None = None,
    load_model: Path | None = None,
    overwrite: bool = False,
    modalities: list[str] | None = None,
    modality: Literal["rna", "protein", "atac"] | None = None,
    counts: bool | None = None,
    keep_controls: bool = False,
    spatial_key: str = "spatial",
    batch_key: str | None = None,
    label_key: str | None = None,
    n_domains: int | None = None,
    data_type: Literal["10x", "spots", "stereo", "epigenome", "simulation"] = "10x",
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
    """Spatial domains from one or several modalities by the published PRAGA.

    Prepares each modality, trains, and writes the input with what was found: obsm["X_praga"] (latent representation),
    obs["praga_domain"] (domains, if their number is given or there are labels), graphs in obsp, and settings in
    uns["praga"]. Settings of the model and of training that are not given are the published ones of the data type.

    Parameters
    ----------
    input
        Slice: an h5ad or h5mu file, or a zarr folder of either object.
    output
        File of the results, .h5ad for one object, .h5mu for several modalities, .zarr for either.
    save_model
        Folder that the trained model is saved to, before the results are written, for PRAGA.load and load_model.
    load_model
        Folder of a saved model that is applied to the input; nothing is trained. Raw counts are prepared like those of
        training; what is prepared must have been so by the same recipe.
    overwrite
        Replace output and model if they are there, even if the output is the input.
    modalities
        NAME or NAME=KEY of those to use, such as rna=X_pca; an obsm key is taken as it is. Default: all, prepared.
    modality
        What an h5ad file holds. Default: recognised by its feature types, names and values.
    counts
        Whether values are counts. Default: those that are whole and not negative.
    keep_controls
        Take control features (negative control probes, blanks, ...) as features; they are left out by default.
    spatial_key
        Key of the coordinates in obsm.
    batch_key
        Column that tells several slices apart, or none. Default: one with a usual name (slice, section, sample, ...).
    label_key
        Column of true labels, to compare domains with, or none. Default: one with a usual name (domain, layer, ...).
    n_domains
        Number of domains. Default: as many as there are labels; without labels, no domains.
    data_type
        Technology whose published settings are taken, where no others are given.
    n_latent
        Dimensions of the latent representation.
    n_spatial_neighbors
        Nearest spots of the spatial graph.
    n_feature_neighbors
        Spots of each feature graph.
    max_epochs
        Steps of training.
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
    stomics praga slice.h5mu --output domains.h5mu --n-domains 6 --data-type spots
    """
    settings: dict[str, Any] = {
        "data_type": None if data_type == "10x" else data_type,
        "n_latent": n_latent,
        "n_spatial_neighbors": n_spatial_neighbors,
        "n_feature_neighbors": n_feature_neighbors,
    }
    training = {"max_epochs": max_epochs, "lr": lr, "patience": patience}
    files = _Files(input, output, save_model, load_model, overwrite)
    features = {"modalities": modalities, "modality": modality, "counts": counts, "keep_controls": keep_controls}
    keys = {"spatial_key": spatial_key, "batch_key": batch_key, "label_key": label_key}
    where = {"accelerator": accelerator, "devices": devices}
    _run("PRAGA", files, keys, n_domains, settings, training, seed, where, **features)  # type: ignore[arg-type]


def praga_spike(
    input: Path,
    *,
    output: Path,
    save_model: Path | None = None,
    load_model: Path | None = None,
    overwrite: bool = False,
    modalities: list[str] | None = None,
    modality: Literal["rna", "protein", "atac"] | None = None,
    counts: bool | None = None,
    keep_controls: bool = False,
    spatial_key: str = "spatial",
    batch_key: str | None = None,
    label_key: str | None = None,
    n_domains: int | None = None,
    encoder: Literal["spike", "ssa", "sdt1", "sdt2", "sdt3", "qk_token", "qk_channel", "dssa", "relu"] | None = None,
    residual: Literal["membrane", "sew"] | None = None,
    graph_fusion: Literal["attention", "conv"] | None = None,
    n_layers: int | None = None,
    n_heads: int | None = None,
    n_levels: int | None = None,
    n_copies: int | None = None,
    n_steps: int | None = None,
    use_attention: bool | None = None,
    attention_windows: list[int | None] | None = None,
    weight_bits: int | Literal["learned", "float"] | None = None,
    bit_budget: float | None = None,
    reparameterize: bool | None = None,
    n_latent: int | None = None,
    n_spatial_neighbors: int | None = None,
    n_feature_neighbors: int | None = None,
    max_epochs: int | None = None,
    lr: float | None = None,
    early_stopping: bool | None = None,
    early_stopping_patience: int | None = None,
    validation_size: float | None = None,
    seed: int = 0,
    accelerator: str = "auto",
    devices: int | str = "auto",
) -> None:
    """Spatial domains from one or several modalities (PRAGASpike).

    Prepares each modality, trains, and writes the input with what was found: obsm["X_praga_spike"] (latent
    representation), obs["praga_spike_domain"] (domains, if their number is given or there are labels), graphs in obsp,
    weights of modalities in obsm, and settings in uns["praga_spike"]. Settings of the model and of training that are not given are
    those of stomics_tools.model.PRAGASpike.

    Parameters
    ----------
    input
        Slice: an h5ad or h5mu file, or a zarr folder of either object.
    output
        File of the results, .h5ad for one object, .h5mu for several modalities, .zarr for either.
    save_model
        Folder that the trained model is saved to, before the results are written, for PRAGASpike.load and load_model.
    load_model
        Folder of a saved model that is applied to the input; nothing is trained. Raw counts are prepared like those of
        training; what is prepared must have been so by the same recipe.
    overwrite
        Replace output and model if they are there, even if the output is the input.
    modalities
        NAME or NAME=KEY of those to use, such as rna=X_pca; an obsm key is taken as it is. Default: all, prepared.
    modality
        What an h5ad file holds. Default: recognised by its feature types, names and values.
    counts
        Whether values are counts. Default: those that are whole and not negative.
    keep_controls
        Take control features (negative control probes, blanks, ...) as features; they are left out by default.
    spatial_key
        Key of the coordinates in obsm.
    batch_key
        Column that tells several slices apart, or none. Default: one with a usual name (slice, section, sample, ...).
    label_key
        Column of true labels, to compare domains with, or none. Default: one with a usual name (domain, layer, ...).
    n_domains
        Number of domains. Default: as many as there are labels; without labels, no domains.
    encoder
        Attention between spikes: that of the quantized spike-driven transformer (spike) or of other spiking
        transformers; relu is the same model without spikes.
    residual
        Shortcut of a block: membranes or spikes (sew) are added.
    graph_fusion
        How the spatial graph and the feature graph are weighed: for each spot (attention), or by one quantized
        convolution (conv).
    n_layers
        Blocks of graph aggregation and attention.
    n_heads
        Heads of the attention.
    n_levels
        Levels of a spike count.
    n_copies
        Neurons of either sign that code a number.
    n_steps
        Time steps of ssa, sdt1, sdt2, qk_token, qk_channel and dssa.
    use_attention
        Attention over all spots of a slice.
    attention_windows
        Numbers of spots, the scales among which the heads are divided; none is the whole slice.
    weight_bits
        Bits of a weight: 2 to 8, learned or float.
    bit_budget
        Mean bits of a weight where they are learned.
    reparameterize
        Two linear maps in training where there is one in the end.
    n_latent
        Dimensions of the latent representation.
    n_spatial_neighbors
        Nearest spots of the spatial graph.
    n_feature_neighbors
        Spots of each feature graph.
    max_epochs
        Steps of training at most.
    lr
        Learning rate.
    early_stopping
        Stop by the error of spots kept out of the training loss, and keep the best epoch. On by default.
    early_stopping_patience
        Epochs within which that error must fall.
    validation_size
        Fraction of the spots that is kept out.
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
    stomics praga-spike domains.h5mu --load-model model --output again.h5mu --n-domains 6
    stomics praga-spike slice.h5mu --output two.h5mu --num-heads 4 --attention-windows 64 256 --weight-bits learned
    """
    settings: dict[str, Any] = {
        "encoder": encoder,
        "residual": residual,
        "graph_fusion": graph_fusion,
        "n_layers": n_layers,
        "n_heads": n_heads,
        "n_levels": n_levels,
        "n_copies": n_copies,
        "n_steps": n_steps,
        "use_attention": use_attention,
        "attention_windows": attention_windows,
        "weight_bits": weight_bits,
        "bit_budget": bit_budget,
        "reparameterize": reparameterize,
        "n_latent": n_latent,
        "n_spatial_neighbors": n_spatial_neighbors,
        "n_feature_neighbors": n_feature_neighbors,
    }
    training: dict[str, Any] = {
        "max_epochs": max_epochs,
        "lr": lr,
        "early_stopping": early_stopping,
        "early_stopping_patience": early_stopping_patience,
        "validation_size": validation_size,
    }
    files = _Files(input, output, save_model, load_model, overwrite)
    features = {"modalities": modalities, "modality": modality, "counts": counts, "keep_controls": keep_controls}
    keys = {"spatial_key": spatial_key, "batch_key": batch_key, "label_key": label_key}
    where = {"accelerator": accelerator, "devices": devices}
    _run("PRAGASpike", files, keys, n_domains, settings, training, seed, where, **features)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Files:
    """What a command reads and writes."""

    input: Path
    output: Path
    save_model: Path | None
    load_model: Path | None
    overwrite: bool


def _run(
    name: Literal["PRAGA", "PRAGASpike"],
    files: _Files,
    columns: dict[str, Any],
    n_domains: int | None,
    settings: dict[str, Any],
    training: dict[str, Any],
    seed: int,
    where: dict[str, Any],
    *,
    modalities: list[str] | None,
    modality: Literal["rna", "protein", "atac"] | None,
    counts: bool | None,
    keep_controls: bool,
) -> None:
    """Prepare, train or load, and write: all of a command but its options."""
    from stomics_tools.cli._checks import check_loading, check_numbers, check_paths
    from stomics_tools.cli._output import Clock, losses

    clock = Clock()
    output, save_model, load_model = files.output, files.save_model, files.load_model
    check_loading(load_model, {"save_model": save_model, "modalities": modalities, **settings, **training})
    check_paths([files.input], output, save_model, overwrite=files.overwrite)
    check_numbers(n_domains=n_domains, max_epochs=training["max_epochs"], seed=seed)

    # These bring torch, which help and a mistyped option need not wait for.
    from mudata import MuData

    from stomics_tools import model as models
    from stomics_tools.cli._annotation import Annotation
    from stomics_tools.cli._apply import apply_model, as_trained
    from stomics_tools.cli._domains import finish
    from stomics_tools.cli._features import usable_features
    from stomics_tools.cli._files import check_fits, check_writable, model_kept, read_input
    from stomics_tools.cli._prepare import as_mudata, representations

    cls: type[models.PRAGA] | type[models.PRAGASpike] = getattr(models, name)
    clock.step("import", f"stomics-tools {__version__}")
    report = partial(clock.say, "features")
    data = usable_features(read_input(files.input), modality, keep_controls=keep_controls, report=report)
    check_fits(data, output)
    if output.suffix == ".h5mu":
        data = as_mudata(data, modality, report=report)
    if load_model is not None:
        data, batch_key = as_trained(cls, load_model, data, columns["batch_key"], say=clock.say)
        columns = {**columns, "batch_key": batch_key}
    known = Annotation.of(data, **columns)
    clock.step("read", f"{files.input}, {data.n_obs} spots{known.by_slices}")
    for remark in known.remarks:
        clock.say("columns", remark)
    check_writable(data, output)
    last: dict[str, Any] = {"seed": seed, "output": output, "save_model": save_model, "clock": clock}
    if load_model is not None:
        apply_model(cls, load_model, data)
        clock.step("apply", f"the model in {load_model}")
        finish(data, data, cls._key, known, n_domains, **last)
        return
    keys = representations(
        data, modality, modalities, seed=seed, report=lambda line: clock.step("prepare", line), counts=counts
    )
    places: dict[str, Any] = {"spatial_key": columns["spatial_key"], "batch_key": known.slice_key}
    with known.named():
        if isinstance(data, MuData):
            cls.setup_mudata(data, keys, **places)
        else:
            cls.setup_anndata(data, keys, **places)
        model = cls(data, **_given(settings))
    model.train(**_given(training), seed=seed, **where, enable_progress_bar=sys.stderr.isatty())
    clock.step("train", f"{name}, {losses(model.history)}")
    with model_kept(model, output, save_model, overwrite=files.overwrite):
        finish(data, data, cls._key, known, n_domains, **last)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Options that were given: for the others the model has defaults."""
    return {name: value for name, value in options.items() if value is not None}
