"""How the representation in an AnnData was made: recipes that are stored with it, and counts that they can prepare."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from anndata import AnnData
from scipy import sparse

from stomics_tools import _keys, _validate
from stomics_tools.data._log_counts import are_counts
from stomics_tools.data._matrix import open_matrix, to_dense
from stomics_tools.data._recipe import ENTRY, Recipe

logger = logging.getLogger("stomics_tools")

_COUNTS = "counts"  # the usual name of the layer of counts
_N_CHECKED = 16
_TOLERANCE = 1e-3


def stored_recipe(adata: AnnData, key: str, *, argument: str, where: str) -> Recipe | None:
    """Recipe that is stored in ``uns[key]``, if there is one."""
    entry = adata.uns.get(key)
    if not isinstance(entry, Mapping) or ENTRY not in entry:
        return None
    return Recipe.from_plain(entry[ENTRY], argument=argument, where=f"{where}.uns[{key!r}][{ENTRY!r}]")


def keys_of_recipes(adata: AnnData) -> list[str]:
    """Keys of ``uns`` under which a recipe is stored."""
    return [key for key, entry in adata.uns.items() if isinstance(entry, Mapping) and ENTRY in entry]


@dataclass(frozen=True)
class Origin:
    """How an array of ``obsm`` was made.

    Parameters
    ----------
    key
        Its key.
    marks
        Numbers ``(n_comps,)`` that are the same for arrays of one fit, such as scanpy's PCA: ``"variance"``, and a sum
        of the ``"loadings"``. They outlive files and subsets of spots; loadings do not outlive a subset of genes. There
        are none where nothing tells.
    recipe
        The recipe of ours, if there is one.
    source
        Key of the array that this one was averaged from by :func:`stomics_tools.pp.smooth`; marks are then those of
        that array.
    """

    key: str
    marks: Mapping[str, list[float]]
    recipe: Recipe | None = None
    source: str | None = None

    def state(self) -> dict[str, Any]:
        """The same as plain values and arrays."""
        recipe = None if self.recipe is None else self.recipe.plain()
        return {"key": self.key, "marks": dict(self.marks), "recipe": recipe, "source": self.source}


def origin_of(adata: AnnData, key: str, values: Any, *, argument: str, where: str) -> Origin:
    """Find out how ``obsm[key]`` was made, whose `values` were opened."""
    recipe = stored_recipe(adata, key, argument=argument, where=where)
    source = _source(adata, key)
    if source is not None:
        opened = open_matrix(adata.obsm[source], argument=argument, where=f"{where}.obsm[{source!r}]")
        made = origin_of(adata, source, opened, argument=argument, where=where)
        own = {} if made.recipe is None else {"recipe": _weighted_sum(made.recipe.loadings)}
        return Origin(key, {**made.marks, **own}, source=source)
    # scanpy's defaults have names of their own; `key_added` of `sc.pp.pca` is the name of all three.
    by_scanpy = key == _keys.PCA and ("pca" in adata.uns or "PCs" in adata.varm)
    if recipe is not None and recipe.n_comps == values.shape[1]:
        later = by_scanpy and _has_variance(values, adata.uns.get("pca"))
        if not later and _made_by(recipe, adata, key, values, where):
            return Origin(key, _marks_of_components(adata, key, key, values.shape[1]), recipe)
    if by_scanpy:
        return Origin(key, _marks_of_components(adata, "pca", "PCs", values.shape[1]))
    return Origin(key, {} if recipe is not None else _marks_of_components(adata, key, key, values.shape[1]))


def _marks_of_components(adata: AnnData, uns: str, varm: str, n_comps: int) -> dict[str, list[float]]:
    """Marks of principal components whose variances and loadings are stored beside them."""
    marks = {}
    entry = adata.uns.get(uns)
    if isinstance(entry, Mapping) and "variance" in entry:
        marks["variance"] = np.asarray(entry["variance"], dtype=np.float64).ravel().tolist()
    loadings = np.asarray(adata.varm[varm]) if varm in adata.varm else np.zeros(0)
    if loadings.shape[1:] == (n_comps,) and loadings.dtype.kind in "fiu":
        marks["loadings"] = _weighted_sum(loadings)
    return marks


def _weighted_sum(loadings: np.ndarray) -> list[float]:
    """Sum of loadings ``(n_features, n_comps)`` by weights that tell the features apart."""
    return (np.cos(np.arange(len(loadings)) ** 2) @ loadings.astype(np.float64)).tolist()


def _source(adata: AnnData, key: str) -> str | None:
    """Key of the array that ``obsm[key]`` was averaged from, if that is known and there."""
    entry = adata.uns.get(key)
    params = entry.get("params") if isinstance(entry, Mapping) else None
    source = params.get("use_rep") if isinstance(params, Mapping) and "n_hops" in params else None
    return str(source) if source in adata.obsm and source != key else None


def _same_mark(found: list[float], expected: list[float]) -> bool:
    """Whether two marks are the same, up to what differs between two machines that make the same fit."""
    if len(found) != len(expected):
        return False
    return bool(np.allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max(initial=0)))


def recipes_of(state: Mapping[str, Any]) -> dict[str, Recipe]:
    """Recipes of the modalities of a state, see :meth:`Spots.state`."""
    found = {name: recipe_of_origin(modality.get("origin"), name) for name, modality in state["modalities"].items()}
    return {name: recipe for name, recipe in found.items() if recipe is not None}


def recipe_of_origin(origin: Mapping[str, Any] | None, name: str) -> Recipe | None:
    """Recipe of an :meth:`Origin.state`, if there is one."""
    plain = (origin or {}).get("recipe")
    return None if plain is None else Recipe.from_plain(plain, argument="modalities", where=name)


def check_origin(name: str, found: Origin | None, expected: Mapping[str, Any] | None) -> None:
    """Check that an array was made like that of training.

    Parameters
    ----------
    name
        The modality.
    found
        How the new array was made.
    expected
        :meth:`Origin.state` of the array of training.

    Raises
    ------
    ValueError
        If it was made otherwise.

    Warns
    -----
    UserWarning
        If nothing says how it was made, though the array of training did.
    """
    if found is None or not expected or not (expected["marks"] or expected["recipe"]):
        return
    recipe, key = recipe_of_origin(expected, name), expected["key"]
    if recipe is not None and found.recipe is not None and recipe.gives_the_same_as(found.recipe):
        return
    if any(_same_mark(found.marks.get(mark, []), value) for mark, value in expected["marks"].items()):
        return
    if expected.get("source") is not None:
        cure = f"Prepare `obsm[{expected['source']!r}]` by `reference=training`, and average that by `st.pp.smooth`."
    elif recipe is None:
        cure = (
            "Project them with the loadings of training and store these in `varm`; or prepare the data of training by "
            "`st.pp.rna`, and new data by `st.pp.rna(new, reference=training)`."
        )
    else:
        added = "" if key in (_keys.PCA, _keys.PROTEIN, _keys.LSI) else f", key_added={key!r}"
        cure = (
            f"Prepare new data like these: `st.pp.{recipe.kind}(new, reference=training{added})`; or "
            f"delete `obsm[{key!r}]`, and the model prepares the raw counts."
        )
    if found.marks or found.recipe is not None:
        raise ValueError(
            f"Modality {name!r}: `obsm[{key!r}]` was made by another fit than the data of training, so that its columns "
            f"mean something else. {cure}"
        )
    warnings.warn(
        f"Modality {name!r}: nothing says whether `obsm[{key!r}]` was made like the data of training. {cure}",
        UserWarning,
        stacklevel=6,
    )


def _has_variance(values: Any, entry: Any) -> bool:
    """Whether the columns of an opened array have the variances that scanpy's PCA recorded: it wrote the array last."""
    if not isinstance(entry, Mapping) or "variance" not in entry or values.shape[0] < 2:
        return False
    variance = np.asarray(entry["variance"], dtype=np.float64)
    if variance.shape != (values.shape[1],):
        return False
    array = to_dense(values, own=False)
    return bool(np.allclose(array.var(axis=0, ddof=1, dtype=np.float64), variance, rtol=1e-2))


def find_counts(
    adata: AnnData, layer: str | None, recipe: Recipe, *, counts: bool | None = None, argument: str, where: str
) -> tuple[sparse.csr_matrix, str]:
    """Counts that a recipe can prepare, as CSR, and their name in messages.

    Without a `layer` they are looked for in the layer that the recipe was fitted on, in ``X``, and in the layer
    ``"counts"``. With `counts` the first of these are counts, whole or not.

    Raises
    ------
    KeyError
        If there is no such layer.
    ValueError
        If there are no values of the kind that the recipe was fitted on: whole counts, or others.
    """
    if layer is not None:
        _validate.check_key(
            layer, [key for key in adata.layers if key is not None], argument="layer", where=f"{where}.layers"
        )
        places: list[str | None] = [layer]
    else:
        usual = dict.fromkeys([recipe.layer, None, _COUNTS])
        places = [place for place in usual if place is None or place in adata.layers]
    looked = []
    for place in places:
        raw = adata.X if place is None else adata.layers[place]
        label = f"{where}.X" if place is None else f"{where}.layers[{place!r}]"
        if raw is None:
            continue
        values = sparse.csr_matrix(open_matrix(raw, argument=argument, where=label))
        whole = are_counts(values)
        if not np.isfinite(values.data).all():
            found = "NaN or infinite values"
        elif values.nnz and values.data.min() < 0:
            found = "negative values"
        elif counts or whole == recipe.whole:
            return values, label
        else:
            found = "whole counts" if whole else "fractions, such as logarithms"
        looked.append(f"`{label}` holds {found}")
    what = "raw counts" if recipe.whole else "values that are not whole, as the data of its fit were"
    cure = where_counts_are(adata, where) if recipe.whole else " Prepare the data by a recipe fitted on such values."
    if any("counts" in found or "fractions" in found for found in looked):
        cure += f" If they are counts, corrected ones, say: `st.pp.{recipe.kind}(..., reference=..., counts=True)`."
    raise ValueError(
        f"`{argument}`: the recipe prepares {what}, but {' and '.join(looked) or f'`{where}.X` is empty'}.{cure}"
    )


def where_counts_are(adata: AnnData, where: str = "adata") -> str:
    """A sentence that names the place where an AnnData seems to hold raw counts."""
    for name in [key for key in adata.layers if key is not None]:  # anndata 0.13 lists X as None
        if holds_counts(adata.layers[name]):
            return f" `{where}.layers[{name!r}]` holds whole counts: name it as `layer`."
    if adata.raw is not None and holds_counts(adata.raw.X):
        return (
            f" `{where}.raw` holds whole counts of {adata.raw.n_vars} genes: prepare `{where}.raw.to_adata()`, and take "
            "over the result."
        )
    return " Name the layer that holds the raw counts."


def holds_counts(raw: Any) -> bool:
    """Whether a matrix holds whole, non-negative values and some above zero."""
    try:
        values = sparse.csr_matrix(open_matrix(raw, argument="layer", where="the matrix"))
    except ValueError:
        return False
    return bool(np.isfinite(values.data).all() and values.data.any() and are_counts(values))


def _made_by(recipe: Recipe, adata: AnnData, key: str, opened: Any, where: str) -> bool:
    """Whether some rows of an array are what its recipe makes of their counts; True where that cannot be seen."""
    raw = adata.X if recipe.layer is None else adata.layers.get(recipe.layer)
    if not isinstance(raw, np.ndarray) and not sparse.issparse(raw):
        return True
    names = adata.var_names.astype(str)
    needed = recipe.total_features or recipe.features
    if not names.is_unique or (names.get_indexer(list(needed)) < 0).any():
        return True
    rows = np.unique(np.linspace(0, adata.n_obs - 1, _N_CHECKED).astype(np.int64))
    values = to_dense(opened[rows], own=False)
    counts = sparse.csr_matrix(sparse.csr_matrix(raw)[rows] if sparse.issparse(raw) else raw[rows])
    there = np.isfinite(values).all(axis=1)
    data = counts.data
    if not there.any() or not np.isfinite(data).all() or (data.size and data.min() < 0):
        return True
    if recipe.whole != are_counts(counts):
        return True  # the counts were replaced since, by logarithms say
    made = recipe.transform(counts[there], names, argument=key, where=where)
    if np.abs(made - values[there]).max() <= _TOLERANCE * max(float(np.abs(made).max()), 1.0):
        return True
    logger.warning(
        "`%s.obsm[%r]` is not what the recipe in `uns[%r]` makes of the counts: it was changed since, or the counts "
        "were. It is taken as an array of unknown origin.",
        where,
        key,
        key,
    )
    return False
