from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from stomics_tools.pp._patch_stream import check_sides, stream_features
from stomics_tools.pp._slide_lookup import Section
from stomics_tools.pp._slides import open_slide


def section(image: np.ndarray, xy: np.ndarray, *, rows=None, pixel_size=1.0, name=None) -> Section:
    rows = np.arange(len(xy)) if rows is None else rows
    return Section(name, rows, open_slide(image, argument="image"), xy, 1.0, pixel_size)


def mean_colour(patches: np.ndarray) -> tuple[list[str], np.ndarray]:
    return ["R", "G", "B"], patches.mean(axis=(1, 2))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(300, 260, 3), dtype=np.uint8)


def test_rows_of_several_sections_are_put_back(image):
    xy = np.random.default_rng(1).uniform(40, 220, size=(30, 2))
    odd = np.arange(30) % 2 == 1
    sections = [
        section(image[::-1], xy[odd], rows=np.flatnonzero(odd)),
        section(image, xy[~odd], rows=np.flatnonzero(~odd)),
    ]
    names, values = stream_features(sections, mean_colour, [10.0, 21.0], batch_size=4)
    assert names == ["p10_R", "p10_G", "p10_B", "p21_R", "p21_G", "p21_B"]
    for i, (x, y) in enumerate(xy):
        of = image[::-1] if odd[i] else image
        left, top = int(np.floor(x - 5 + 0.5)), int(np.floor(y - 5 + 0.5))
        np.testing.assert_allclose(values[i, :3], of[top : top + 10, left : left + 10].mean((0, 1)) / 255, atol=1e-6)


def test_sizes_are_in_the_unit_of_pixels(image):
    xy = np.array([[100.0, 90.0], [130.0, 140.0]])
    in_micrometres = stream_features([section(image, xy, pixel_size=0.5)], mean_colour, [20.0])[1]
    in_pixels = stream_features([section(image, xy)], mean_colour, [40.0])[1]
    np.testing.assert_array_equal(in_micrometres, in_pixels)


def test_resampled_patches_have_so_many_pixels(image):
    """Magnification does not matter: an image of twice the pixels gives, resampled, nearly the same patches."""
    smooth = np.kron(image[:30, :30], np.ones((8, 8, 1), dtype=np.uint8))
    twice = np.kron(smooth, np.ones((2, 2, 1), dtype=np.uint8))
    xy = np.array([[80.0, 96.0], [120.0, 104.0]])
    seen = []

    def keep(patches):
        seen.append(patches)
        return mean_colour(patches)

    stream_features([section(smooth, xy)], keep, [64.0], n_pixels=32)
    stream_features([section(twice, xy * 2, pixel_size=0.5)], keep, [64.0], n_pixels=32)
    assert seen[0].shape == seen[1].shape == (2, 32, 32, 3)
    np.testing.assert_allclose(seen[0], seen[1], atol=0.15)
    assert np.corrcoef(seen[0].ravel(), seen[1].ravel())[0, 1] > 0.98


def test_larger_patches_are_as_coarse_as_the_smallest_needs(image):
    seen = []

    def keep(patches):
        seen.append(patches.shape)
        return mean_colour(patches)

    stream_features([section(image, np.array([[100.0, 90.0]]))], keep, [48.0, 24.0])
    assert seen == [(1, 24, 24, 3), (1, 24, 24, 3)]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([20.0, 261.0], "260 x 300 pixels .* is smaller than a patch of 261, which has 261 pixels a side"),
        ([4.0, 50.0], "a patch of 4 has 4 pixels a side in the image of section 'a', at least 5"),
    ],
)
def test_sides_that_cannot_be(image, sizes, message):
    with pytest.raises(ValueError, match=message):
        check_sides(section(image, np.ones((1, 2)), name="a"), sizes)


def test_means_of_neighbours_are_appended(image):
    xy = np.random.default_rng(1).uniform(40, 220, size=(9, 2))
    neighbors = np.random.default_rng(2).integers(0, 9, size=(9, 4))
    names, values = stream_features([section(image, xy)], mean_colour, [10.0], neighbors=neighbors, batch_size=2)
    assert names == ["p10_R", "p10_G", "p10_B", "nb_p10_R", "nb_p10_G", "nb_p10_B"]
    for i in range(9):
        np.testing.assert_allclose(values[i, 3:], values[neighbors[i], :3].mean(axis=0), atol=1e-6)


def test_memory_does_not_grow_with_the_number_of_spots(image):
    def peak(n_obs: int) -> int:
        slide = section(image, np.random.default_rng(0).uniform(0, 260, size=(n_obs, 2)))
        neighbors = np.random.default_rng(0).integers(0, n_obs, size=(n_obs, 6))
        tracemalloc.start()
        _, values = stream_features([slide], mean_colour, [32.0, 64.0], neighbors=neighbors, batch_size=8)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most - values.nbytes

    peak(16)
    few, many = peak(64), peak(600)
    assert many < few + 20_000  # all patches together are 37 MB
