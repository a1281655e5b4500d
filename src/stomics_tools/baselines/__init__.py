"""Simple competitors that predict expression or positions, with scikit-learn's ``fit`` and ``predict``."""

from __future__ import annotations

from typing import Any

from stomics_tools._namespace import missing_attribute
from stomics_tools.baselines._boosting import GradientBoosting
from stomics_tools.baselines._cell_types import CellTypeCentroid, CellTypeMean
from stomics_tools.baselines._knn import KNNRetrieval
from stomics_tools.baselines._mean import TrainingMean
from stomics_tools.baselines._mfbp import MFBP
from stomics_tools.baselines._mlp import MLP
from stomics_tools.baselines._next_scale import NextScale
from stomics_tools.baselines._positions import PositionKNN, PositionMLP, PositionRidge
from stomics_tools.baselines._residuals import GaussianResiduals
from stomics_tools.baselines._ridge import PCARidge
from stomics_tools.baselines._spatial import RandomFourierRidge, SpatialKNN

__all__ = [
    "MFBP",
    "MLP",
    "CellTypeCentroid",
    "CellTypeMean",
    "GaussianResiduals",
    "GradientBoosting",
    "KNNRetrieval",
    "NextScale",
    "PCARidge",
    "PositionKNN",
    "PositionMLP",
    "PositionRidge",
    "RandomFourierRidge",
    "SpatialKNN",
    "TrainingMean",
]


def __getattr__(name: str) -> Any:
    raise missing_attribute(__name__, name, __all__)


def __dir__() -> list[str]:
    return sorted(__all__)
