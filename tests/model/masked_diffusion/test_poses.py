from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from scipy.stats import ortho_group

from stomics_tools.datasets import simulate_sections
from stomics_tools.model.masked_diffusion._module import random_poses
from stomics_tools.model.masked_diffusion._poses import common_frame, pose_of


def is_orthogonal(pose: np.ndarray) -> bool:
    return np.allclose(pose @ pose.T, np.eye(len(pose)), atol=1e-9)


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_pose_against_scipy(n_dims: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    source, target = rng.normal(size=(2, 40, n_dims))
    found = pose_of(source, target)
    np.testing.assert_allclose(found, orthogonal_procrustes(source, target)[0], atol=1e-9)
    assert is_orthogonal(found)


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("mirror", [False, True])
def test_pose_is_recovered_reflections_too(n_dims: int, mirror: bool) -> None:
    rng = np.random.default_rng(5)
    pose = ortho_group.rvs(n_dims, random_state=rng)
    pose[0] *= np.sign(np.linalg.det(pose)) * (-1 if mirror else 1)
    source = rng.normal(size=(50, n_dims))
    assert np.linalg.det(pose_of(source, source @ pose)) == pytest.approx(-1 if mirror else 1)
    np.testing.assert_allclose(pose_of(source, source @ pose + 1e-4 * rng.normal(size=source.shape)), pose, atol=1e-3)


def sections(n_dims: int) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Principal components, positions centred and of unit size, and the rotation each section lies in."""
    adata = simulate_sections(4, 350, 60, n_dims=n_dims, seed=3)
    counts = adata.X.toarray()
    genes = np.log1p(counts / counts.sum(1, keepdims=True) * counts.sum(1).mean())
    genes = (genes - genes.mean(0)) / genes.std(0)
    left, values, _ = np.linalg.svd(genes, full_matrices=False)
    latent = left[:, :20] * np.sqrt(len(genes))
    rows = [(adata.obs["section"] == name).to_numpy() for name in adata.obs["section"].cat.categories]
    position = [adata.obsm["spatial"][own] - adata.obsm["spatial"][own].mean(0) for own in rows]
    rotation = adata.uns["simulation"]["rotation"]
    return [latent[own] for own in rows], [x / np.sqrt(np.square(x).mean()) for x in position], list(rotation)


@pytest.mark.parametrize("n_dims", [2, 3])
def test_common_frame_undoes_the_poses_of_simulated_sections(n_dims: int) -> None:
    latent, position, rotation = sections(n_dims)
    # Both kinds of determinant occur, else reflections would not be asked for.
    assert {round(np.linalg.det(one)) for one in rotation} == {-1, 1}
    poses = common_frame(latent, position)
    assert all(is_orthogonal(pose) for pose in poses)
    # spatial = tissue @ rotation.T: the same map from the tissue to the frame for all sections.
    maps = [one.T @ pose for one, pose in zip(rotation, poses, strict=True)]
    for one in maps[1:]:
        assert np.linalg.norm(one - maps[0], 2) < 0.15  # radians


def test_common_frame_turns_with_the_sections_and_back() -> None:
    latent, position, _ = sections(2)
    turns = ortho_group.rvs(2, size=len(position), random_state=np.random.default_rng(3))
    expected = [own @ pose for own, pose in zip(position, common_frame(latent, position), strict=True)]
    turned = [own @ turn for own, turn in zip(position, turns, strict=True)]
    found = [own @ pose for own, pose in zip(turned, common_frame(latent, turned), strict=True)]
    overall = orthogonal_procrustes(np.concatenate(found), np.concatenate(expected))[0]
    np.testing.assert_allclose(np.concatenate(found) @ overall, np.concatenate(expected), atol=1e-6)


def test_the_axes_err_independently() -> None:
    latent, position, _ = sections(2)
    turned = np.concatenate([own @ p for own, p in zip(position, common_frame(latent, position), strict=True)])
    x = np.concatenate(latent)
    x_centred, y = x - x.mean(0), turned - turned.mean(0)
    left = y - x_centred @ np.linalg.solve(x_centred.T @ x_centred + 300 * np.eye(x.shape[1]), x_centred.T @ y)
    assert abs(np.corrcoef(left.T)[0, 1]) < 1e-6


def test_one_slice_is_its_own_frame() -> None:
    latent, position, _ = sections(2)
    (pose,) = common_frame(latent[:1], position[:1])
    assert is_orthogonal(pose)


def test_the_order_of_slices_does_not_matter() -> None:
    latent, position, _ = sections(2)
    latent, position = (
        [x[: 350 - 20 * k] for k, x in enumerate(latent)],
        [x[: 350 - 20 * k] for k, x in enumerate(position)],
    )
    poses, back = common_frame(latent, position), common_frame(latent[::-1], position[::-1])[::-1]
    first = poses[0].T @ back[0]
    for one, other in zip(poses, back, strict=True):
        np.testing.assert_allclose(one.T @ other, first, atol=0.02)


@pytest.mark.parametrize("n_dims", [2, 3])
def test_random_poses_are_uniform_rotations_and_reflections(n_dims: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        poses = random_poses(4000, n_dims).double()
    torch.testing.assert_close(poses @ poses.mT, torch.eye(n_dims).double().expand_as(poses), atol=1e-5, rtol=0)
    determinant = torch.linalg.det(poses)
    assert abs((determinant > 0).double().mean() - 0.5) < 0.04
    # Where a fixed vector goes is uniform on the sphere, whichever vector: mean 0, covariance 1 / d.
    for vectors in poses.unbind(1) + poses.unbind(2):
        assert vectors.mean(0).abs().max() < 0.05
        torch.testing.assert_close(vectors.T @ vectors / 4000, torch.eye(n_dims).double() / n_dims, atol=0.03, rtol=0)
