"""Folds that leave out patients, sections or spots."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from stomics_tools._validate import check_categories, check_integer, check_key, check_option

Split = Literal["patient", "section", "random_spots"]


class Fold(NamedTuple):
    """What is left out, and the rows of both parts in their order."""

    name: str
    train: np.ndarray
    test: np.ndarray


def leave_one_group_out(groups: Any) -> list[Fold]:
    """One fold for each group, named after it, in the order of the names.

    Parameters
    ----------
    groups
        Group of each spot ``(n_obs,)``, none missing.

    Returns
    -------
    The folds; each spot is left out once, together with its whole group.

    Raises
    ------
    ValueError
        If there are fewer than two groups, or missing values.
    """
    codes, names = check_categories(pd.Series(groups), argument="groups", where="groups")
    if len(names) < 2:
        raise ValueError(f"`groups`: one group cannot be left out where there is only {names}.")
    return [Fold(name, np.flatnonzero(codes != i), np.flatnonzero(codes == i)) for i, name in enumerate(names)]


def expression_folds(
    obs: pd.DataFrame,
    *,
    split: Split = "patient",
    patient_key: str | None = None,
    section_key: str | None = None,
    n_folds: int = 5,
    seed: int = 0,
) -> list[Fold]:
    """Folds for the evaluation of predicted expression.

    Parameters
    ----------
    obs
        Table of the spots, such as ``adata.obs``.
    split
        What is left out at a time: a ``"patient"`` with all sections, a ``"section"``, or ``"random_spots"``, one of
        `n_folds` parts. Sections of one patient are alike, and neighbouring spots more so: the latter two say how well
        a method fills gaps in a patient or a slide, not how it does on another patient.
    patient_key
        Column of the patients; must be given for ``split="patient"``.
    section_key
        Column of the sections; must be given for ``split="section"``.
    n_folds
        Parts of ``split="random_spots"``.
    seed
        Of those parts.

    Returns
    -------
    The folds, in the order of the names. The same arguments give the same folds.

    Raises
    ------
    KeyError
        If a column does not exist.
    ValueError
        If a key is needed and not given, there is only one patient or section, or a section belongs to two patients.
    """
    check_option(split, ("patient", "section", "random_spots"), argument="split")
    patients = _column(obs, patient_key, "patient_key")
    sections = _column(obs, section_key, "section_key")
    if patients is not None and sections is not None:
        check_nested(sections, patients, section_key, patient_key)
    if split == "random_spots":
        check_integer(n_folds, argument="n_folds", minimum=2)
        if n_folds > len(obs):
            raise ValueError(f"`n_folds` is {n_folds}, but there are {len(obs)} spots.")
        parts = np.random.default_rng(seed).permutation(len(obs)) % n_folds
        return leave_one_group_out([f"part {part + 1:0{len(str(n_folds))}d}" for part in parts])
    if split == "section":
        return leave_one_group_out(_at_least_two(sections, "section_key", section_key, "section", ""))
    hint = ' Leave its sections out with `split="section"`, knowing that they share the patient.'
    return leave_one_group_out(_at_least_two(patients, "patient_key", patient_key, "patient", hint))


def check_nested(sections: Any, patients: Any, section_key: str | None, patient_key: str | None) -> None:
    """Raise ``ValueError`` if a section belongs to more than one patient."""
    n_patients = pd.Series(np.asarray(patients)).groupby(np.asarray(sections)).nunique()
    shared = n_patients.index[n_patients > 1].tolist()
    if shared:
        raise ValueError(
            f"`section_key`: sections {shared[:5]} of `adata.obs[{section_key!r}]` belong to several patients of "
            f"`adata.obs[{patient_key!r}]`. Give each section a name of its own."
        )


def _column(obs: pd.DataFrame, key: str | None, argument: str) -> np.ndarray | None:
    if key is None:
        return None
    check_key(key, obs.columns, argument=argument, where="adata.obs")
    codes, names = check_categories(obs[key], argument=argument, where=f"adata.obs[{key!r}]")
    return np.asarray(names, dtype=object)[codes]


def _at_least_two(groups: np.ndarray | None, argument: str, key: str | None, what: str, hint: str) -> np.ndarray:
    if groups is None:
        raise ValueError(f'`{argument}` must be given for `split="{what}"`.')
    if len(np.unique(groups)) < 2:
        raise ValueError(
            f"`{argument}`: `adata.obs[{key!r}]` has a single {what} ({groups[0]!r}), which cannot be left out.{hint}"
        )
    return groups
