"""Checks of user input, in one wording: the argument, what was found, what to do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from stomics_tools._by_name import align_rows

_SHOWN_KEYS = 40
"""Keys that a message lists: genes are thousands."""


def check_annotated(data: Any, *, argument: str = "adata", mudata: bool = True) -> None:
    """Raise ``TypeError`` unless `data` is an AnnData, or a MuData where these are taken."""
    from anndata import AnnData  # here, since metrics know arrays alone
    from mudata import MuData

    if isinstance(data, AnnData) or (mudata and isinstance(data, MuData)):
        return
    kinds = "AnnData or MuData" if mudata else "AnnData"
    hint = ""
    if isinstance(data, MuData):
        hint = f" Give one of its modalities, such as `mdata[{next(iter(data.mod), 'rna')!r}]`."
    elif hasattr(data, "adata"):
        hint = " Give the data, such as `model.adata`."
    raise TypeError(f"`{argument}` must be {kinds}, found {type(data).__name__}.{hint}")


def check_key(key: str, available: Iterable[Any], *, argument: str, where: str) -> None:
    """Raise ``KeyError`` unless `key` is among the `available` keys of `where` (such as ``"adata.obsm"``)."""
    keys = list(available)
    if key in keys:
        return
    close = get_close_matches(str(key), [str(k) for k in keys], n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    more = f" and {len(keys) - _SHOWN_KEYS:,} more" if len(keys) > _SHOWN_KEYS else ""
    shown = keys[:_SHOWN_KEYS]
    raise KeyError(f"`{argument}`: key {key!r} not found in `{where}`. Available keys: {shown}{more}.{hint}")


def check_option(value: Hashable, options: Collection[Any], *, argument: str) -> None:
    """Raise ``ValueError`` unless `value` is one of `options`."""
    if value not in options:
        close = get_close_matches(str(value), [str(o) for o in options], n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"`{argument}`: unknown option {value!r}. Valid options: {list(options)}.{hint}")


Effect = tuple[tuple[str, ...], Callable[[Any], bool], str]
"""Arguments, whether settings let them have an effect, and what that takes."""


def check_effects(given: Mapping[str, Any], settings: Any, effects: Sequence[Effect]) -> None:
    """Raise ``ValueError`` for an argument that the user gave and that has no effect.

    Parameters
    ----------
    given
        Arguments of the user; None stands for one that was not given, False and 0 turn something off and pass.
    settings
        All settings, those of the user among them.
    effects
        Whether arguments have an effect, and what it takes.
    """
    for names, works, needed in effects:
        for name in names:
            if given.get(name) and not works(settings):
                raise ValueError(f"`{name}={given[name]!r}` has no effect unless {needed}. Leave it out.")


def check_integer(value: Any, *, argument: str, minimum: int = 1) -> int:
    """Return `value` as ``int``; ``TypeError`` if it is no integer, ``ValueError`` if it is below `minimum`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"`{argument}` must be an integer, found {value!r} of type {type(value).__name__}.")
    if value < minimum:
        raise ValueError(f"`{argument}` must be at least {minimum}, found {value}.")
    return int(value)


def check_whole(value: Any, *, argument: str, minimum: int = 1) -> int:
    """Return `value` as ``int``, also if it is a whole number in floating point, such as ``np.ceil`` gives."""
    if isinstance(value, Real) and not isinstance(value, Integral) and float(value).is_integer():
        value = int(float(value))
    return check_integer(value, argument=argument, minimum=minimum)


def check_new_key(key: Any, *, argument: str) -> str:
    """Return `key`, under which something will be stored; raise unless h5ad, h5mu and zarr files can hold it."""
    if not isinstance(key, str):
        raise TypeError(f"`{argument}` must be a string, found {key!r} of type {type(key).__name__}.")
    reason = ""
    if not key:
        reason = "is empty"
    elif "/" in key or "\\" in key:
        reason = "holds a slash" if "/" in key else "holds a backslash"
    elif "\0" in key:
        reason = "holds a null character"
    elif not key.strip("."):
        reason = "is made of dots"
    elif key.startswith("__"):
        reason = "begins with two underscores"
    if reason:
        raise ValueError(
            f"`{argument}`: {key!r} {reason}. It becomes a key of files, where h5ad and zarr cannot hold it. "
            "Choose another name, such as 'my_key'."
        )
    return key


def check_indices(indices: Any, obs_names: pd.Index, *, argument: str = "indices") -> np.ndarray | slice:
    """Return rows int64 of an object, given as integers or as a mask ``(n_obs,)``; a slice of all, without a copy, if None.

    The rows of a mask that is a Series are found by name.
    """
    if indices is None:
        return slice(None)
    n_obs = len(obs_names)
    if isinstance(indices, pd.Series) and indices.dtype == bool:
        (_, indices) = align_rows({"adata": pd.Series(False, index=obs_names), argument: indices})
    found = np.asarray(indices)
    if found.dtype == bool and found.shape == (n_obs,):
        return np.flatnonzero(found)
    if found.size == 0:
        found = found.astype(np.int64)
    if found.ndim != 1 or not np.issubdtype(found.dtype, np.integer):
        raise TypeError(
            f"`{argument}` must be row numbers, or a mask of shape ({n_obs},), found {found.dtype} of shape {found.shape}."
        )
    outside = (found < -n_obs) | (found >= n_obs)
    if outside.any():
        raise IndexError(f"`{argument}`: there is no row {found[outside][0]} in {n_obs} observations.")
    return found.astype(np.int64)


def check_seeds(seeds: int | Sequence[int]) -> list[int]:
    """Return the seeds themselves; an integer stands for as many of them, from 0."""
    if isinstance(seeds, str) or not isinstance(seeds, Iterable):
        return list(range(check_integer(seeds, argument="seeds")))
    chosen = [check_integer(seed, argument="seeds", minimum=0) for seed in seeds]
    if not chosen:
        raise ValueError("`seeds` is empty. Give at least one.")
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"`seeds`: some occur twice in {chosen}. Give each once.")
    return chosen


def check_number(
    value: Any, *, argument: str, low: float = -np.inf, high: float = np.inf, open_low: bool = False
) -> float:
    """Return `value` as ``float``; ``ValueError`` outside of [low, high] (of (low, high] if `open_low`)."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"`{argument}` must be a number, found {value!r} of type {type(value).__name__}.")
    number = float(value)
    if not low <= number <= high or (open_low and number == low):
        left = "(" if open_low else "["
        raise ValueError(f"`{argument}` must be in {left}{low}, {high}], found {value}.")
    return number


def check_obs_names(names: pd.Index, *, where: str = "adata") -> None:
    """Raise ``ValueError`` if observation names repeat: results could not be joined by name."""
    if not names.is_unique:
        repeated = names[names.duplicated()].unique()[:3].tolist()
        raise ValueError(
            f"`{where}.obs_names` are not unique, found repeats of {repeated}. "
            f"Call `{where}.obs_names_make_unique()` first."
        )


def check_coordinates(
    coordinates: Any, *, argument: str, where: str, batch: np.ndarray | None = None, batch_names: Sequence[str] = ()
) -> np.ndarray:
    """Return coordinates as float64 ``(n_obs, 2 or 3)``, in the user's own units.

    Arrays, tables (nullable ones too), sparse and lazy arrays are taken. Raises ``ValueError`` for another shape, for
    NaN or infinite values and where all spots, or all spots of a slice (int64 `batch` into `batch_names`), lie on one
    point.
    """
    xy = plain_numbers(coordinates)
    if xy.ndim != 2 or xy.shape[1] not in (2, 3) or not np.issubdtype(xy.dtype, np.number):
        raise ValueError(
            f"`{argument}`: `{where}` must be a numeric array of shape (n_obs, 2) or (n_obs, 3), "
            f"found shape {xy.shape} and dtype {xy.dtype}."
        )
    xy = xy.astype(np.float64)
    bad = ~np.isfinite(xy).all(axis=1)
    if bad.any():
        raise ValueError(
            f"`{argument}`: `{where}` has {int(bad.sum())} rows with NaN or infinite coordinates "
            f"(first: row {int(np.flatnonzero(bad)[0])}). Drop these spots or give them positions."
        )
    if len(xy) > 1 and (xy == xy[0]).all():
        raise ValueError(
            f"`{argument}`: all {len(xy)} spots of `{where}` have the same coordinates {xy[0].tolist()}. "
            "Store the positions of the spots there."
        )
    for number, name in enumerate(batch_names):
        own = xy[batch == number]
        if len(own) > 1 and (own == own[0]).all():
            raise ValueError(
                f"`{argument}`: all {len(own)} spots of slice {name!r} in `{where}` have the same coordinates "
                f"{own[0].tolist()}. Store the positions of the spots there, or drop the slice."
            )
    return xy


def plain_numbers(values: Any) -> np.ndarray:
    """A NumPy array, NaN where a nullable table or an array of Python objects has no number."""
    if hasattr(values, "compute"):  # lazy
        values = values.compute()
    if sparse.issparse(values):
        values = values.toarray()  # two or three columns
    table = isinstance(values, pd.DataFrame)
    found = values.to_numpy() if table else np.asarray(values)
    if found.dtype != object:
        return found
    missing = pd.isna(found)
    try:
        return np.where(missing, np.nan, found).astype(np.float64)
    except (TypeError, ValueError):
        return found  # no numbers: said by the caller


def check_finite(values: Any, *, argument: str, where: str) -> None:
    """Raise ``ValueError`` if a dense or sparse array holds NaN or infinite values."""
    data = values.data if sparse.issparse(values) else np.asarray(values)
    n_bad = int(data.size - np.isfinite(data).sum())
    if n_bad:
        raise ValueError(f"`{argument}`: `{where}` holds {n_bad} NaN or infinite values. Remove or impute them first.")


def check_counts(values: Any, *, argument: str, where: str, integer: bool = False) -> None:
    """Raise ``ValueError`` if a dense or sparse array cannot be counts: not finite, negative, or (`integer`) fractional."""
    check_finite(values, argument=argument, where=where)
    data = values.data if sparse.issparse(values) else np.asarray(values)
    if data.size and data.min() < 0:
        raise ValueError(
            f"`{argument}`: `{where}` holds negative values (minimum {data.min():g}) where counts are needed. "
            "Name the layer that holds the raw counts."
        )
    if integer and (data != np.floor(data)).any():
        raise ValueError(
            f"`{argument}`: `{where}` holds fractional values where integer counts are needed. "
            "Name the layer that holds the raw counts."
        )


def check_slices(column: pd.Series, *, argument: str, where: str) -> tuple[np.ndarray, list[str]]:
    """Return codes and names as :func:`check_categories` does; ``ValueError`` where nearly every spot has its own."""
    codes, names = check_categories(column, argument=argument, where=where)
    if 1 < len(names) and len(names) > len(codes) / 2:
        raise ValueError(
            f"`{argument}`: `{where}` has {len(names)} values in {len(codes)} spots (first: {names[:3]}), as names of "
            "spots have. Name the column of the slices, or none where there is one slice."
        )
    return codes, names


def check_categories(column: pd.Series, *, argument: str, where: str) -> tuple[np.ndarray, list[str]]:
    """Return int64 codes ``(n_obs,)`` and the sorted names of the categories in use; the column is left as it is.

    Raises ``ValueError`` where values are missing.
    """
    missing = column.isna()
    if missing.any():
        raise ValueError(
            f"`{argument}`: `{where}` has {int(missing.sum())} missing values. "
            "Fill them or drop these observations first."
        )
    names = column.astype(str).to_numpy()
    categories, codes = np.unique(names, return_inverse=True)
    return codes.astype(np.int64), categories.tolist()
