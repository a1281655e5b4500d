"""All scores of a labelling at once."""

from __future__ import annotations

from typing import Any

from stomics_tools._by_name import align_rows
from stomics_tools.metrics._embedding import silhouette
from stomics_tools.metrics._graph import local_purity, morans_i_labels
from stomics_tools.metrics._labels import label_codes, score_labels


def score_domains(
    predicted: Any,
    *,
    true: Any = None,
    graph: Any = None,
    embedding: Any = None,
    ignore: Any = (),
    seed: int = 0,
) -> dict[str, float]:
    """Every score that the given arrays allow.

    Parameters
    ----------
    predicted
        Predicted domains ``(n_obs,)``.
    true
        True labels ``(n_obs,)``: adds the scores of :func:`score_labels`. Series and DataFrames are brought into the
        order of `predicted` by the names of their spots; arrays go by position.
    graph
        Sparse graph of the spots ``(n_obs, n_obs)``, in the order of `predicted`: adds ``morans_i`` and ``local_purity`` of the predicted domains.
    embedding
        Representation ``(n_obs, n_features)``: adds the ``silhouette`` of the predicted domains in it.
    ignore
        True label, or labels, that mean "unlabelled".
    seed
        Of the subsample of :func:`silhouette`.

    Returns
    -------
    Name of each score to its value, with the number of predicted domains as ``n_domains``.
    """
    predicted, true, embedding = align_rows({"predicted": predicted, "true": true, "embedding": embedding})
    scores = {"n_domains": float(label_codes(predicted, argument="predicted").max(initial=-1) + 1)}
    if true is not None:
        scores |= score_labels(true, predicted, ignore=ignore)
    if graph is not None:
        scores |= {"morans_i": morans_i_labels(predicted, graph), "local_purity": local_purity(predicted, graph)}
    if embedding is not None:
        scores["silhouette"] = silhouette(embedding, predicted, seed=seed)
    return scores
