"""``stomics var-st``."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any, Literal

from stomics_tools import __version__

_STAGE1 = ("output", "predict", "save_model")
"""Options that stage 1 alone has no use for."""
_LOADED = ("stage1", "predict", "save_model", "max_epochs", "batch_size", "lr", "n_top_genes", "counts")
"""Options that a model which is trained already has no use for."""


def var_st(
    input: Path,
    *,
    output: Path | None = None,
    predict: Path | None = None,
    load_model: Path | None = None,
    save_model: Path | None = None,
    overwrite: bool = False,
    training_stage: Literal["both", 1, 2] = "both",
    stage1: Path | None = None,
    modality: str | None = None,
    keep_controls: bool = False,
    features_key: str = "X_image",
    layer: str | None = None,
    counts: bool | None = None,
    n_top_genes: int | None = None,
    spatial_key: str | None = "spatial",
    patient_key: str | None = None,
    section_key: str | None = None,
    covariate_keys: list[str] | None = None,
    size: Literal["tiny", "small", "paper"] = "small",
    gene_tree: Literal["correlation", "order"] | None = None,
    quantizer: Literal["fsq", "ema", "vq"] | None = None,
    n_neighbors: int | None = None,
    level: float = 0.8,
    max_epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    seed: int = 0,
    accelerator: str = "auto",
    devices: int | str = "auto",
) -> None:
    """Gene expression from histology (VARST).

    Trains on spots with image features and expression, and writes predictions: layers["var_st"] (expected expression),
    layers["var_st_lower"] and layers["var_st_upper"] (interval), obsm["X_var_st"] (latent representation), and settings
    in uns["var_st"]. Where genes differ from those of training, expression and interval are arrays in obsm instead,
    with the genes of their columns in uns["var_st"]["gene_names"].

    Parameters
    ----------
    input
        Spots with features and expression: an h5ad or h5mu file, or a zarr folder of either object.
    output
        File of the predictions, .h5ad, .h5mu or .zarr; only training stage 1 has none.
    predict
        Other spots, which need features but no expression: these are predicted and written instead of the input.
    load_model
        Folder of a saved model that predicts the input, which needs no expression; nothing is trained.
    save_model
        Folder that the trained model is saved to, for VARST.load and load_model.
    overwrite
        Replace what is written if it is there, even if the output is the input.
    training_stage
        1: the codes of expression alone. 2: their prediction from images, by the codes in stage1. Both by default.
    stage1
        Folder of stage 1: written by training stage 1 (and both, if it is given), read by training stage 2.
    modality
        Modality of an h5mu file that is used. Default: the only one. Of an h5ad file with features of several kinds, the
        kind that is used, by default rna; of any other its name in h5mu.
    keep_controls
        Take control features (negative control probes, blanks, ...) as genes; they are left out by default.
    features_key
        Key of the image features in obsm.
    layer
        Layer of the expression, counts or normalised. Default: X.
    counts
        Whether values are counts. Default: those that are whole and not negative.
    n_top_genes
        Learn the most variable genes alone; predictions are then arrays in obsm. Default: all genes of the input.
    spatial_key
        Key of the coordinates in obsm; null if there are none.
    patient_key
        Column of the patients; name it where there are several, for intervals that hold for new ones.
    section_key
        Column of the sections. Default: patients.
    covariate_keys
        Columns of further conditions.
    size
        Dimensions of the model; paper: those of the published one.
    gene_tree
        What groups genes: correlation, or their order.
    quantizer
        Of the codes.
    n_neighbors
        Nearest spots whose mean features are added.
    level
        Share of the values that the interval is to hold.
    max_epochs
        Epochs of each stage. Default: as many as show 20,000 spots to it, within limits.
    batch_size
        Spots of a step, of each stage. Default: 256 in stage 1, 64 in stage 2.
    lr
        Learning rate, of each stage. Default: 0.0002 in stage 1, 0.001 in stage 2.
    seed
        Seed of everything random.
    accelerator
        Of Lightning: auto, cpu, gpu, ...
    devices
        Of Lightning: auto, or how many.

    Examples
    --------
    stomics simulate histology --output spots.h5ad --n-patients 3 --n-sections 1
    stomics var-st spots.h5ad --output predicted.h5ad --patient-key patient --size tiny --save-model model
    stomics var-st spots.h5ad --load-model model --output again.h5ad
    """
    from stomics_tools.cli._checks import check_model_folder, check_numbers, check_paths
    from stomics_tools.cli._output import Clock, losses

    clock = Clock()
    given = {name: value for name, value in locals().items() if value is not None}
    _check_stages(given)
    inputs = [input] if predict is None else [input, predict]
    check_paths(inputs, output, save_model, overwrite=overwrite)
    if stage1 is not None and training_stage != 2:
        check_model_folder(stage1, overwrite=overwrite, argument="stage1")
    check_numbers(max_epochs=max_epochs, seed=seed)

    # These bring torch, which help and a mistyped option need not wait for.
    from stomics_tools._validate import check_integer, check_key
    from stomics_tools.cli._files import (
        check_writable,
        model_kept,
        named,
        one_modality,
        read_input,
        write_output,
        written,
    )
    from stomics_tools.cli._genes import chosen_genes
    from stomics_tools.model import VARST

    clock.step("import", f"stomics-tools {__version__}")
    where: dict[str, Any] = {"output": output or input, "spatial_key": spatial_key, "keep_controls": keep_controls}
    where["report"] = partial(clock.say, "features")
    adata, whole = one_modality(read_input(input), modality, **where)
    if load_model is not None:
        assert output is not None
        with named("load_model"):
            model = VARST.load(load_model)
        clock.step("read", f"{input}, {adata.n_obs} spots; model of {len(model.gene_names)} genes")
        check_writable(whole, output)
        model.write_results(adata, level=level)
        clock.step("predict", f"interval of {level:.0%}")
        write_output(whole, output)
        clock.step("write", str(output))
        return

    target = adata
    if n_top_genes is not None:
        check_integer(n_top_genes, argument="n_top_genes")
        if layer is not None:
            check_key(layer, adata.layers, argument="layer", where="adata.layers")
        adata = adata[:, chosen_genes(adata, layer, n_top_genes, counts)].copy()
    VARST.setup_anndata(
        adata,
        features_key,
        layer=layer,
        spatial_key=spatial_key,
        patient_key=patient_key,
        section_key=section_key,
        covariate_keys=covariate_keys,
        counts=counts,
    )
    model = VARST(adata, size=size, gene_tree=gene_tree, quantizer=quantizer, n_neighbors=n_neighbors)
    if output is not None:
        model.check_level(level)  # after training it would be too late
    unit = "counts" if model._state["counts"] else "values as they are"
    clock.step("read", f"{input}, {adata.n_obs} spots, {adata.n_vars} genes, {unit}")
    if predict is not None:
        target, whole = one_modality(read_input(predict, argument="predict"), modality, **where)
        clock.step("read", f"{predict}, {target.n_obs} spots")
    if output is not None:
        check_writable(whole, output)
    model.set_training_stage(training_stage)
    if training_stage == 2:
        assert stage1 is not None
        with named("stage1"):
            model.load_stage1(stage1, seed=seed)
    shared: dict[str, Any] = {
        name: value for name, value in (("batch_size", batch_size), ("lr", lr)) if value is not None
    }
    try:
        model.train(
            max_epochs=max_epochs,
            seed=seed,
            accelerator=accelerator,
            devices=devices,
            enable_progress_bar=sys.stderr.isatty(),
            key_added=None,
            **shared,
        )
    except Exception as error:
        if stage1 is not None and training_stage == "both" and "stage1_train_loss" in model.history_:
            model.save_stage1(stage1, overwrite=overwrite)
            error.add_note(f"Stage 1 is in '{stage1}': go on from it by `--training-stage 2`.")
        raise
    trained = [name for name in ("stage1", "stage2") if f"{name}_train_loss" in model.history]
    how = "; ".join(f"{name}, {losses(model.history, f'{name}_train_loss')}" for name in trained)
    clock.step("train", f"VARST {how}")
    if stage1 is not None and training_stage != 2:
        model.save_stage1(stage1, overwrite=overwrite)
        clock.step("write", str(stage1))
    if output is not None:
        with model_kept(model, output, save_model, overwrite=overwrite):
            model.write_results(target, level=level)
            clock.step("predict", f"interval of {level:.0%}")
            write_output(whole, output)
            clock.step("write", written(output, save_model))


def _check_stages(given: dict[str, Any]) -> None:
    """Raise ``ValueError`` for options that contradict each other or are missing."""
    stage = given["training_stage"]
    if "load_model" in given:
        unused = [name for name in _LOADED if name in given] + (["training_stage"] if stage != "both" else [])
        if unused:
            raise ValueError(f"`{unused[0]}` is of training, but `load_model` names a trained model. Leave one out.")
    if stage in (1, 2) and "stage1" not in given:
        what = "is written to" if stage == 1 else "was written to"
        raise ValueError(f"`stage1`: name the folder that stage 1 {what}.")
    if stage == 1:
        unused = [name for name in _STAGE1 if name in given]
        if unused:
            raise ValueError(f"`{unused[0]}`: stage 1 alone predicts nothing. Leave it out, or train both stages.")
    elif "output" not in given:
        raise ValueError("`output`: name the file of the predictions.")
