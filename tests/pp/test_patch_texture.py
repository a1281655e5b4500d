from __future__ import annotations

import numpy as np
import pytest
from skimage.color import hed2rgb, rgb2gray, rgb2hed
from skimage.draw import disk
from skimage.feature import graycomatrix, graycoprops, local_binary_pattern

from stomics_tools.pp._patch_texture import describe_patch, describe_patches


@pytest.fixture(scope="module")
def patch() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (np.kron(rng.random((16, 18, 3)), np.ones((4, 4, 1))) * 0.8 + rng.random((64, 72, 3)) * 0.2).astype(
        np.float32
    )


def stained(haematoxylin: np.ndarray, eosin: float = 0.02) -> np.ndarray:
    return hed2rgb(np.stack([haematoxylin, np.full_like(haematoxylin, eosin), np.zeros_like(haematoxylin)], axis=-1))


def grey(plane: np.ndarray) -> np.ndarray:
    return np.repeat(plane[..., None], 3, axis=2)


def test_colours_and_stains(patch):
    found = describe_patch(patch)
    stains = rgb2hed(patch)
    for name, values in [("R", patch[..., 0]), ("B", patch[..., 2]), ("H", stains[..., 0]), ("E", stains[..., 1])]:
        assert found[f"{name}_mean"] == pytest.approx(values.mean(), abs=1e-6)
        assert found[f"{name}_sd"] == pytest.approx(values.std(), abs=1e-6)


def test_stains_are_separated():
    """More haematoxylin raises its density alone, by as much."""
    thin, thick = (describe_patch(stained(np.full((16, 16), h))) for h in (0.05, 0.15))
    assert thick["H_mean"] - thin["H_mean"] == pytest.approx(0.1, abs=1e-3)
    assert thick["E_mean"] - thin["E_mean"] == pytest.approx(0, abs=1e-3)


def test_share_of_white(patch):
    half = patch * 0.5
    half[:16] = 0.95
    assert describe_patch(half)["white"] == pytest.approx(16 / 64)


def test_binary_patterns(patch):
    codes = local_binary_pattern(np.round(rgb2gray(patch) * 255).astype(np.uint8), 8, 4, method="uniform")
    found = describe_patch(patch)
    for code in range(10):
        assert found[f"grey_lbp_{code}"] == pytest.approx((codes == code).mean())


def test_cooccurrence(patch):
    levels = np.clip(rgb2gray(patch) * 32, 0, 31).astype(np.uint8)
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    matrix = graycomatrix(levels, [4], angles, levels=32, symmetric=True, normed=True)
    found = describe_patch(patch)
    for name in ("contrast", "correlation", "energy"):
        assert found[f"grey_{name}4"] == pytest.approx(graycoprops(matrix, name).mean())


def test_nuclei_are_counted():
    density = np.full((100, 120), 0.01)
    centres = [(20, 20), (20, 60), (50, 90), (80, 30), (75, 105)]
    for centre in centres:
        density[disk(centre, 7)] = 0.2
    found = describe_patch(stained(density))
    assert found["nuclei_number"] * density.size == pytest.approx(len(centres))
    assert found["nuclei_peaks"] * density.size == pytest.approx(len(centres))
    assert found["nuclei_share"] == pytest.approx((density > 0.1).mean(), rel=0.15)
    assert np.exp(found["nuclei_log_size"]) == pytest.approx((density > 0.1).sum() / len(centres), rel=0.15)
    assert found["nuclei_density"] == pytest.approx(0.2, rel=0.15)


def test_glass_has_no_nuclei():
    noise = np.random.default_rng(0).normal(0.93, 0.005, size=(64, 64, 3))
    found = describe_patch(noise)
    assert found["white"] == 1
    assert found["nuclei_share"] == found["nuclei_number"] == found["nuclei_peaks"] == found["nuclei_density"] == 0


def test_bands_find_the_scale():
    """The band of most energy moves with the wavelength: a sinusoid of frequency w is kept best where sigma w is 1.18."""
    x = np.arange(256)
    for wavelength in (12.0, 24.0, 48.0):
        found = describe_patch(grey(np.tile(0.5 + 0.4 * np.sin(2 * np.pi * x / wavelength), (256, 1))))
        bands = {float(k.removeprefix("grey_band")): v for k, v in found.items() if k.startswith("grey_band")}
        coarse = np.sqrt(2 * np.log(2)) / (2 * np.pi / wavelength)  # exp(-s^2 w^2 / 4) - exp(-s^2 w^2 / 2) is largest
        assert max(bands, key=bands.__getitem__) == pytest.approx(coarse, rel=0.3)


def test_gradient_of_a_ramp():
    ramp = grey(np.tile(np.linspace(0.2, 0.7, 101), (101, 1)))
    found = describe_patch(ramp)
    assert found["grey_gradient1_mean"] == pytest.approx(0.005, rel=0.05)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_flat_and_smallest_patches_are_finite(value):
    found = describe_patch(np.full((5, 5, 3), value))
    assert np.isfinite(list(found.values())).all()
    assert found["grey_gradient1_mean"] == found["grey_contrast1"] == 0


def test_batches_are_patches_one_by_one(patch):
    patches = np.stack([patch, patch[::-1], 1 - patch])
    names, values = describe_patches(patches)
    assert values.dtype == np.float32
    assert names == list(describe_patch(patch))
    np.testing.assert_allclose(values[2], list(describe_patch(1 - patch).values()), rtol=1e-6)
    assert len(set(names)) == len(names)
