"""What the networks see of a spot: its features, those of its neighbours, covariates and coordinates."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn

N_FREQUENCIES = 3
_LARGEST = 5.0
_ROWS, _FEWEST_ROWS = 200, 20
_SHIFT, _SPREAD = 4.0, 4.0  # beyond what stains, scanners and tissues do


class InputScaling(nn.Module):
    """Features to mean 0 and variance 1 over the training spots, cut at 5 standard deviations."""

    mean: Tensor
    sd: Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("sd", torch.ones(n_features))

    def fit(self, features: np.ndarray) -> None:
        """Take mean and standard deviation of the training spots; a feature that is constant there counts as zero."""
        sd = features.std(axis=0, dtype=np.float64)
        self.mean = torch.as_tensor(features.mean(axis=0, dtype=np.float64), dtype=torch.float32)
        self.sd = torch.as_tensor(np.where(sd > 1e-6 * np.abs(features).max(axis=0), sd, np.inf), dtype=torch.float32)

    def warn_unlike(self, features: np.ndarray) -> None:
        """Warn if features ``(n_obs, n_features)`` are of another scale than those of training."""
        rows = np.unique(np.linspace(0, len(features) - 1, min(len(features), _ROWS)).astype(np.int64))
        values = np.asarray(features[rows], dtype=np.float64)
        known = torch.isfinite(self.sd).cpu().numpy()
        if not len(values) or not known.any():
            return
        mean, sd = self.mean.cpu().numpy()[known], self.sd.cpu().numpy()[known]
        shift = float(np.median(np.abs(values.mean(axis=0)[known] - mean) / sd))
        spread = float(np.median(values.std(axis=0)[known] / sd))
        if shift > _SHIFT or spread > _SPREAD or (len(values) >= _FEWEST_ROWS and spread < 1 / _SPREAD):
            warnings.warn(
                f"`features_key`: the features are of another scale than those of training: of their typical column, "
                f"the mean lies {shift:.3g} standard deviations of training apart, and the standard deviation is "
                f"{spread:.3g} times that of training. Compute them like those of training, and do not scale them: "
                "the model does.",
                UserWarning,
                stacklevel=4,
            )

    def forward(self, features: Tensor) -> Tensor:
        """``(..., n_features)`` to the same."""
        return ((features - self.mean) / self.sd).clamp(-_LARGEST, _LARGEST)


def neighbor_rows(coordinates: np.ndarray, section: np.ndarray, k: int) -> np.ndarray:
    """Nearest other spots of the same section, int64 ``(n_obs, k)``; where there are fewer, the nearest repeat."""
    rows = np.empty((len(coordinates), k), dtype=np.int64)
    for name in np.unique(section):
        here = np.flatnonzero(section == name)
        n_near = min(k, len(here) - 1)
        if n_near == 0:
            rows[here] = here[:, None]
            continue
        _, near = cKDTree(coordinates[here]).query(coordinates[here], k=n_near + 1)
        others = np.array([[j for j in row if j != i][:n_near] for i, row in enumerate(near)])
        rows[here] = here[others[:, np.arange(k) % n_near]]
    return rows


def coordinate_features(coordinates: np.ndarray, section: np.ndarray) -> np.ndarray:
    """Place in the section, float32 ``(n_obs, d (1 + 2 N_FREQUENCIES))``: coordinates, their sines and cosines.

    Each section is centred and scaled by its root mean square radius, so that units and origins do not matter.
    """
    place = np.array(coordinates, dtype=np.float64)
    for name in np.unique(section):
        here = section == name
        place[here] -= place[here].mean(axis=0)
        place[here] /= max(float(np.sqrt((place[here] ** 2).sum(axis=1).mean())), 1e-12)
    angles = [place * np.pi / 2 * 2**power for power in range(N_FREQUENCIES)]
    return np.concatenate([place, *map(np.sin, angles), *map(np.cos, angles)], axis=1).astype(np.float32)


def n_inputs(n_features: int, n_covariates: int, n_dims: int, *, n_neighbors: int, use_coordinates: bool) -> int:
    """Width of what :class:`Inputs` gives."""
    places = n_dims * (1 + 2 * N_FREQUENCIES) if use_coordinates else 0
    return n_features * (2 if n_neighbors else 1) + n_covariates + places


class Inputs:
    """Inputs of any rows of an object, made when they are asked for.

    Parameters
    ----------
    features
        ``(n_obs, n_features)``: an array, or anything whose rows can be taken.
    scaling
        Of the features.
    covariates
        ``(n_obs, n_covariates)``.
    coordinates, section
        ``(n_obs, d)`` and codes ``(n_obs,)``; needed for neighbours and coordinates.
    n_neighbors
        Nearest spots whose mean features are added; 0 for none.
    use_coordinates
        Add the place in the section.
    """

    def __init__(
        self,
        features: np.ndarray,
        scaling: InputScaling,
        covariates: np.ndarray,
        coordinates: np.ndarray | None,
        section: np.ndarray,
        *,
        n_neighbors: int,
        use_coordinates: bool,
    ) -> None:
        self._features, self._scaling, self._covariates = features, scaling, covariates
        self._near = self._place = None
        if n_neighbors:
            assert coordinates is not None
            self._near = neighbor_rows(coordinates, section, n_neighbors)
        if use_coordinates:
            assert coordinates is not None
            self._place = coordinate_features(coordinates, section)

    def __len__(self) -> int:
        return len(self._covariates)

    def rows(self, rows: np.ndarray) -> Tensor:
        """Inputs float32 ``(len(rows), n_inputs)``."""
        parts = [self._scaled(rows)]
        if self._near is not None:
            near = self._near[rows]
            parts.append(self._scaled(near.ravel()).unflatten(0, near.shape).mean(1))
        parts.append(torch.as_tensor(self._covariates[rows]))
        if self._place is not None:
            parts.append(torch.as_tensor(self._place[rows]))
        return torch.cat(parts, dim=1)

    def blocks(self, size: int) -> Iterator[tuple[slice, Tensor]]:
        """Inputs of all rows, `size` at a time."""
        for start in range(0, len(self), size):
            rows = np.arange(start, min(start + size, len(self)))
            yield slice(start, start + len(rows)), self.rows(rows)

    def _scaled(self, rows: np.ndarray) -> Tensor:
        values = np.asarray(self._features[rows], dtype=np.float32)
        device = self._scaling.mean.device
        return self._scaling(torch.as_tensor(values, device=device)).cpu()
