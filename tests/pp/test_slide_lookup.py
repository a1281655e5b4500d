from __future__ import annotations

import re

import numpy as np
import pytest
from anndata import AnnData

from stomics_tools.pp._slide_lookup import match_slides

IMAGE = np.full((1000, 800, 3), 200, dtype=np.uint8)
GRID = np.stack(np.meshgrid(np.arange(50.0, 800, 100), np.arange(50.0, 1000, 100)), axis=-1).reshape(-1, 2)


def match(image, xy=GRID, codes=None, names=None, *, uns=None, scale=None, pixel_size=1.0):
    adata = AnnData(shape=(len(xy), 0), uns=uns or {})
    codes = np.zeros(len(xy), dtype=int) if codes is None else codes
    return match_slides(adata, image, np.asarray(xy), codes, names, scale=scale, pixel_size=pixel_size)


def visium(resolution="hires", scale=0.5):
    return {"images": {resolution: IMAGE[:500, :400]}, "scalefactors": {f"tissue_{resolution}_scalef": scale}}


def test_scale_and_pixel_size():
    (section,) = match(IMAGE[:500, :400], scale=0.5, pixel_size=0.7)
    np.testing.assert_array_equal(section.xy, GRID / 2)
    assert section.scale == 0.5
    assert section.pixel_size == pytest.approx(1.4)
    assert section.name is None


@pytest.mark.parametrize("resolution", ["hires", "lowres"])
def test_image_of_uns(resolution):
    (section,) = match(None, uns={"spatial": {"lib": visium(resolution)}})
    assert section.slide.shape == (500, 400)
    np.testing.assert_array_equal(section.xy, GRID / 2)


@pytest.mark.parametrize("other", [{"is_single": True}, {"is_single": False, "empty": None, "places": GRID}])
def test_entries_without_images_are_no_libraries(other):
    (section,) = match(None, uns={"spatial": {**other, "lib": visium()}})
    assert section.slide.shape == (500, 400)


@pytest.mark.parametrize("spatial", [{"is_single": False}, {"lib": None}, {"lib": {}}, GRID, np.arange(8.0), None])
def test_something_else_in_uns_is_said_to_be_no_library(spatial):
    with pytest.raises(ValueError, match=r"`adata.uns\['spatial'\]` holds no library") as error:
        match(None, uns={"spatial": spatial})
    assert len(str(error.value)) < 300


def test_one_image_a_section():
    codes = np.arange(len(GRID)) % 2
    images = {"b": IMAGE[:500, :400], "a": IMAGE, "other": None}
    first, second = match(images, GRID, codes, ["a", "b"], scale={"a": 1, "b": 0.5}, pixel_size={"a": 2, "b": 3.0})
    assert (first.name, second.name) == ("a", "b")
    assert first.slide.shape == (1000, 800)
    assert second.slide.shape == (500, 400)
    np.testing.assert_array_equal(second.rows, np.flatnonzero(codes == 1))
    np.testing.assert_array_equal(second.xy, GRID[codes == 1] / 2)
    assert second.pixel_size == 6
    uns = {"spatial": {"a": visium(), "b": visium("lowres", 0.4)}}
    first, second = match(None, GRID, codes, ["a", "b"], uns=uns)
    assert (first.scale, second.scale) == (0.5, 0.4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": None}, "`image=None`: key 'spatial' not found in `adata.uns`"),
        (
            {"image": None, "uns": {"spatial": {"a": {"images": {}}, "b": {"images": {}}}}},
            "has the libraries ['a', 'b']. Name the column",
        ),
        (
            {"image": None, "uns": {"spatial": {"a": {"images": {}}}}},
            "key 'hires' not found in `adata.uns['spatial']['a']['images']`",
        ),
        (
            {"image": None, "uns": {"spatial": {"a": {"images": {"hires": IMAGE}}}}},
            "key 'tissue_hires_scalef' not found in `adata.uns['spatial']['a']['scalefactors']`",
        ),
        ({"image": {"a": IMAGE}}, "name the column of sections as `section_key`"),
        ({"image": IMAGE, "scale": {"a": 1.0}}, "`scale` is a mapping of sections"),
        ({"image": IMAGE, "names": ["a", "b"]}, "there are sections ['a', 'b']. Give a mapping of section to image."),
        ({"image": {"a": IMAGE}, "names": ["a", "b"]}, "key 'b' not found in `image`. Available keys: ['a']"),
        ({"image": IMAGE, "scale": 0.0}, "`scale` must be in (0, inf]"),
        ({"image": IMAGE, "pixel_size": -1.0}, "`pixel_size` must be in (0, inf]"),
    ],
)
def test_images_that_cannot_be_found(options, message):
    codes = np.arange(len(GRID)) % len(options.get("names", [0]))
    with pytest.raises((ValueError, KeyError), match=re.escape(message)):
        match(codes=codes, **options)


def test_spots_outside_are_counted():
    xy = GRID.copy()
    xy[:3, 0] = [805, -4, 900]
    with pytest.raises(ValueError) as error:
        match(IMAGE, xy)
    assert "3 of 80 spots lie outside the image" in str(error.value)
    assert "x from -4 to 900, y from 50 to 950" in str(error.value)
    assert "800 x 1000 pixels (width x height)" in str(error.value)
    assert "Leave these spots out" in str(error.value)


def test_coordinates_of_higher_resolution_than_the_image():
    with pytest.raises(ValueError, match=r"give `scale`.* at most 0\.105 here"):
        match(IMAGE, GRID * 10)
    match(IMAGE, GRID * 10, scale=0.1)


def test_coordinates_of_lower_resolution_than_the_image():
    with pytest.raises(ValueError, match=r"all 80 spots lie in one corner.*at most 10\.5, and not much less"):
        match(IMAGE, GRID / 10)
    match(IMAGE, GRID / 10, scale=10)
    match(IMAGE, GRID / 10, scale=1)  # taken on trust
    match(IMAGE, GRID[:1] / 10)


def test_swapped_columns():
    with pytest.raises(ValueError, match="would fit if x and y were swapped"):
        match(IMAGE, GRID[:, ::-1])


def test_spots_on_the_border_are_inside():
    match(IMAGE, np.vstack([GRID, [[0, 0], [800, 1000]]]))
