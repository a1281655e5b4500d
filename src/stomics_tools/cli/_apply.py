"""A trained model applied to another slice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anndata import AnnData
from mudata import MuData

from stomics_tools.cli._annotation import NONE
from stomics_tools.cli._files import named
from stomics_tools.cli._prepare import as_mudata
from stomics_tools.pl._lookup import obs_column

if TYPE_CHECKING:
    from stomics_tools.model import PRAGA, GraphST, PRAGASpike


def as_trained(
    model_class: type[GraphST] | type[PRAGA] | type[PRAGASpike],
    folder: Path,
    data: AnnData | MuData,
    batch_key: str | None,
    *,
    say: Callable[[str, str], None],
) -> tuple[AnnData | MuData, str]:
    """The data in the form that a saved model takes, and the column of their slices, or ``"none"``.

    Slices are told apart by the column of training. If the data have none, they are one slice.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no saved model of this class, or `batch_key` does not fit to it.
    """
    with named("load_model"):
        setup: dict[str, Any] = model_class.load_registry(folder)["setup_args"]
    return in_form_of(setup, data, batch_key, what="model", say=say)


def in_form_of(
    setup: Mapping[str, Any],
    data: AnnData | MuData,
    batch_key: str | None,
    *,
    what: str,
    say: Callable[[str, str], None],
) -> tuple[AnnData | MuData, str]:
    """The data in the form of those with the keys `setup`, and the column of their slices, or ``"none"``."""
    keys = setup["modalities"]
    if isinstance(data, AnnData) and len(keys) > 1 and not set(keys.values()) <= set(data.obsm):
        data = as_mudata(data, None)
    column = setup.get("batch_key")
    if column is None:
        if batch_key not in (None, NONE):
            raise ValueError(f"`batch_key`: the {what} was fitted on one slice and tells none apart. Leave it out.")
        return data, NONE
    parts = list(data.mod.values()) if isinstance(data, MuData) else []
    there = any(column in part.obs for part in (data, *parts))
    if batch_key == NONE and there:
        raise ValueError(f"`batch_key`: the {what} tells slices apart by obs[{column!r}], which the input has as well.")
    if batch_key not in (None, NONE, column):
        data.obs[column] = obs_column(data, str(batch_key), argument="batch_key").astype(str).to_numpy()
        say("columns", f"slices by obs[{batch_key!r}], written to obs[{column!r}] as in training")
    elif not there:
        data.obs[column] = "0"
        say("columns", f"there is no obs[{column!r}] that told slices apart in training: taken as one slice")
    return data, column


def apply_model(model_class: type[GraphST] | type[PRAGA] | type[PRAGASpike], folder: Path, data: Any) -> None:
    """Write the outputs of a saved model into the data."""
    with named("load_model"):
        model = model_class.load(folder, data)
    model.write_results()
