"""Which arrays of an object its modalities are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anndata import AnnData
from mudata import MuData

from stomics_tools import _keys, _validate

_WRITTEN = {_keys.PCA: "rna", _keys.PROTEIN: "protein", _keys.LSI: "atac"}
"""Arrays that the recipes of `pp` write, and the modality that each is of."""


def named_modalities(data: AnnData | MuData, modalities: Any) -> dict[str, str]:
    """Name of each modality to its ``obsm`` key, layer, or ``"X"``, out of whatever way they were given in.

    A key alone is one modality of an AnnData; a name alone is one of a MuData. By default these are the arrays that
    :mod:`stomics_tools.pp` has written.

    Raises
    ------
    KeyError
        If there is no such modality, or no recipe has written an array.
    TypeError
        If names are not mapped to keys.
    ValueError
        If several recipes have written arrays of one object, or none is named.
    """
    several = isinstance(data, MuData)
    if modalities is None:
        modalities = list(data.mod) if several else _written(data, "adata")
    elif isinstance(modalities, str):
        modalities = [modalities] if several else {_WRITTEN.get(modalities, "expression"): modalities}
    if several and isinstance(modalities, Sequence):
        names = list(modalities)
        for name in names:
            _validate.check_key(name, data.mod, argument="modalities", where="mdata.mod")
        modalities = {name: next(iter(_written(data.mod[name], f"mdata[{name!r}]").values())) for name in names}
    if not isinstance(modalities, Mapping) or not all(isinstance(key, str) for key in modalities.values()):
        raise TypeError(
            "`modalities` must map names to keys, for example {'rna': 'X_pca', 'protein': 'X_protein'}, "
            f"found {modalities!r}."
        )
    if not modalities:
        raise ValueError("`modalities` is empty. Name one at least, for example {'rna': 'X_pca'}.")
    return {_validate.check_new_key(name, argument="modalities"): key for name, key in modalities.items()}


def _written(adata: AnnData, where: str) -> dict[str, str]:
    """The one array that a recipe has written, by the name of its modality."""
    found = {name: key for key, name in _WRITTEN.items() if key in adata.obsm}
    if len(found) == 1:
        return found
    if found:
        raise ValueError(
            f"`modalities`: `{where}.obsm` holds {list(found.values())}. Say which are meant, as in {found}."
        )
    raise KeyError(
        f"`modalities`: none of {list(_WRITTEN)} is in `{where}.obsm` (keys: {list(adata.obsm)}). Prepare it, for RNA by "
        "`stomics_tools.pp.rna`, or name the array."
    )
