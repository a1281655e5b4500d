"""Plots. They read an object and never write into it."""

from __future__ import annotations

from typing import Any

from stomics_tools._namespace import missing_attribute, random_states_kept

with random_states_kept():
    from stomics_tools.pl._codebook import codebook_usage
    from stomics_tools.pl._compare import compare_models
    from stomics_tools.pl._domains import domains
    from stomics_tools.pl._embedding import embedding
    from stomics_tools.pl._expression import expression
    from stomics_tools.pl._firing_rates import firing_rates
    from stomics_tools.pl._history import history
    from stomics_tools.pl._intervals import intervals
    from stomics_tools.pl._learned_graph import learned_graph
    from stomics_tools.pl._modality_weights import modality_weights
    from stomics_tools.pl._positions import positions
    from stomics_tools.pl._prototypes import prototypes

__all__ = [
    "codebook_usage",
    "compare_models",
    "domains",
    "embedding",
    "expression",
    "firing_rates",
    "history",
    "intervals",
    "learned_graph",
    "modality_weights",
    "positions",
    "prototypes",
]


def __getattr__(name: str) -> Any:
    raise missing_attribute(__name__, name, __all__)


def __dir__() -> list[str]:
    return sorted(__all__)
