from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from stomics_tools.data import ImageSpots
from stomics_tools.model.var_st._folds import make_folds


def make_spots(
    patient: Sequence[int] | None, section: Sequence[int], coordinates: np.ndarray | None = None
) -> ImageSpots:
    n_obs = len(section)
    return ImageSpots(
        features=np.zeros((n_obs, 2), dtype=np.float32),
        feature_names=None,
        encoder=None,
        expression=None,
        gene_names=(),
        coordinates=coordinates,
        patient=None if patient is None else np.asarray(patient),
        patient_names=() if patient is None else tuple(map(str, np.unique(patient))),
        section=np.asarray(section),
        section_names=tuple(map(str, np.unique(section))),
        covariates=np.zeros((n_obs, 0), dtype=np.float32),
        encodings=(),
    )


def whole(fold: np.ndarray, groups: np.ndarray) -> bool:
    return all(len(set(fold[groups == group])) == 1 for group in np.unique(groups))


@pytest.mark.parametrize("n_patients", [2, 3, 5, 8, 23])
def test_whole_patients_in_at_most_five_folds(n_patients: int) -> None:
    rng = np.random.default_rng(n_patients)
    patient = rng.permutation(np.repeat(np.arange(n_patients), rng.integers(20, 60, size=n_patients)))
    folds = make_folds(make_spots(patient, patient * 2 + rng.integers(2, size=len(patient))))
    assert folds.kind == "patient"
    assert folds.number == min(n_patients, 5)
    np.testing.assert_array_equal(np.unique(folds.fold), np.arange(folds.number))
    assert folds.fold.dtype == np.int64
    assert folds.fold.shape == patient.shape
    assert whole(folds.fold, patient)
    # Taking the largest first, folds differ by no more than one patient.
    assert np.ptp(np.bincount(folds.fold)) <= np.bincount(patient).max()


def test_folds_are_about_as_large_as_they_can_be() -> None:
    patient = np.repeat(np.arange(7), [100, 50, 50, 50, 50, 50, 50])
    np.testing.assert_array_equal(
        np.sort(np.bincount(make_folds(make_spots(patient, patient)).fold)), [50, 50] + [100] * 3
    )


def test_sections_of_one_patient() -> None:
    section = np.repeat(np.arange(6), [5, 9, 3, 3, 4, 8])
    for patient in (None, np.zeros(32, dtype=int)):
        folds = make_folds(make_spots(patient, section))
        assert folds.kind == "section"
        assert folds.number == 5
        assert whole(folds.fold, section)


def test_stripes_of_one_section_across_its_longer_side() -> None:
    rng = np.random.default_rng(0)
    xy = rng.uniform(size=(90, 2)) * [10, 2]
    turn = np.deg2rad(30)
    place = xy @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) + 1000
    folds = make_folds(make_spots([0] * 90, [0] * 90, place))
    assert folds.kind == "block"
    np.testing.assert_array_equal(np.bincount(folds.fold), [30, 30, 30])
    spans = sorted((xy[folds.fold == fold, 0].min(), xy[folds.fold == fold, 0].max()) for fold in range(3))
    assert spans[0][1] < spans[1][0] + 0.5
    assert spans[1][1] < spans[2][0] + 0.5
    assert spans[1][0] - spans[0][0] > 2


def test_without_places_runs_of_spots() -> None:
    np.testing.assert_array_equal(make_folds(make_spots(None, [0] * 6)).fold, [0, 0, 1, 1, 2, 2])


@pytest.mark.parametrize("n_obs", [1, 2])
def test_fewer_spots_than_stripes(n_obs: int) -> None:
    folds = make_folds(make_spots(None, [0] * n_obs, np.zeros((n_obs, 2))))
    np.testing.assert_array_equal(folds.fold, np.arange(n_obs))
    assert folds.number == n_obs
