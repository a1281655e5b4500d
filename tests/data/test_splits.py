from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from stomics_tools.data import expression_folds, leave_one_group_out, normalize_expression, total_counts, variable_genes


@pytest.fixture
def obs():
    rng = np.random.default_rng(0)
    section = rng.choice(["a1", "a2", "b1", "b2", "b3", "c1"], 200)
    patient = pd.Categorical([name[0] for name in section], categories=["z", "c", "b", "a"])
    return pd.DataFrame({"section": section, "patient": patient})


@pytest.mark.parametrize(("split", "n"), [("patient", 3), ("section", 6), ("random_spots", 4)])
def test_every_spot_is_left_out_once(obs, split, n):
    folds = expression_folds(obs, split=split, patient_key="patient", section_key="section", n_folds=4)
    assert len(folds) == n
    np.testing.assert_array_equal(np.sort(np.concatenate([fold.test for fold in folds])), np.arange(200))
    for fold in folds:
        np.testing.assert_array_equal(np.sort(np.concatenate([fold.train, fold.test])), np.arange(200))
        assert (np.diff(fold.train) > 0).all()
        assert (np.diff(fold.test) > 0).all()


def test_patients_and_sections_stay_together(obs):
    by_patient = expression_folds(obs, patient_key="patient", section_key="section")
    assert [fold.name for fold in by_patient] == ["a", "b", "c"]
    for fold in by_patient:
        assert set(obs["patient"].iloc[fold.test]) == {fold.name}
        assert fold.name not in set(obs["patient"].iloc[fold.train])
    for fold in expression_folds(obs, split="section", section_key="section"):
        assert set(obs["section"].iloc[fold.test]) == {fold.name}
        assert fold.name not in set(obs["section"].iloc[fold.train])


def test_folds_repeat(obs):
    def parts(**arguments):
        return [tuple(fold.test) for fold in expression_folds(obs, split="random_spots", **arguments)]

    assert parts() == parts(seed=0) != parts(seed=1)
    assert max(map(len, parts())) - min(map(len, parts())) <= 1


def test_bad_splits(obs):
    one = obs.assign(patient="b", section=["s1", "s2"] * 100)
    with pytest.raises(ValueError, match=r"`patient_key`.*single patient \('b'\).*split=\"section\""):
        expression_folds(one, patient_key="patient", section_key="section")
    assert len(expression_folds(one, split="section", patient_key="patient", section_key="section")) == 2
    with pytest.raises(ValueError, match="`section_key`.*single section"):
        expression_folds(obs.assign(section="s"), split="section", section_key="section")
    with pytest.raises(ValueError, match='`patient_key` must be given for `split="patient"`'):
        expression_folds(obs, section_key="section")
    with pytest.raises(KeyError, match="`patient_key`.*Did you mean 'patient'"):
        expression_folds(obs, patient_key="patients")
    with pytest.raises(ValueError, match="unknown option 'spot'"):
        expression_folds(obs, split="spot", patient_key="patient")
    shared = obs.assign(section=np.where(obs["section"] == "a1", "b1", obs["section"]))
    with pytest.raises(ValueError, match=r"sections \['b1'\].*several patients"):
        expression_folds(shared, patient_key="patient", section_key="section")
    with pytest.raises(ValueError, match="`patient_key`.*1 missing"):
        expression_folds(obs.assign(patient=[None, *obs["patient"][1:]]), patient_key="patient")
    with pytest.raises(ValueError, match="`n_folds` is 201, but there are 200 spots"):
        expression_folds(obs, split="random_spots", n_folds=201)
    with pytest.raises(ValueError, match="one group cannot be left out"):
        leave_one_group_out(["x", "x"])


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("log1p_cp10k", lambda x, total: np.log1p(1e4 * x / total)),
        ("hest", lambda x, total: np.log1p(x)),
        ("stem", lambda x, total: np.log2(1 + x)),
    ],
)
def test_normalisations(name, formula):
    counts = np.random.default_rng(1).poisson(1.0, (30, 8)).astype(np.float32)
    total = counts.sum(axis=1) + 7
    expected = formula(counts.astype(np.float64), total[:, None])
    np.testing.assert_allclose(normalize_expression(counts, total, name), expected, rtol=1e-6)
    found = normalize_expression(sparse.csr_matrix(counts), total, name)
    assert found.dtype == np.float32
    assert found.nnz == (counts > 0).sum()
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-6)


def test_variable_genes_are_those_of_the_dense_formula():
    rng = np.random.default_rng(2)
    counts = rng.poisson(rng.gamma(0.5, 1, 60), (90, 60)).astype(np.float64)
    counts[:30, 5] = np.nan  # measured in 60 spots only
    stored = sparse.csr_matrix(counts)
    total = total_counts(stored)
    np.testing.assert_allclose(total, np.nansum(counts, axis=1))
    values = np.log1p(1e4 * counts / total[:, None])
    share = np.nanmean(np.where(np.isnan(counts), np.nan, counts > 0), axis=0)
    order = [g for g in np.argsort(-np.nanvar(values, axis=0)) if share[g] >= 0.2]
    np.testing.assert_array_equal(variable_genes(stored, total, 15, min_share=0.2), order[:15])
    np.testing.assert_array_equal(variable_genes(stored, total, 1000, min_share=0.2), order)
