"""Sparse matrices to the tensors of :class:`stomics_tools.nn.Graph`."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from stomics_tools.nn import Graph


def to_graph(matrix: sparse.csr_matrix, dtype: torch.dtype = torch.float32) -> tuple[Graph, Tensor]:
    """Pattern of a CSR matrix with ascending indices, and its values ``(n_edges,)`` as weights."""
    crow = torch.from_numpy(matrix.indptr.astype(np.int64))
    col = torch.from_numpy(matrix.indices.astype(np.int64))
    return Graph(crow, col, n_cols=matrix.shape[1]), torch.from_numpy(matrix.data).to(dtype)


def to_csr(graph: Graph, weight: Tensor) -> sparse.csr_matrix:
    """The reverse of :func:`to_graph`, in float32."""
    crow, col = graph.crow.cpu().numpy(), graph.col.cpu().numpy()
    return sparse.csr_matrix((weight.detach().float().cpu().numpy(), col, crow), shape=graph.shape)
