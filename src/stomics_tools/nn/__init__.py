"""Building blocks that know torch only."""

from stomics_tools.nn.graph import Graph, normalize_symmetric

__all__ = ["Graph", "normalize_symmetric"]
