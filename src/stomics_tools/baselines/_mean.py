"""The least that a prediction must beat."""

from __future__ import annotations

import numpy as np

from stomics_tools.baselines._base import Baseline


class TrainingMean(Baseline):
    """Mean of each gene over the training spots, whatever the features."""

    def _fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> None:
        pass

    def _predict(self, x: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
        return np.tile(self.mean_, (len(x), 1))
