"""Training through Lightning."""

from stomics_tools.train._best import KeepBest
from stomics_tools.train._checkpoint import EpochCheckpoint, read_checkpoint
from stomics_tools.train._devices import count_devices, resolve_device
from stomics_tools.train._ema import EMA
from stomics_tools.train._history import History, history_tables
from stomics_tools.train._minibatch import MiniBatchPlan, row_batches
from stomics_tools.train._plan import FullBatchPlan, Scheduler
from stomics_tools.train._runner import check_callbacks, fit
from stomics_tools.train._scvi_settings import follow_verbosity, seed_or_default
from stomics_tools.train._threads import yielding

__all__ = [
    "EMA",
    "EpochCheckpoint",
    "FullBatchPlan",
    "History",
    "KeepBest",
    "MiniBatchPlan",
    "Scheduler",
    "check_callbacks",
    "count_devices",
    "fit",
    "follow_verbosity",
    "history_tables",
    "read_checkpoint",
    "resolve_device",
    "row_batches",
    "seed_or_default",
    "yielding",
]
