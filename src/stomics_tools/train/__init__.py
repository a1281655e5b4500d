"""Training through Lightning."""

from stomics_tools.train._checkpoint import EpochCheckpoint, read_checkpoint
from stomics_tools.train._history import History
from stomics_tools.train._plan import FullBatchPlan
from stomics_tools.train._runner import fit

__all__ = ["EpochCheckpoint", "FullBatchPlan", "History", "fit", "read_checkpoint"]
