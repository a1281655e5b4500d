"""Deep models for spatial omics, as a scverse-ecosystem plugin.

The namespaces below are imported when they are first touched, so that ``import stomics_tools`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from types import ModuleType

from stomics_tools._namespace import missing_attribute, random_states_kept

__version__ = version("stomics-tools")

_NAMESPACES = ("baselines", "datasets", "metrics", "model", "nn", "pl", "pp", "tl")

__all__ = ["__version__", *_NAMESPACES]


def __getattr__(name: str) -> ModuleType:
    if name in _NAMESPACES:
        with random_states_kept():
            return import_module(f"{__name__}.{name}")
    raise missing_attribute(__name__, name, __all__)


def __dir__() -> list[str]:
    return sorted(__all__)
