"""Simple competitors that predict expression from features, with scikit-learn's ``fit`` and ``predict``."""

from __future__ import annotations

from stomics_tools.baselines._boosting import GradientBoosting
from stomics_tools.baselines._knn import KNNRetrieval
from stomics_tools.baselines._mean import TrainingMean
from stomics_tools.baselines._mfbp import MFBP
from stomics_tools.baselines._mlp import MLP
from stomics_tools.baselines._residuals import GaussianResiduals
from stomics_tools.baselines._ridge import PCARidge

__all__ = [
    "MFBP",
    "MLP",
    "GaussianResiduals",
    "GradientBoosting",
    "KNNRetrieval",
    "PCARidge",
    "TrainingMean",
]
