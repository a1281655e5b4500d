from __future__ import annotations

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import tifffile
from anndata import AnnData
from PIL import Image
from skimage.transform import resize
from torch import nn

from stomics_tools.pp import patch_features

OPTIONS = {"patch_sizes": (16.0, 32.0), "show_progress_bar": False}


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = np.kron(rng.random((30, 25, 3)), np.ones((10, 10, 1)))
    return (255 * (0.7 * coarse + 0.3 * rng.random((300, 250, 3)))).astype(np.uint8)


@pytest.fixture
def adata() -> AnnData:
    rng = np.random.default_rng(1)
    a = AnnData(rng.poisson(2.0, size=(14, 5)).astype(np.float32))
    a.obsm["spatial"] = rng.uniform([0, 0], [250, 300], size=(14, 2))
    a.obs["slide"] = pd.Categorical(np.tile(["s1", "s2"], 7), categories=["unused", "s2", "s1"])
    return a


def table(adata, image, **options) -> pd.DataFrame:
    return patch_features(adata, image, **{**OPTIONS, **options}, copy=True).obsm["X_image"]


def test_colours_are_those_of_slices(adata, image):
    found = table(adata, image)
    margin = np.pad(image, ((16, 16), (16, 16), (0, 0)), mode="reflect") / 255
    for i, (x, y) in enumerate(adata.obsm["spatial"]):
        for side in (16, 32):
            left, top = int(np.floor(x - side / 2 + 0.5)) + 16, int(np.floor(y - side / 2 + 0.5)) + 16
            patch = margin[top : top + side, left : left + side]
            patch = resize(patch, (16, 16), anti_aliasing=True)
            assert found[f"p{side}_R_mean"].iloc[i] == pytest.approx(patch[..., 0].mean(), abs=1e-5)
            assert found[f"p{side}_B_sd"].iloc[i] == pytest.approx(patch[..., 2].std(), abs=1e-5)


def test_form_of_the_result(adata, image):
    assert patch_features(adata, image, **OPTIONS) is None
    found = adata.obsm["X_image"]
    assert list(found.index) == list(adata.obs_names)
    assert found.columns.is_unique
    assert (found.dtypes == np.float32).all()
    assert np.isfinite(found.to_numpy()).all()
    half = found.shape[1] // 2
    assert [f"nb_{name}" for name in found.columns[:half]] == list(found.columns[half:])
    params = adata.uns["X_image"]["params"]
    assert params["encoder"] == "handcrafted"
    assert params["patch_sizes"] == [16.0, 32.0]
    assert params["n_neighbors"] == 6
    assert "stomics_tools_version" in params


def test_means_of_neighbours(adata, image):
    plain = table(adata, image, n_neighbors=0)
    both = table(adata, image, n_neighbors=4)
    pd.testing.assert_frame_equal(both[plain.columns], plain)
    xy = adata.obsm["spatial"]
    for i in range(adata.n_obs):
        nearest = np.argsort(np.linalg.norm(xy - xy[i], axis=1))[1:5]
        np.testing.assert_allclose(
            both.iloc[i, plain.shape[1] :].to_numpy(), plain.iloc[nearest].mean().to_numpy(), rtol=1e-4, atol=1e-6
        )


def test_order_of_spots_and_size_of_batches_do_not_matter(adata, image):
    expected = table(adata, image)
    order = np.random.default_rng(2).permutation(adata.n_obs)
    shuffled = table(adata[order].copy(), image, batch_size=5)
    pd.testing.assert_frame_equal(shuffled.loc[expected.index], expected, rtol=1e-5, atol=1e-6)
    pd.testing.assert_frame_equal(table(adata, image, batch_size=1), expected)


@pytest.mark.parametrize("form", ["dask", "float", "png", "tiff", "uns"])
def test_any_form_of_the_image_gives_the_same(adata, image, tmp_path, form):
    expected = table(adata, image)
    if form == "dask":
        given = da.from_array(image, chunks=(64, 50, 3))
    elif form == "float":
        given = image / 255
    elif form == "png":
        given = tmp_path / "slide.png"
        Image.fromarray(image).save(given)
    elif form == "tiff":
        given = str(tmp_path / "slide.tif")
        tifffile.imwrite(given, image, photometric="rgb", tile=(64, 64))
    else:
        given = None
        entry = {"images": {"hires": image}, "scalefactors": {"tissue_hires_scalef": 0.5}}
        adata.uns["spatial"] = {"library": entry}
        adata.obsm["spatial"] = adata.obsm["spatial"] * 2
    options = {"patch_sizes": (32.0, 64.0)} if form == "uns" else {}
    found = table(adata, given, **options)
    np.testing.assert_allclose(found.to_numpy(), expected.to_numpy(), rtol=1e-4, atol=1e-5)


def test_sections_are_treated_apart(adata, image):
    images = {"s1": image, "s2": image[::-1]}
    found = table(adata, images, section_key="slide")
    for name, of in images.items():
        one = adata[adata.obs["slide"] == name].copy()
        pd.testing.assert_frame_equal(found.loc[one.obs_names], table(one, of), rtol=1e-5, atol=1e-6)


def test_micrometres(adata, image):
    by_pixel = table(adata, image)
    by_micrometre = table(adata, image, patch_sizes=(8.0, 16.0), pixel_size=0.5)
    np.testing.assert_array_equal(by_pixel.to_numpy(), by_micrometre.to_numpy())
    assert by_micrometre.columns[0] == "p8_R_mean"


def test_encoder(adata, image):
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    patch_features(adata, image, **OPTIONS, encoder=model, key_added="X_own")
    found = adata.obsm["X_own"]
    assert found.dtype == np.float32
    colours = [f"{n}p{side}_{c}_mean" for n in ("", "nb_") for side in (16, 32) for c in "RGB"]
    np.testing.assert_allclose(found, table(adata, image)[colours].to_numpy(), atol=1e-5)
    assert adata.uns["X_own"]["params"]["encoder"] == "Sequential"


def test_wide_encoder_goes_into_a_file(adata, image, tmp_path):
    def wide(images):
        return images.mean(dim=(2, 3)).repeat(1, 700)

    patch_features(adata, image, **OPTIONS, encoder=wide)
    adata.write_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(ad.read_h5ad(tmp_path / "a.h5ad").obsm["X_image"], adata.obsm["X_image"])


@pytest.mark.filterwarnings("ignore:Setting element:anndata.ImplicitModificationWarning")
def test_parent_of_a_view_is_left_alone(adata, image):
    view = adata[:8]
    patch_features(view, image, **OPTIONS)
    assert "X_image" in view.obsm
    assert "X_image" not in adata.obsm
    assert "X_image" not in adata.uns


@pytest.mark.parametrize("section_key", [None, "slide"])
def test_file_keeps_names_and_params(adata, image, tmp_path, section_key):
    images = image if section_key is None else {"s1": image, "s2": image}
    patch_features(adata, images, **OPTIONS, section_key=section_key, n_pixels=8)
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(back.obsm["X_image"], adata.obsm["X_image"])
    for name, value in adata.uns["X_image"]["params"].items():
        assert np.all(back.uns["X_image"]["params"][name] == value), name


def test_progress_can_be_switched_off(adata, image, capsys):
    patch_features(adata, image, **{**OPTIONS, "show_progress_bar": True})
    assert "14/14" in capsys.readouterr().err
    patch_features(adata, image, **OPTIONS)
    assert not capsys.readouterr().err


def with_nan(adata):
    adata.obsm["spatial"][3, 1] = np.nan


def with_repeats(adata):
    adata.obs_names = ["a"] * adata.n_obs


def with_depth(adata):
    adata.obsm["spatial"] = np.hstack([adata.obsm["spatial"], np.zeros((adata.n_obs, 1))])


def far_out(adata):
    adata.obsm["spatial"] *= 10


def with_missing_section(adata):
    adata.obs.loc["3", "slide"] = np.nan


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (None, {"patch_sizes": (16, 400)}, "is smaller than a patch of 400"),
        (None, {"patch_sizes": (2,)}, "a patch of 2 has 2 pixels a side"),
        (None, {"patch_sizes": ()}, "`patch_sizes` must be one or more different sizes"),
        (None, {"patch_sizes": (16, 16)}, "`patch_sizes` must be one or more different sizes"),
        (None, {"patch_sizes": (-1,)}, "`patch_sizes` must be in"),
        (None, {"n_pixels": 4}, "`n_pixels` must be at least 5"),
        (None, {"n_neighbors": 14}, "needs at least 15 spots"),
        (None, {"n_neighbors": -1}, "`n_neighbors` must be at least 0"),
        (None, {"batch_size": 0}, "`batch_size` must be at least 1"),
        (None, {"spatial_key": "spatail"}, "key 'spatail' not found in `adata.obsm`"),
        (None, {"section_key": "section"}, "key 'section' not found in `adata.obs`"),
        (None, {"section_key": "slide"}, "`image` is one image, but there are sections"),
        (None, {"image": np.zeros((300, 250), dtype=np.uint8)}, "must be an RGB image"),
        (None, {"image": np.full((300, 250, 3), np.nan)}, "holds NaN"),
        (None, {"image": None}, "key 'spatial' not found in `adata.uns`"),
        (None, {"weights": "file"}, "`weights` are for encoders given by name"),
        (None, {"encoder": "resnet"}, "`encoder` must be"),
        (with_nan, {}, "1 rows with NaN"),
        (with_repeats, {}, "obs_names` are not unique"),
        (with_depth, {}, "must be pixels .* found 3 columns"),
        (far_out, {}, "spots lie outside the image"),
        (with_missing_section, {"section_key": "slide"}, "1 missing values"),
    ],
)
def test_bad_input_changes_nothing(adata, image, change, options, message):
    if change is not None:
        change(adata)
    with pytest.raises((ValueError, KeyError), match=message):
        patch_features(adata, **{"image": image, **OPTIONS, **options})
    assert "X_image" not in adata.obsm
    assert "X_image" not in adata.uns


def test_a_failing_encoder_changes_nothing(adata, image):
    calls = []

    def fails_late(images):
        calls.append(1)
        if len(calls) > 2:
            raise RuntimeError("no more")
        return images.mean(dim=(2, 3))

    with pytest.raises(RuntimeError, match="no more"):
        patch_features(adata, image, **OPTIONS, batch_size=8, encoder=fails_late)
    assert "X_image" not in adata.obsm


def test_slide_in_full_and_its_thumbnail(data_dir):
    """Both show the same colours around each spot, at their own scales."""
    a = ad.read_h5ad(data_dir / "her2st_C3_image.h5ad")[::9].copy()
    options = {"patch_sizes": [224.0], "n_neighbors": 0, "show_progress_bar": False}
    patch_features(a, data_dir / "images" / "C3_HE.jpg", **options, key_added="full")
    patch_features(a, **options)
    for name in ("p224_R_mean", "p224_B_mean"):
        np.testing.assert_allclose(a.obsm["X_image"][name], a.obsm["full"][name], atol=0.03)
        assert np.corrcoef(a.obsm["X_image"][name], a.obsm["full"][name])[0, 1] > 0.98


def test_small_thumbnail(data_dir):
    a = ad.read_h5ad(data_dir / "dlpfc_151673.h5ad")[::60].copy()
    patch_features(a, show_progress_bar=False)
    assert np.isfinite(a.obsm["X_image"].to_numpy()).all()
