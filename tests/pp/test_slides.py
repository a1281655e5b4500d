from __future__ import annotations

import re

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from stomics_tools.pp._slides import open_slide, read_patches


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(150, 200, 3), dtype=np.uint8)


def save(image, path, form):
    if form == "png":
        Image.fromarray(image).save(path / "slide.png")
    elif form == "pyramid":
        with tifffile.TiffWriter(path / "slide.tif") as tiff:
            tiff.write(image, subifds=1, photometric="rgb", tile=(64, 64))
            tiff.write(image[::2, ::2], subfiletype=1, photometric="rgb", tile=(64, 64))
        return path / "slide.tif"
    else:
        tifffile.imwrite(path / "slide.tif", image, photometric="rgb", compression="zlib")
        return path / "slide.tif"
    return str(path / "slide.png")


@pytest.mark.parametrize("form", ["png", "tif", "pyramid"])
def test_files_equal_the_array(image, tmp_path, form):
    slide = open_slide(save(image, tmp_path, form), argument="image")
    assert slide.shape == (150, 200)
    pixels = slide.load()
    np.testing.assert_array_equal(np.asarray(pixels[3:120, 7:160]), image[3:120, 7:160])


def test_large_pictures_are_read_and_the_limit_of_pillow_stays(image, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = save(image, tmp_path, "png")
    np.testing.assert_array_equal(open_slide(path, argument="image").load(), image)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_a_tiff_is_not_read_as_a_whole(image, tmp_path):
    pixels = open_slide(save(image, tmp_path, "pyramid"), argument="image").load()
    assert not isinstance(pixels, np.ndarray)


@pytest.mark.parametrize("lazy", [da.from_array, zarr.array])
def test_lazy_arrays_equal_the_array(image, lazy):
    slide = open_slide(lazy(image, chunks=(40, 50, 3)), argument="image")
    for centre in [(100.0, 70.0), (0.0, 0.0), (200.0, 150.0)]:
        for a, b in zip(
            read_patches(slide.load(), slide.shape, np.array(centre), (31, 64)),
            read_patches(image, slide.shape, np.array(centre), (31, 64)),
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("side", [10, 11])
def test_patches_are_slices_around_the_centre(image, side):
    (patch,) = read_patches(image, (150, 200), np.array([60.0, 80.0]), (side,))
    assert patch.dtype == np.float32
    half = side // 2
    expected = image[80 - half : 80 - half + side, 60 - half : 60 - half + side] / 255
    np.testing.assert_allclose(patch, expected, atol=1e-7)


@pytest.mark.parametrize("centre", [(3.0, 80.0), (199.6, 2.0), (100.0, 150.0), (0.0, 0.0), (100.2, 74.9)])
def test_beyond_the_border_is_the_mirror_image(image, centre):
    mirrored = np.pad(image, ((80, 80), (80, 80), (0, 0)), mode="reflect") / 255
    for side, patch in zip((20, 150), read_patches(image, (150, 200), np.array(centre), (20, 150)), strict=True):
        left, top = (int(np.floor(c - side / 2 + 0.5)) + 80 for c in centre)
        np.testing.assert_allclose(patch, mirrored[top : top + side, left : left + side], atol=1e-7)


def test_floats_are_left_as_they_are(image):
    floats = image / 255
    (patch,) = read_patches(floats, (150, 200), np.array([60.0, 80.0]), (10,))
    np.testing.assert_allclose(patch, floats[75:85, 55:65], atol=1e-7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[..., 0], "must be an RGB image of shape (height, width, 3), found shape (150, 200)."),
        (lambda x: np.dstack([x, x[..., :1]]), "Drop the transparency by `image[..., :3]`"),
        (lambda x: x.transpose(2, 0, 1), "found shape (3, 150, 200). Move the channels to the last axis."),
        (lambda x: x.astype(np.uint16), "must be uint8 or floats in [0, 1], found dtype uint16"),
        (lambda x: x.astype(np.float32), "found values from 0 to 255. Divide by 255."),
        (lambda x: x / 255 - 0.5, "found values from -0.5 to 0.5."),
        (lambda x: np.where(np.arange(200)[:, None] == 7, np.nan, x / 255), "holds NaN or infinite values"),
        (lambda x: da.from_array(np.where(x == 9, np.inf, x / 255)), "holds NaN or infinite values"),
    ],
)
def test_no_rgb_image(image, change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        open_slide(change(image), argument="image")


def test_no_image_at_all(image, tmp_path):
    with pytest.raises(TypeError, match="`image` must be an array or the path of a file, found list"):
        open_slide([[1, 2]], argument="image")
    with pytest.raises(FileNotFoundError, match="`image`: there is no file 'nowhere.png'"):
        open_slide("nowhere.png", argument="image")
    for name in ("text.png", "text.tif"):
        (tmp_path / name).write_text("text")
        with pytest.raises(ValueError, match="could not be read as an image"):
            open_slide(tmp_path / name, argument="image")
    Image.fromarray(image[..., 0]).save(tmp_path / "grey.png")
    with pytest.raises(ValueError, match="must be an RGB image, .* is of mode 'L'"):
        open_slide(tmp_path / "grey.png", argument="image")
    tifffile.imwrite(tmp_path / "grey.tif", image[..., 0])
    with pytest.raises(ValueError, match=r"found shape \(150, 200\)"):
        open_slide(tmp_path / "grey.tif", argument="image")
