"""Models side by side: each trained with several seeds on the same data, and scored alike."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scanpy import logging as logg

from stomics_tools import _keys
from stomics_tools._paths import user_path
from stomics_tools._validate import check_annotated, check_seeds
from stomics_tools.data import SpotsSpec, read_spots
from stomics_tools.metrics import score_labels, silhouette
from stomics_tools.tl._compare_input import Contender, check_contenders, check_n_domains, label_codes
from stomics_tools.tl._compare_rows import Rows
from stomics_tools.tl._compare_stage import Stage
from stomics_tools.tl._domains import spatial_domains
from stomics_tools.tl._peak_memory import PeakMemory
from stomics_tools.train._scvi_settings import progress_bar


def compare_models(
    adata: AnnData | MuData,
    models: Sequence[str] | Mapping[str, Mapping[str, Any]] | None = None,
    seeds: int | Sequence[int] = 5,
    *,
    modalities: Mapping[str, str],
    spatial_key: str = _keys.SPATIAL,
    batch_key: str | None = None,
    labels_key: str | None = None,
    n_domains: int | None = None,
    max_epochs: int | None = None,
    train_kwargs: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Train several models with several seeds on the same data, and score the domains that each finds.

    The domains are those of :func:`spatial_domains` on the latent representation, with the seed of the run. Every
    model has its turn with a seed before the next seed begins. Nothing is written into `adata`.

    Parameters
    ----------
    adata
        AnnData or MuData of one or several slices.
    models
        Names of ready ones: ``"praga"`` (:class:`~stomics_tools.model.PRAGA`, the published model), ``"praga_spike"``
        (:class:`~stomics_tools.model.PRAGASpike`) and ``"graphst"``, with their defaults; ``"spatial_components"``
        (:func:`~stomics_tools.tl.spatial_components`); ``"pca"``, and ``"smooth1"``, ``"smooth2"``, ``"smooth3"``, where the
        values are averaged so many times over the nearest spots beforehand (:func:`~stomics_tools.pp.smooth`). Or the name
        of each to the arguments of its constructor, among which may be ``"model"``, a class or one of ``"PRAGASpike"`` (the
        default), ``"PRAGA"``, ``"GraphST"``, ``"spatial_components"`` (with arguments ``n_components``, ``n_neighbors``,
        ``n_hops``, ``signal_threshold``) and ``"smooth"`` (with arguments ``n_hops``, ``n_neighbors``, ``n_components``), and
        ``"train"``, arguments of its ``train``. Default: praga, praga_spike, spatial_components, pca, smooth2. In earlier
        versions the first two were called original and enhanced, which is understood. All take the same values; models
        of one modality take all modalities side by side, each centred and scaled to a mean variance of one, missing
        values at their mean.
    seeds
        The seeds, or how many: 0, 1, ...
    modalities
        Name of each modality to its ``obsm`` key, layer, or ``"X"``.
    spatial_key
        ``obsm`` key of the coordinates.
    batch_key
        ``obs`` column of slices or patients.
    labels_key
        Column of ``adata.obs`` with the true domains. Spots without one (NaN) are trained on, but not scored.
    n_domains
        Number of domains to be found. Default: that of the true ones.
    max_epochs
        Epochs of every model, for a quick look. Default: those of each model.
    train_kwargs
        Arguments of ``train`` for all models that are trained, such as ``enable_progress_bar``; those of a model go
        before.
    out
        CSV file to which every finished run is added as it ends. A further call with the same arguments takes these
        runs from it and makes only those that are missing; models and seeds may be added. Arguments that are objects
        (such as callbacks) are told apart by their class only. One call at a time may write to a file.
    progress
        Show a bar over the runs.

    Returns
    -------
    One row a model and seed, in the order given, with the columns:

    ``model``, ``seed``
        The run.
    ``ari``, ``nmi``
        Agreement with the true domains (adjusted Rand index, normalised mutual information); only with `labels_key`.
    ``silhouette``
        Mean silhouette width of the found domains in the latent representation.
    ``reconstruction_mse``
        Mean squared error of the reconstruction of a modality over its variance about the means of its features in each
        slice, mean of the modalities: 0 is perfect, 1 is no better than those means, so that what slices differ by
        throughout earns nothing. Spots without a modality do not count.
        Models that predict a spot from its neighbours alone, or keep fewer dimensions, are not meant to come near 0.
        NaN for a model whose reconstruction is scaled spot by spot (the ``"sparse"`` preset of GraphST).
    ``seconds``
        Wall time of training and of computing the latent representation. The first run in a process may take longer
        by what is loaded or compiled once.
    ``peak_mib``
        Rise of the resident memory of the process over its state before the run, in MiB: the highest of samples taken
        every 20 ms during what ``seconds`` counts. Memory of a GPU is not in it.
    ``n_domains``
        Domains found.
    ``stability``
        Mean adjusted Rand index of the domains of all pairs of seeds of the model, the same in all its rows; NaN with
        one seed. For what is not trained it is that of the clustering.
    ``error``
        Empty, or why training diverged (``FloatingPointError``, or a latent representation that is not finite); the
        scores of such a run are NaN.

    Raises
    ------
    KeyError
        If a key does not exist.
    TypeError
        If an argument has the wrong type.
    ValueError
        If there is neither `labels_key` nor `n_domains`, if the data, `models` or `seeds` cannot be used, or if `out`
        was written with other data or arguments. All of these are raised before anything is trained.

    Examples
    --------
    >>> import stomics_tools as st
    >>> mdata = st.datasets.simulate_multiomics(n_obs=1000, n_domains=5)
    >>> st.pp.rna(mdata["rna"])
    >>> st.pp.protein(mdata["protein"])
    >>> modalities = {"rna": "X_pca", "protein": "X_protein"}
    >>> table = st.tl.compare_models(mdata, seeds=3, modalities=modalities, labels_key="domain", out="runs.csv")
    >>> st.pl.compare_models(table)
    """
    check_annotated(adata)
    seeds = check_seeds(seeds)
    contenders = check_contenders(models, max_epochs, train_kwargs or {})
    spots = read_spots(adata, SpotsSpec(dict(modalities), spatial_key, batch_key))
    labels = None if labels_key is None else label_codes(adata, labels_key)
    n_domains = check_n_domains(n_domains, labels, spots.n_obs)
    digest = hashlib.sha256(spots.fingerprint().encode())
    if labels is not None:
        digest.update(labels.tobytes())
    stage = Stage(spots, batch_key)
    for contender in contenders:
        with stage.model(contender):  # which checks its arguments
            pass
    scores = [*(() if labels is None else ("ari", "nmi")), "silhouette", "reconstruction_mse"]
    rows = Rows(
        [*scores, "seconds", "peak_mib", "n_domains"],
        data=digest.hexdigest()[:16],
        arguments={contender.name: contender.described(n_domains) for contender in contenders},
        out=None if out is None else user_path(out),
    )
    missing = [(contender, seed) for seed in seeds for contender in contenders if (contender.name, seed) not in rows]
    with progress_bar(total=len(missing), unit="run", disable=not progress) as bar:
        for i, (contender, seed) in enumerate(missing, start=1):
            bar.set_description(f"{contender.name}, seed {seed}")
            start = logg.info(f"comparing models: {contender.name!r}, seed {seed} (run {i} of {len(missing)})")
            rows.add(contender.name, seed, *_run(stage, contender, seed, labels, n_domains))
            logg.info("    finished", time=start)
            bar.update()
    return rows.table([contender.name for contender in contenders], seeds)


def _run(
    stage: Stage, contender: Contender, seed: int, labels: np.ndarray | None, n_domains: int
) -> tuple[dict[str, Any], np.ndarray | None]:
    """Values of a row, and the domains ``(n_obs,)`` unless training diverged."""
    with stage.model(contender) as model:
        error = ""
        with PeakMemory() as memory:
            start = time.perf_counter()
            try:
                model.train(seed=seed, key_added=None, **contender.train)
                latent = model.get_latent_representation()
                if not np.isfinite(latent).all():
                    raise FloatingPointError("the latent representation is not finite")
            except FloatingPointError as diverged:
                error = str(diverged) or "diverged"
            seconds = time.perf_counter() - start
        measured = {"seconds": seconds, "peak_mib": memory.mib, "error": error}
        if error:
            return measured, None
        scores, domains = _score(latent, labels, n_domains, seed)
        scores["reconstruction_mse"] = stage.reconstruction_error(model)
        return measured | scores, domains


def _score(
    latent: np.ndarray, labels: np.ndarray | None, n_domains: int, seed: int
) -> tuple[dict[str, float], np.ndarray]:
    """Scores of the domains of a latent representation ``(n_obs, n_latent)``, and these domains ``(n_obs,)``."""
    found = AnnData(obsm={"latent": latent})
    spatial_domains(found, n_domains, use_rep="latent", seed=seed)
    domains = found.obs[_keys.DOMAIN].cat.codes.to_numpy()
    scores = {"silhouette": silhouette(latent, domains, seed=seed), "n_domains": len(np.unique(domains))}
    if labels is not None:
        agreement = score_labels(labels, domains, ignore=[-1])
        scores |= {name: agreement[name] for name in ("ari", "nmi")}
    return scores, domains
