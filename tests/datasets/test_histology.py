from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from scipy.spatial import cKDTree
from scipy.stats import pearsonr
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import RidgeCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import StandardScaler

from stomics_tools import datasets
from stomics_tools.datasets._expected import log_cp10k, pearson_within

SMALL = {"n_patients": 3, "n_sections": 2, "n_spots": 100, "n_genes": 40, "n_features": 16}


def simulate(**kwargs: object) -> AnnData:
    return datasets.simulate_histology(**SMALL | kwargs)


def observed(adata: AnnData) -> np.ndarray:
    return log_cp10k(adata.X.toarray())


def codes(adata: AnnData, column: str = "section") -> np.ndarray:
    return adata.obs[column].cat.codes.to_numpy()


@pytest.fixture(scope="module")
def small() -> AnnData:
    return simulate()


@pytest.fixture(scope="module")
def default() -> AnnData:
    return datasets.simulate_histology()


def test_contents(small):
    assert small.shape == (600, 40)
    assert (small.X.format, small.X.dtype) == ("csr", np.float32)
    assert (small.X.data == np.round(small.X.data)).all()
    assert small.X.data.min() > 0
    assert small.obs["patient"].tolist() == np.repeat(["patient0", "patient1", "patient2"], 200).tolist()
    assert small.obs["section"].unique().tolist()[:3] == ["patient0_section0", "patient0_section1", "patient1_section0"]
    assert small.obs["section"].value_counts().tolist() == [100] * 6
    assert small.obs_names.is_unique
    for key, width, dtype in [("X_image", 16, "f4"), ("spatial", 2, "f8"), ("visible", 3, "f4"), ("hidden", 4, "f4")]:
        assert small.obsm[key].shape == (600, width)
        assert small.obsm[key].dtype == dtype
        assert np.isfinite(small.obsm[key]).all()
    assert small.layers["expected"].dtype == np.float32
    assert small.var["module"].value_counts().tolist() == [4] * 10


def test_places_are_a_lattice_in_micrometres(small):
    for section in np.unique(codes(small)):
        xy = small.obsm["spatial"][codes(small) == section]
        distance = cKDTree(xy).query(xy, k=2)[0][:, 1]
        np.testing.assert_allclose(distance, 100.0)


def test_the_seed_decides_and_global_state_is_left_alone(small):
    np.random.seed(3)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    again = simulate()
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert (again.X != small.X).nnz == 0
    for key in small.obsm:
        np.testing.assert_array_equal(again.obsm[key], small.obsm[key])
    np.testing.assert_array_equal(again.layers["expected"], small.layers["expected"])
    pd.testing.assert_frame_equal(again.var, small.var)
    other = simulate(seed=1)
    assert (other.X != small.X).nnz > 0
    assert not np.allclose(other.obsm["X_image"], small.obsm["X_image"])


def test_round_trip(small, tmp_path):
    small.write_h5ad(tmp_path / "x.h5ad")
    back = read_h5ad(tmp_path / "x.h5ad")
    assert back.uns["simulate_histology"] == small.uns["simulate_histology"]
    assert back.uns["simulate_histology"]["n_spots"] == 100
    pd.testing.assert_frame_equal(back.obs, small.obs)
    pd.testing.assert_frame_equal(back.var, small.var)


def test_ceiling_is_the_correlation_of_the_best_prediction(small):
    y, expected, section = observed(small), small.layers["expected"], codes(small)
    by_hand = [np.mean([pearsonr(y[section == s, j], expected[section == s, j])[0] for s in range(6)]) for j in (0, 7)]
    np.testing.assert_allclose(small.var["ceiling"].iloc[[0, 7]], by_hand, atol=1e-5)
    np.testing.assert_allclose(small.uns["simulate_histology"]["ceiling"], small.var["ceiling"].mean())


def test_the_best_prediction_is_calibrated():
    """Over many patients the residuals average to nothing, wherever on the scale and in the visible state."""
    adata = simulate(n_patients=150, n_sections=1, n_spots=40, depth=500.0)
    residual = observed(adata) - adata.layers["expected"]
    assert abs(residual.mean()) < 0.03
    assert np.abs(residual.mean(axis=0)).max() < 0.15
    by_level = pd.Series(residual.ravel()).groupby(pd.qcut(adata.layers["expected"].ravel(), 10, labels=False)).mean()
    assert by_level.abs().max() < 0.05
    visible = adata.obsm["visible"]
    curves = np.concatenate([visible, visible**2, visible[:, :1] * visible[:, 1:]], axis=1)
    curves = (curves - curves.mean(axis=0)) / curves.std(axis=0)
    assert np.abs(curves.T @ residual / len(curves)).mean() < 0.03


def test_a_good_learner_comes_near_the_ceiling_on_a_patient_left_out(default):
    x, y, section = default.obsm["X_image"], observed(default), codes(default)
    tested = codes(default, "patient") == 5
    scaler = StandardScaler().fit(x[~tested])
    x = scaler.transform(x)
    mean = y[~tested].mean(axis=0)

    def score(prediction):
        return pearson_within(prediction, y[tested], section[tested]).mean()

    ceiling = score(default.layers["expected"][tested])
    kernel = KernelRidge(kernel="rbf", gamma=1 / 384, alpha=1.0).fit(x[~tested], y[~tested] - mean)
    curved = score(kernel.predict(x[tested]))
    straight = score(RidgeCV(np.logspace(0, 4, 9)).fit(x[~tested], y[~tested]).predict(x[tested]))
    assert ceiling - 0.03 < curved < ceiling
    assert straight < curved - 0.01
    assert 0.5 < ceiling < 0.7


def test_the_oracle_is_not_beaten_by_what_it_already_knows(default):
    """Adding a fit on the true state, made with the very spots tested on, gains next to nothing."""
    y, expected, section = observed(default), default.layers["expected"], codes(default)
    near = KNeighborsRegressor(200).fit(default.obsm["visible"], y - expected)
    corrected = expected + near.predict(default.obsm["visible"])
    gain = pearson_within(corrected, y, section).mean() - pearson_within(expected, y, section).mean()
    assert gain < 0.02


def test_image_share_sets_the_ceiling():
    ceilings = [
        simulate(image_share=share, depth_visible=0.0).uns["simulate_histology"]["ceiling"]
        for share in (0.0, 0.3, 0.6, 1.0)
    ]
    assert np.abs(ceilings[0]) < 0.06
    assert np.all(np.diff(ceilings) > 0.1)
    assert ceilings[3] > 0.75


def test_image_share_of_genes():
    shares = simulate(image_share=0.3).var["image_share"]
    assert shares.between(0.12, 0.48).all()
    assert shares.mean() == pytest.approx(0.3, abs=0.03)
    assert (simulate(image_share=1.0).var["image_share"] == 1.0).all()


def test_noise_blurs_what_the_image_tells():
    scores = []
    for noise in (0.0, 0.1, 2.0):
        adata = simulate(n_patients=4, batch_effect=0.0, noise=noise, n_features=64)
        x, z, tested = adata.obsm["X_image"], adata.obsm["visible"], codes(adata, "patient") == 3
        predicted = KernelRidge(kernel="rbf", gamma=1 / 384, alpha=0.1).fit(x[~tested], z[~tested]).predict(x[tested])
        scores.append(1 - ((predicted - z[tested]) ** 2).mean() / z[tested].var(axis=0).mean())
    assert scores[0] > 0.97
    assert scores[1] > 0.95
    assert scores[2] < scores[1] - 0.1


def test_genes_correlate_beyond_the_image():
    def modules(adata):
        residual = observed(adata) - adata.layers["expected"]
        for section in np.unique(codes(adata)):
            residual[codes(adata) == section] -= residual[codes(adata) == section].mean(axis=0)
        correlation = np.corrcoef(residual.T)
        same = codes_of_genes(adata)[:, None] == codes_of_genes(adata)[None]
        off = ~np.eye(adata.n_vars, dtype=bool)
        return correlation[same & off].mean(), np.abs(correlation[~same]).mean()

    def codes_of_genes(adata):
        return adata.var["module"].cat.codes.to_numpy()

    within, between = modules(simulate())
    assert within > 0.3
    assert within > between + 0.05
    assert modules(simulate(image_share=1.0))[0] < 0.1


def test_patients_differ_by_stain_and_by_offsets_of_genes():
    def spread(values, patient):
        """Spread of the means of patients, in units of that of their sections' spots."""
        means = np.stack([values[patient == p].mean(axis=0) for p in np.unique(patient)])
        return (means.std(axis=0) / values.std(axis=0)).mean()

    spreads = {}
    for strength in (0.0, 0.3, 1.0):
        adata = simulate(n_patients=6, batch_effect=strength)
        patient = codes(adata, "patient")
        residual = observed(adata) - adata.layers["expected"]
        spreads[strength] = spread(adata.obsm["X_image"], patient), spread(residual, patient)
        if strength == 1.0:
            halves = [
                np.stack([residual[(patient == p) & (codes(adata) % 2 == h)].mean(axis=0) for p in range(6)])
                for h in (0, 1)
            ]
            assert np.corrcoef(halves[0].ravel(), halves[1].ravel())[0, 1] > 0.8  # of the patient, not of the section
    assert spreads[1.0][0] > spreads[0.0][0] + 0.1
    assert spreads[1.0][1] > spreads[0.3][1] + 0.1 > spreads[0.0][1] + 0.2


def test_stain_is_affine_for_each_patient():
    plain, stained = (simulate(batch_effect=strength, noise=0.0) for strength in (0.0, 1.0))
    for p in range(3):
        rows = codes(plain, "patient") == p
        for j in range(16):
            line = np.polyfit(plain.obsm["X_image"][rows, j], stained.obsm["X_image"][rows, j], 1)
            np.testing.assert_allclose(
                np.polyval(line, plain.obsm["X_image"][rows, j]), stained.obsm["X_image"][rows, j], atol=1e-4
            )
            assert line[0] > 0


def test_counts_are_overdispersed_by_what_is_hidden():
    """At one visible state and depth, variance exceeds the mean by about the squared mean times a constant."""
    adata = simulate(n_patients=1, n_spots=2000, image_share=0.0, depth_visible=0.0, batch_effect=0.0)
    x = adata.X.toarray()
    mean, variance = x.mean(axis=0), x.var(axis=0)
    assert (variance > mean).all()
    dispersion = (variance - mean) / mean**2
    assert 0.5 < np.median(dispersion) < 3.0
    assert np.percentile(dispersion, 90) < 5 * np.percentile(dispersion, 10)


def test_depth():
    for depth in (200.0, 5000.0):
        totals = np.asarray(simulate(depth=depth).X.sum(axis=1)).ravel()
        assert np.median(totals) == pytest.approx(depth, rel=0.15)
        assert 0.4 < np.log(totals).std() < 0.65


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, -1.0, 0.15), (1.0, 0.85, 1.0)])
def test_depth_that_the_image_tells(share, low, high):
    adata = simulate(depth_visible=share, depth=5000.0)
    log_depth = np.log(np.asarray(adata.X.sum(axis=1)).ravel())
    tested = codes(adata, "patient") == 2
    model = KernelRidge(kernel="rbf", gamma=0.125, alpha=0.1)
    model.fit(adata.obsm["visible"][~tested], log_depth[~tested] - np.log(5000))
    assert low < model.score(adata.obsm["visible"][tested], log_depth[tested] - np.log(5000)) < high


def test_states_are_smooth_and_scattered(small):
    for key in ("visible", "hidden"):
        state = small.obsm[key]
        assert np.abs(state.std(axis=0) - 1).max() < 0.25
        rows = codes(small) == 0
        neighbor = cKDTree(small.obsm["spatial"][rows]).query(small.obsm["spatial"][rows], k=2)[1][:, 1]
        correlation = [pearsonr(column, column[neighbor])[0] for column in state[rows].T]
        assert 0.2 < np.mean(correlation) < 0.85


def test_few_counts_leave_a_finite_ceiling():
    adata = simulate(n_patients=1, n_sections=1, n_spots=10, depth=50.0, n_genes=400)
    assert np.isnan(adata.var["ceiling"]).any()
    assert np.isfinite(adata.uns["simulate_histology"]["ceiling"])


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"n_patients": 0}, ValueError, "`n_patients` must be at least 1, found 0"),
        ({"n_sections": 1.5}, TypeError, "`n_sections` must be an integer"),
        ({"n_spots": 9}, ValueError, "`n_spots` must be at least 10"),
        ({"n_genes": 5}, ValueError, "`n_genes` must be at least 10"),
        ({"n_features": 3}, ValueError, "`n_features` must be at least 4"),
        ({"image_share": 1.2}, ValueError, r"`image_share` must be in \[0.0, 1.0\], found 1.2"),
        ({"depth": 10}, ValueError, "`depth` must be in"),
        ({"depth_visible": -0.1}, ValueError, "`depth_visible` must be in"),
        ({"noise": float("nan")}, ValueError, "`noise` must be in"),
        ({"batch_effect": "much"}, TypeError, "`batch_effect` must be a number"),
        ({"seed": -1}, ValueError, "`seed` must be at least 0"),
    ],
)
def test_bad_input(kwargs, error, message):
    with pytest.raises(error, match=message):
        simulate(**kwargs)
