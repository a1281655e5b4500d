"""Scores of Series and DataFrames whose rows or columns are in another order."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from sklearn.metrics import adjusted_rand_score

from stomics_tools import metrics

RNG = np.random.default_rng(0)
NAMES = [f"spot{i}" for i in range(60)]
GENES = [f"g{i}" for i in range(5)]
ORDER = RNG.permutation(60)
COLUMNS = [3, 0, 4, 1, 2]
LABELS = pd.Series(np.repeat(list("ABCD"), 15), index=NAMES)
OTHER = pd.Series(RNG.choice(list("xyz"), 60), index=NAMES)
TRUTH = pd.DataFrame(RNG.normal(size=(60, 5)), index=NAMES, columns=GENES)
PREDICTION = TRUTH + RNG.normal(size=(60, 5))
PLACES = pd.DataFrame(RNG.uniform(size=(60, 2)), index=NAMES, columns=["x", "y"])
FOUND = PLACES + RNG.normal(scale=0.1, size=(60, 2))
SECTIONS = pd.Series(np.repeat(["one", "two"], 30), index=NAMES)
DEPTH = pd.Series(RNG.normal(size=60), index=NAMES)


def test_labels_in_another_order_are_joined_by_name():
    assert metrics.score_labels(LABELS, LABELS.iloc[ORDER])["ari"] == 1
    by_hand = adjusted_rand_score(LABELS, OTHER)
    for found in (OTHER.iloc[ORDER], OTHER.iloc[ORDER].to_frame(), OTHER.astype("category").iloc[ORDER]):
        assert metrics.score_labels(LABELS, found)["ari"] == pytest.approx(by_hand)
        assert metrics.score_domains(found, true=LABELS)["ari"] == pytest.approx(by_hand)


def test_arrays_and_numbered_series_go_by_position():
    moved = OTHER.iloc[ORDER]
    expected = adjusted_rand_score(LABELS, moved)
    for found in (moved.to_numpy(), moved.tolist(), moved.reset_index(drop=True), moved.to_numpy()[:, None]):
        assert metrics.score_labels(LABELS, found)["ari"] == pytest.approx(expected)
    numbered = LABELS.reset_index(drop=True)
    assert metrics.score_labels(numbered, numbered.sample(frac=1, random_state=0))["ari"] == 1


def test_other_and_repeated_names_are_refused():
    renamed = OTHER.rename(lambda name: f"{name}-1")
    with pytest.raises(ValueError, match=r"`predicted` and `true` have different names of rows: 60 of 60.*'spot0'"):
        metrics.score_labels(LABELS, renamed)
    repeated = LABELS.set_axis(NAMES[:59] + NAMES[:1])
    with pytest.raises(ValueError, match=r"names repeat \(\['spot0'\]\)"):
        metrics.score_labels(repeated, repeated.iloc[::-1])
    assert metrics.score_labels(repeated, repeated.copy())["ari"] == 1  # the same rows
    with pytest.raises(ValueError, match="`true` has 60 labels, `predicted` has 59"):
        metrics.score_labels(LABELS, LABELS.iloc[:59])


@pytest.mark.parametrize("wrong", [np.ones((60, 2)), pd.DataFrame({"a": LABELS, "b": LABELS}), "A" * 60, np.array(3)])
def test_shapes_of_labels_are_named(wrong):
    with pytest.raises(ValueError, match=r"`predicted` must hold one label for each spot, shape \(n_obs,\)"):
        metrics.score_labels(LABELS, wrong)


def test_annotated_data_are_no_labels():
    with pytest.raises(TypeError, match=r"`true` must be labels, found AnnData. Give a column"):
        metrics.score_labels(AnnData(np.ones((60, 1))), LABELS)
    with pytest.raises(TypeError, match=r"`truth` must be a matrix, found AnnData. Give `adata.X`"):
        metrics.mean_squared_error(AnnData(np.ones((60, 5))), PREDICTION)


def test_ignore_is_one_label_or_several():
    true = LABELS.mask(LABELS == "D", "nan")
    expected = metrics.score_labels(true[:45], OTHER[:45])
    assert metrics.score_labels(true, OTHER, ignore="nan") == expected
    assert metrics.score_labels(true, OTHER, ignore=["nan", "n"]) == expected
    codes = pd.Series(np.repeat([0, 1, 2, -1], 15), index=NAMES)
    assert metrics.score_labels(codes, OTHER, ignore=-1) == pytest.approx(expected)
    missing = codes.astype("Int64").mask(codes == -1)
    assert missing.isna().any()
    assert metrics.score_labels(missing, OTHER, ignore=pd.NA) == pytest.approx(expected)
    assert metrics.score_labels(missing.astype("string"), OTHER) == pytest.approx(expected)


EXPRESSION = {
    "pearson_per_gene": lambda t, p, **k: metrics.pearson_per_gene(t, p, **k),
    "within_sections": lambda t, p: metrics.pearson_per_gene(t, p, sections=SECTIONS.iloc[ORDER[::-1]]),
    "spearman_per_gene": metrics.spearman_per_gene,
    "rmse_per_gene": metrics.rmse_per_gene,
    "mean_absolute_error": metrics.mean_absolute_error,
    "r2_per_gene": lambda t, p: metrics.r2_per_gene(t, p, pd.Series(np.arange(5.0), index=GENES)[::-1]),
    "relative_variance_difference": metrics.relative_variance_difference,
    "gene_correlation_error": metrics.gene_correlation_error,
    "interval_coverage": lambda t, p: metrics.interval_coverage(t, p - 1, (p + 1).iloc[::-1]),
    "crps_gaussian": lambda t, p: metrics.crps_gaussian(t, p, pd.Series(np.arange(1.0, 6), index=GENES)[::-1]),
    "morans_i_error": lambda t, p: metrics.morans_i_error(t, p, PLACES.iloc[ORDER]),
    "score_expression": lambda t, p: metrics.score_expression(
        t,
        p,
        train_mean=pd.Series(np.arange(5.0), index=GENES)[::-1],
        sections=SECTIONS.iloc[::-1],
        log_depth=DEPTH.iloc[ORDER],
    ),
    "score_samples": lambda t, p: metrics.score_samples(t, [p, TRUTH.iloc[::-1]]),
}


@pytest.mark.parametrize("score", EXPRESSION.values(), ids=list(EXPRESSION))
def test_expression_is_joined_by_spots_and_genes(score):
    np.testing.assert_allclose(
        *(
            np.array(list(value.values()) if isinstance(value, dict) else value, dtype=float)
            for value in (score(TRUTH, PREDICTION), score(TRUTH, PREDICTION.iloc[ORDER, COLUMNS]))
        )
    )


def test_expression_by_name_is_that_of_arrays_in_order():
    plain = TRUTH.to_numpy(), PREDICTION.to_numpy()
    moved = PREDICTION.iloc[ORDER, COLUMNS]
    np.testing.assert_array_equal(metrics.pearson_per_gene(TRUTH, moved), metrics.pearson_per_gene(*plain))
    within = metrics.pearson_per_gene(*plain, sections=SECTIONS.to_numpy())
    np.testing.assert_allclose(metrics.pearson_per_gene(TRUTH, moved, sections=SECTIONS.iloc[ORDER]), within)
    left = metrics.depth_out(TRUTH.iloc[ORDER], DEPTH)
    np.testing.assert_allclose(left, metrics.depth_out(plain[0], DEPTH.to_numpy())[ORDER])
    by_position = metrics.mean_squared_error(TRUTH, moved.to_numpy())
    assert by_position > 1.5 * metrics.mean_squared_error(TRUTH, moved)


def test_nullable_and_sparse_expression():
    nullable = TRUTH.astype("Float64")
    nullable.iloc[0, 0] = pd.NA
    plain = TRUTH.to_numpy(copy=True)
    plain[0, 0] = np.nan
    np.testing.assert_array_equal(
        metrics.rmse_per_gene(nullable, PREDICTION), metrics.rmse_per_gene(plain, PREDICTION.to_numpy())
    )
    counts = AnnData(np.eye(60, 5)).X
    from scipy import sparse

    assert metrics.mean_squared_error(sparse.csr_matrix(counts), counts) == 0


@pytest.mark.parametrize(
    ("prediction", "what"),
    [(PREDICTION.rename(columns={"g0": "h"}), "columns"), (PREDICTION.rename(index={"spot5": "s"}), "rows")],
)
def test_other_genes_and_spots_are_refused(prediction, what):
    with pytest.raises(ValueError, match=f"`prediction` and `truth` have different names of {what}: 1 of"):
        metrics.mean_squared_error(TRUTH, prediction)


POSITIONS = {
    "rmsd": metrics.rmsd,
    "distance_spearman": metrics.distance_spearman,
    "sliced_wasserstein": metrics.sliced_wasserstein,
    "neighbor_overlap": lambda t, p: metrics.neighbor_overlap(t, p, n_neighbors=5),
    "trustworthiness": lambda t, p: metrics.trustworthiness(t, p, n_neighbors=5),
    "align": metrics.align,
}


@pytest.mark.parametrize("score", POSITIONS.values(), ids=list(POSITIONS))
def test_positions_are_joined_by_cells_and_axes(score):
    expected = score(PLACES.to_numpy(), FOUND.to_numpy())
    np.testing.assert_allclose(score(PLACES, FOUND.iloc[ORDER][["y", "x"]]), expected)


def test_labels_of_positions_and_representations_are_joined():
    expected = metrics.score_positions(PLACES, FOUND, labels=LABELS, n_neighbors=5)
    assert metrics.score_positions(PLACES, FOUND.iloc[ORDER], labels=LABELS.iloc[::-1], n_neighbors=5) == expected
    plain = metrics.silhouette(TRUTH.to_numpy(), OTHER.to_numpy())
    assert metrics.silhouette(TRUTH, OTHER.iloc[ORDER]) == pytest.approx(plain)
    probe = {"n_folds": 2, "n_blocks": 8, "margin": 0.0}
    near = metrics.linear_probe(PLACES.to_numpy(), LABELS.to_numpy(), PLACES.to_numpy(), **probe)
    assert metrics.linear_probe(PLACES, LABELS.iloc[ORDER], PLACES.iloc[::-1], **probe) == near


def test_sections_of_counts_are_joined():
    counts = pd.DataFrame(RNG.poisson(20, size=(60, 5)), index=NAMES, columns=GENES)
    plain = metrics.noise_ceiling(counts.to_numpy(), [0, 2], sections=SECTIONS.to_numpy())
    chosen = pd.Series([True, False, True, False, False], index=GENES)
    joined = metrics.noise_ceiling(counts, chosen.iloc[::-1], sections=SECTIONS.iloc[ORDER])
    np.testing.assert_array_equal(joined, plain)


def test_pairs_are_joined_and_groups_are_counted():
    a = pd.Series([1.0, 2.0, 4.0, 8.0, 3.0, 5.0, 9.0, 2.0], index=list("abcdefgh"))
    b = pd.Series(np.arange(8.0), index=list("abcdefgh"))
    patients = pd.Series([1, 1, 2, 2, 3, 3, 4, 4], index=list("abcdefgh"))
    assert metrics.paired_test(a, b.iloc[::-1]) == metrics.paired_test(a.to_numpy(), b.to_numpy())
    grouped = metrics.paired_test(a, b, groups=patients.sample(frac=1, random_state=0))
    means = (a - b).groupby(patients).mean()
    assert grouped == metrics.paired_test(means, np.zeros(4))
    assert grouped.n_pairs == 4
    assert metrics.paired_test(a + 10, b, groups=patients).p_value == 0.125  # eight sections of four patients
    with pytest.raises(ValueError, match="`groups` has missing values"):
        metrics.paired_test(a, b, groups=patients.where(patients > 1))
