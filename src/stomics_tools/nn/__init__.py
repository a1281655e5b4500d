"""Building blocks that know torch only."""

from stomics_tools.nn.graph import Graph, normalize_symmetric
from stomics_tools.nn.multispike import Multispike, multispike, unroll

__all__ = ["Graph", "Multispike", "multispike", "normalize_symmetric", "unroll"]
