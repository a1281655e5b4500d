"""Preparing new data like other data before, and recipes as files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scanpy import logging as logg

from stomics_tools import _keys
from stomics_tools._paths import replacing, user_path
from stomics_tools._validate import check_annotated, check_new_key
from stomics_tools.data._origin import find_counts, keys_of_recipes, stored_recipe
from stomics_tools.data._recipe import Kind, Recipe
from stomics_tools.pp._matrix import Components, write_components

_HEADER = "stomics_tools_recipe"


def save_recipe(adata: AnnData, path: str | Path, key: str = _keys.PCA) -> None:
    """Write the recipe of a representation to a file, by which other data can be prepared alike later.

    The file holds arrays and names, no counts: safetensors, with a header in JSON. No code is run when it is read.

    Parameters
    ----------
    adata
        Annotated data prepared by :func:`rna`, :func:`protein` or :func:`atac`.
    path
        File to be written, replaced if it is there; usually it ends in ``.safetensors``.
    key
        ``key_added`` of the recipe.

    Raises
    ------
    KeyError
        If there is no recipe under this key; the message lists those that are there.
    ValueError
        If `path` is a folder.
    """
    check_annotated(adata, mudata=False)
    recipe = _recipe_of(adata, key, argument="key")
    path = user_path(path)
    if path.is_dir():
        raise ValueError(f"`path`: {str(path)!r} is a folder. Name a file, such as 'rna.safetensors'.")
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = recipe.plain()
    arrays = {name: value for name, value in plain.items() if isinstance(value, np.ndarray)}
    rest = {name: value for name, value in plain.items() if name not in arrays}
    with replacing(path) as part:
        save_file(arrays, part, metadata={_HEADER: json.dumps({**rest, "fingerprint": recipe.fingerprint})})


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe that :func:`save_recipe` wrote; ``reference=path`` does so by itself.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    The recipe, to be given as ``reference``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it holds no recipe, or is damaged.
    """
    path = user_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`reference`: no file {str(path)!r}. Write one by `st.pp.save_recipe`.")
    try:
        with safe_open(path, "numpy") as file:
            header = json.loads((file.metadata() or {})[_HEADER])
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"`reference`: {str(path)!r} holds no recipe of `st.pp.save_recipe` ({error!r}).") from error
    recipe = Recipe.from_plain({**header, **arrays}, argument="reference", where=str(path))
    if recipe.fingerprint != header.get("fingerprint"):
        raise ValueError(f"`reference`: {str(path)!r} is damaged or was changed after it was written.")
    return recipe


def prepare_alike(
    adata: AnnData,
    kind: Kind,
    reference: AnnData | Recipe | str | Path,
    given: Mapping[str, tuple[Any, Any]],
    *,
    layer: str | None,
    counts: bool | None,
    key_added: str,
    copy: bool,
) -> AnnData | None:
    """Prepare `adata` by a recipe that was fitted before; nothing is fitted.

    `given` are the arguments that the recipe overrides, each with its default. Raises ``ValueError`` for one that has
    another value.
    """
    without_effect = [
        f"`{name}={value!r}`" for name, (value, default) in given.items() if value is not default and value != default
    ]
    if without_effect:
        raise ValueError(
            f"{', '.join(without_effect)} without effect: with `reference` nothing is fitted, and the recipe says all "
            "of this. Leave it out, or leave out `reference`."
        )
    check_new_key(key_added, argument="key_added")
    recipe = _find(reference, kind, key_added)
    argument = "adata" if layer is None else "layer"
    values, where = find_counts(adata, layer, recipe, counts=counts, argument=argument, where="adata")
    start = logg.info(f"preparing {kind} like the reference")
    scores = recipe.transform(values, adata.var_names, argument="adata", where=where)
    at = adata.var_names.astype(str).get_indexer(list(recipe.features))
    adata = adata.copy() if copy else adata
    params = {
        "recipe": kind,
        "layer": layer,
        "target_sum": recipe.target_sum,
        "n_comps": recipe.n_comps,
        "reference": recipe.fingerprint,
    }
    if kind == "rna":
        adata.var["highly_variable"] = np.isin(np.arange(adata.n_vars), at)
    loadings = None if kind == "atac" else recipe.loadings[at >= 0]
    write_components(adata, key_added, Components(scores, loadings), at[at >= 0], params, recipe)
    logg.info("    finished", time=start, deep=f"added\n    `obsm[{key_added!r}]`, `uns[{key_added!r}]`")
    return adata if copy else None


def _find(reference: Any, kind: Kind, key: str) -> Recipe:
    """The recipe that a `reference` stands for."""
    if isinstance(reference, str | Path):
        recipe = load_recipe(reference)
    elif isinstance(reference, Recipe):
        recipe = reference
    elif isinstance(reference, AnnData):
        recipe = _recipe_of(reference, key, argument="reference")
    else:
        what = type(reference).__name__
        hint = f" Name a modality of it, such as `reference=mdata[{kind!r}]`." if what == "MuData" else ""
        raise TypeError(f"`reference` must be an AnnData, a Recipe or the path of one, found {what}.{hint}")
    if recipe.kind != kind:
        raise ValueError(f"`reference`: its recipe is one of `st.pp.{recipe.kind}`, not of `st.pp.{kind}`.")
    return recipe


def _recipe_of(adata: AnnData, key: str, *, argument: str) -> Recipe:
    where = "reference" if argument == "reference" else "adata"
    recipe = stored_recipe(adata, key, argument=argument, where=where)
    if recipe is None:
        there = keys_of_recipes(adata)
        name = "key_added" if argument == "reference" else "key"
        cure = (
            f"Recipes are there under {there}: name one as `{name}`."
            if there
            else "Prepare it by `st.pp.rna`, `st.pp.protein` or `st.pp.atac` of this version first. After joining "
            "objects, `anndata.concat(..., uns_merge='same')` keeps recipes."
        )
        raise KeyError(f"`{argument}`: no recipe in `{where}.uns[{key!r}]`. {cure}")
    return recipe
