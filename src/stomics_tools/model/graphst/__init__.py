"""GraphST: spatial domains from one modality."""

from stomics_tools.model.graphst._model import GraphST

__all__ = ["GraphST"]
