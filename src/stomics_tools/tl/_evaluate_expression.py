"""How well expression is predicted in patients, sections or spots that a method has not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from anndata import AnnData
from scanpy import logging as logg

from stomics_tools import _keys
from stomics_tools._validate import check_annotated, check_integer, check_number, check_option, check_seeds
from stomics_tools.data import expression_folds, variable_genes
from stomics_tools.data._expression import Normalization
from stomics_tools.data._splits import Split
from stomics_tools.tl._evaluate_data import read_spot_counts
from stomics_tools.tl._evaluate_methods import Keys, check_methods, has_seed
from stomics_tools.tl._evaluate_stage import Stage


def evaluate_expression(
    adata: AnnData,
    methods: Mapping[str, Any],
    *,
    features_key: str = _keys.IMAGE,
    layer: str | None = None,
    patient_key: str | None = None,
    section_key: str | None = None,
    spatial_key: str = _keys.SPATIAL,
    split: Split = "patient",
    held_out: str | Sequence[str] | None = None,
    n_folds: int = 5,
    n_genes: int = 200,
    min_share: float = 0.1,
    min_counts: float = 100,
    deep_counts: float | None = 1000,
    normalization: Normalization = "log1p_cp10k",
    seeds: int | Sequence[int] = 1,
    levels: Sequence[float] = (0.8,),
    n_samples: int = 0,
    ceiling: bool = False,
) -> pd.DataFrame:
    """Score predictions of expression from features, on what is left out of training.

    For each fold the genes are chosen on its training part alone: the most variable ones in log1p of counts per 10,000
    among those found in `min_share` of the spots. Methods get the training part, and of the test part the features,
    coordinates and ``obs`` only. Nothing is written into `adata`.

    Parameters
    ----------
    adata
        Raw counts of all genes in ``X`` or `layer` (NaN: not measured in that spot), and features in
        ``obsm[features_key]``.
    methods
        Name of each method to one of:

        - the name of a baseline: ``"training_mean"``, ``"pca_ridge"``, ``"knn_retrieval"``, ``"mlp"``,
          ``"gradient_boosting"``, ``"mfbp"``;
        - ``"var_st"``, or a mapping of arguments of ``model.VARST``; ``"setup"`` and ``"train"`` among them hold further
          ones of ``setup_anndata`` and of ``train``;
        - an estimator ``fit(X, Y)``, ``predict(X)`` over arrays, such as those of :mod:`stomics_tools.baselines` or of
          scikit-learn. Where they take ``groups`` they get the patients, or the sections of a single patient;
        - a model ``fit(train)``, ``predict(test)`` over AnnData with the normalised expression of the chosen genes in
          ``X`` (float32), counts in ``layers["counts"]``, and `obs`, features and coordinates as in `adata`; in `test`
          the expression and counts are zeros.

        A method may also have ``interval(test, level)``, which returns lower and upper ends, and
        ``sample(test, n, seed)``, which returns ``(n, n_obs, n_genes)``. Each fold gets a fresh copy. Where it has an
        attribute ``seed`` or ``random_state`` this is set to the seed of the run; without one there is one run.
    features_key
        ``obsm`` key of the features.
    layer
        Layer of the counts. Default: ``X``.
    patient_key
        ``obs`` column of the patients; must be given for ``split="patient"``.
    section_key
        ``obs`` column of the sections.
    spatial_key
        ``obsm`` key of the coordinates, if there are any.
    split
        What is left out at a time: a ``"patient"``, a ``"section"``, or ``"random_spots"`` (one of `n_folds` parts).
        The latter two tell nothing of another patient.
    held_out
        Patients or sections to leave out, each with all the rest as training part. Default: all, one after another.
    n_folds
        Parts of ``split="random_spots"``.
    n_genes
        Genes to predict.
    min_share
        Share of the training spots in which a gene must be found.
    min_counts
        Spots with fewer total counts are dropped before all else.
    deep_counts
        Spots with at least so many counts are scored once more by themselves. ``None``: not.
    normalization
        What is predicted: ``"log1p_cp10k"``; ``"hest"``, log1p of the counts; ``"stem"``, log2 of the counts + 1. In
        the latter two most of what can be predicted is sequencing depth.
    seeds
        The seeds, or how many: 0, 1, ...
    levels
        Of the intervals, for methods that have them. Where training holds too few patients for a level, its scores are
        left out (NaN), with a warning.
    n_samples
        Samples of methods that draw them; 0: none are scored.
    ceiling
        Add rows of the method ``"noise ceiling"``, with the mean of :func:`~stomics_tools.metrics.noise_ceiling` over
        the genes as ``pcc`` and, without depth, ``pcc_depth_out``; only for ``"log1p_cp10k"``.

    Returns
    -------
    A row for each method, fold, seed, section and spots that are scored together:

    ``method``, ``fold``, ``seed``
        The run; ``fold`` is the name of what was left out.
    ``section``
        ``"all"`` for the whole test part, and with `section_key` each section of it by itself.
    ``min_counts``
        `min_counts` for all spots, `deep_counts` for those with as many counts. Fewer than 3 spots are not scored.
    scores
        Those of :func:`~stomics_tools.metrics.score_expression`; genes are ranked for ``pcc_<k>`` by their variance in
        training. ``coverage_<level>`` and ``width_<level>`` of intervals, and those of
        :func:`~stomics_tools.metrics.score_samples`.
    ``n_train``, ``seconds``
        Training spots; wall time of training and prediction.

    ``attrs["panels"]`` holds the genes of each fold, the most variable first.

    Raises
    ------
    KeyError
        If a key does not exist.
    TypeError
        If an argument has the wrong type.
    ValueError
        If there is a single patient or section to leave out, sections belong to several patients, counts are not
        counts, features are not finite, or a method does not predict all spots and genes with finite numbers.

    Examples
    --------
    >>> import stomics_tools as st
    >>> methods = {"ridge": "pca_ridge", "perceptron": st.baselines.MLP(hidden=(128,))}
    >>> table = st.tl.evaluate_expression(adata, methods, patient_key="patient", section_key="section", seeds=5)
    >>> table[table["section"] == "all"].groupby("method")[["pcc", "pcc_depth_out", "r2"]].mean()
    """
    check_annotated(adata, mudata=False)
    check_methods(methods)
    chosen_seeds = check_seeds(seeds)
    check_integer(n_samples, argument="n_samples", minimum=0)
    check_option(normalization, ("log1p_cp10k", "hest", "stem"), argument="normalization")
    for level in levels:
        check_number(level, argument="levels", low=0, high=1)
    if n_samples == 1:
        raise ValueError("`n_samples` must be 0 or at least 2, found 1.")
    if ceiling and normalization != "log1p_cp10k":
        raise ValueError(f"`ceiling` is that of 'log1p_cp10k', found `normalization={normalization!r}`.")
    spots = read_spot_counts(
        adata, features_key=features_key, spatial_key=spatial_key, layer=layer, min_counts=min_counts
    )
    folds = expression_folds(spots.obs, split=split, patient_key=patient_key, section_key=section_key, n_folds=n_folds)
    if held_out is not None:
        held_out = [held_out] if isinstance(held_out, str) else held_out
        for name in held_out:
            check_option(str(name), [fold.name for fold in folds], argument="held_out")
        folds = [fold for fold in folds if fold.name in {str(name) for name in held_out}]
    if split != "patient":
        logg.warning(
            f"`split={split!r}`: training may hold spots of the same patient, scores are not those of another."
        )

    rows: list[dict[str, Any]] = []
    panels: dict[str, list[str]] = {}
    for fold in folds:
        panel = variable_genes(spots.counts[fold.train], spots.total[fold.train], n_genes, min_share=min_share)
        if not len(panel):
            raise ValueError(f"`min_share`: no gene is found in {min_share:g} of the training spots of {fold.name!r}.")
        panels[fold.name] = spots.genes[panel].tolist()
        keys = Keys(features_key, spatial_key, patient_key, section_key)
        stage = Stage(spots, fold, panel, normalization, keys, min_counts, deep_counts)
        if ceiling:
            rows += stage.ceiling(chosen_seeds[0])
        for name, method in methods.items():
            for seed in chosen_seeds if has_seed(method) else chosen_seeds[:1]:
                start = logg.info(f"evaluating {name!r}: {fold.name!r} left out, seed {seed}")
                rows += stage.run(name, method, seed, levels, n_samples)
                logg.info("    finished", time=start)
    table = pd.DataFrame(rows)
    last = ["n_train", "seconds"]
    table = table[[*(column for column in table if column not in last), *last]]
    table.attrs["panels"] = panels
    return table
