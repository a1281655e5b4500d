"""The one sparse primitive of every graph model here: a weighted CSR product, differentiable in both factors."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable


def _csr(crow: Tensor, col: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(crow, col, values, shape, check_invariants=False)


class _WeightedProduct(torch.autograd.Function):
    """``y = A(weight) x``; ``dx = A^T dy`` and ``dweight_ij = <dy_i, x_j>``, one dot product an edge."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, graph: Graph) -> Tensor:
        ctx.graph = graph
        ctx.save_for_backward(x, weight)
        return _csr(graph.crow, graph.col, weight, graph.shape) @ x

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *grads: Any) -> tuple[Tensor | None, Tensor | None, None]:
        graph: Graph = ctx.graph  # type: ignore[attr-defined]
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        grad = grads[0].contiguous()
        need_x, need_weight = ctx.needs_input_grad[:2]  # type: ignore[attr-defined]
        grad_x = grad_weight = None
        if need_x:
            n_rows, n_cols = graph.shape
            grad_x = _csr(graph.t_crow, graph.t_col, weight.index_select(0, graph.t_edge), (n_cols, n_rows)) @ grad
        if need_weight:
            pattern = _csr(graph.crow, graph.col, weight, graph.shape)  # its values do not count: beta is 0
            grad_weight = torch.sparse.sampled_addmm(pattern, grad, x.t(), beta=0.0).values()
        return grad_x, grad_weight, None


class _MirrorMean(torch.autograd.Function):
    """``(v_ij + v_ji) / 2``, its own gradient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, graph: Graph) -> Tensor:
        ctx.graph = graph
        return (value + value.index_select(0, graph.t_edge)) / 2

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *grads: Any) -> tuple[Tensor, None]:
        graph: Graph = ctx.graph  # type: ignore[attr-defined]
        return (grads[0] + grads[0].index_select(0, graph.t_edge)) / 2, None


class _EdgeDots(torch.autograd.Function):
    """``s_ij = <x_i, y_j>`` on the edges; ``dx = A(ds) y`` and ``dy = A(ds)^T x``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, graph: Graph) -> Tensor:
        ctx.graph = graph
        ctx.save_for_backward(x, y)
        pattern = _csr(graph.crow, graph.col, x.new_zeros(graph.n_edges), graph.shape)
        return torch.sparse.sampled_addmm(pattern, x.contiguous(), y.t(), beta=0.0).values()

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *grads: Any) -> tuple[Tensor, Tensor, None]:
        graph: Graph = ctx.graph  # type: ignore[attr-defined]
        x, y = ctx.saved_tensors  # type: ignore[attr-defined]
        n_rows, n_cols = graph.shape
        grad_x = _csr(graph.crow, graph.col, grads[0].contiguous(), graph.shape) @ y
        mirrored = _csr(graph.t_crow, graph.t_col, grads[0].index_select(0, graph.t_edge), (n_cols, n_rows))
        return grad_x, mirrored @ x, None


class _RowSoftmax(torch.autograd.Function):
    """``w_ij = e^{l_ij} / sum_j e^{l_ij}``; ``dl_ij = w_ij (dw_ij - sum_j w_ij dw_ij)``."""

    @staticmethod
    def forward(ctx: Any, logit: Tensor, graph: Graph) -> Tensor:
        row = graph.row.long()
        largest = logit.new_full((graph.shape[0],), -torch.inf).scatter_reduce_(0, row, logit, "amax")
        weight = (logit - largest.index_select(0, graph.row)).exp_()
        weight = weight / graph.row_sum(weight).index_select(0, graph.row)
        ctx.graph = graph
        ctx.save_for_backward(weight)
        return weight

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *grads: Any) -> tuple[Tensor, None]:
        graph: Graph = ctx.graph  # type: ignore[attr-defined]
        (weight,) = ctx.saved_tensors  # type: ignore[attr-defined]
        flow = weight * grads[0]
        return flow - weight * graph.row_sum(flow).index_select(0, graph.row), None


class Graph(nn.Module):
    """A fixed sparse pattern of edges; the weights of the edges are given at each call.

    Rows receive, columns send: edge e of row i and column j adds ``weight[e] * x[j]`` to ``y[i]``.
    Cost O(n_edges x width), memory O(n_edges + n x width); nothing of size n x n is made, in the gradients neither.

    Parameters
    ----------
    crow
        Row pointers, integer ``(n_rows + 1,)``.
    col
        Columns of the edges, integer ``(n_edges,)``, ascending and without repeats within a row.
    n_cols
        Number of columns; by default as many as rows.
    """

    crow: Tensor
    col: Tensor
    row: Tensor
    t_crow: Tensor
    t_col: Tensor
    t_edge: Tensor

    def __init__(self, crow: Tensor, col: Tensor, n_cols: int | None = None) -> None:
        super().__init__()
        n_rows = len(crow) - 1
        self.shape = (n_rows, n_rows if n_cols is None else n_cols)
        row = torch.repeat_interleave(torch.arange(n_rows, device=crow.device), crow.diff().long())
        # A stable sort by column keeps the rows ascending: the transposed pattern in CSR.
        t_edge = torch.argsort(col, stable=True)
        t_crow = torch.zeros(self.shape[1] + 1, dtype=torch.int64, device=crow.device)
        t_crow[1:] = torch.bincount(col, minlength=self.shape[1]).cumsum(0)
        # Half the memory, and what the kernels below work in; 64 bits where a count needs them.
        small = max(len(col), *self.shape) < 2**31
        pattern = {"crow": crow, "col": col, "row": row, "t_crow": t_crow, "t_col": row[t_edge], "t_edge": t_edge}
        for name, value in pattern.items():
            self.register_buffer(
                name, value.to(torch.int32 if small else torch.int64), persistent=name in ("crow", "col")
            )

    @property
    def n_edges(self) -> int:
        """Number of edges."""
        return len(self.col)

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """Weighted sum over the neighbours of every row.

        Parameters
        ----------
        x
            ``(n_cols, width)``, floating point.
        weight
            ``(n_edges,)``, same dtype as `x`.

        Returns
        -------
        ``(n_rows, width)``; rows without edges are zero.
        """
        return _WeightedProduct.apply(x, weight, self)

    def row_sum(self, weight: Tensor) -> Tensor:
        """Sum of the edge weights of each row, ``(n_rows,)``."""
        return self(torch.ones(self.shape[1], 1, dtype=weight.dtype, device=weight.device), weight).squeeze(1)

    def mirror_mean(self, value: Tensor) -> Tensor:
        """Mean of the values of each edge and its mirror image, ``(n_edges,)``; the pattern must be symmetric."""
        return _MirrorMean.apply(value, self)

    def edge_dots(self, x: Tensor, y: Tensor) -> Tensor:
        """Dot product ``<x_i, y_j>`` of the two ends of every edge, ``(n_edges,)``.

        Parameters
        ----------
        x
            ``(n_rows, width)``.
        y
            ``(n_cols, width)``.
        """
        return _EdgeDots.apply(x, y, self)

    def row_softmax(self, logit: Tensor) -> Tensor:
        """Softmax of ``(n_edges,)`` over the edges of each row."""
        return _RowSoftmax.apply(logit, self)

    def rows(self, x: Tensor, weight: Tensor, start: int, stop: int) -> Tensor:
        """Rows `start` to `stop` of the product alone (inference in blocks: no gradient)."""
        first, last = int(self.crow[start]), int(self.crow[stop])
        block = _csr(
            self.crow[start : stop + 1] - first, self.col[first:last], weight[first:last], (stop - start, self.shape[1])
        )
        return block @ x


class _HopFilter(torch.autograd.Function):
    """``y = sum_h a_h * (A_h x)``; the backward pass makes the products again instead of keeping them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, graphs: Sequence[Graph], *weights: Tensor) -> Tensor:
        ctx.graphs = graphs
        ctx.save_for_backward(x, scale, *weights)
        total = torch.zeros(graphs[0].shape[0], x.shape[1], dtype=x.dtype, device=x.device)
        for graph, weight, a in zip(graphs, weights, scale, strict=True):
            total.addcmul_(_csr(graph.crow, graph.col, weight, graph.shape) @ x, a)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        x, scale, *weights = ctx.saved_tensors
        grad = grads[0].contiguous()
        need_x, _, _, *need_weights = ctx.needs_input_grad
        grad_x = torch.zeros_like(x) if need_x else None
        grad_scale, grad_weights = torch.empty_like(scale), []
        for h, (graph, weight) in enumerate(zip(ctx.graphs, weights, strict=True)):
            pattern = _csr(graph.crow, graph.col, weight, graph.shape)
            grad_scale[h] = ((pattern @ x).mul_(grad)).sum(0)
            scaled = grad * scale[h]
            if grad_x is not None:
                n_rows, n_cols = graph.shape
                transposed = _csr(graph.t_crow, graph.t_col, weight.index_select(0, graph.t_edge), (n_cols, n_rows))
                grad_x += transposed @ scaled
            needed = need_weights[h]
            grad_weights.append(
                torch.sparse.sampled_addmm(pattern, scaled, x.t(), beta=0.0).values() if needed else None
            )
        return grad_x, grad_scale, None, *grad_weights


def hop_filter(graphs: Sequence[Graph], weights: Sequence[Tensor], x: Tensor, *, scale: Tensor) -> Tensor:
    """``sum_h scale_h * (A_h x)`` over several graphs: a filter of its own for every column.

    Differentiable in all but the patterns. Memory O(n x width) however many graphs there are.

    Parameters
    ----------
    graphs
        Patterns with the same numbers of rows and columns.
    weights
        Their edge weights, ``(n_edges,)`` each.
    x
        ``(n_cols, width)``.
    scale
        ``(n_graphs, width)``.

    Returns
    -------
    ``(n_rows, width)``.
    """
    return _HopFilter.apply(x, scale, graphs, *weights)


def normalize_symmetric(graph: Graph, weight: Tensor) -> Tensor:
    """Weights of ``D^-1/2 W D^-1/2`` with ``D`` the row sums of ``W``; rows that sum to zero stay zero.

    Parameters
    ----------
    graph
        A square pattern.
    weight
        Non-negative weights ``(n_edges,)`` of a symmetric matrix.

    Source: Kipf and Welling, 2017, equation 2 (there of ``A + I``).
    """
    return _SymmetricNormalization.apply(weight, graph)


class _SymmetricNormalization(torch.autograd.Function):
    """With ``s = D^-1/2`` and ``y_ij = w_ij s_i s_j``: ``dw_ij = dy_ij s_i s_j + dd_i``.

    Here ``dd_i = -s_i^2 / 2 (sum_j dy_ij y_ij + sum_j dy_ji y_ji)``, row and column sums instead of scattered adds.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, graph: Graph) -> Tensor:
        degree = graph.row_sum(weight)
        positive = degree > 0
        scale = torch.where(positive, degree, torch.ones_like(degree)).rsqrt() * positive
        both = scale.index_select(0, graph.row) * scale.index_select(0, graph.col)
        ctx.graph = graph
        ctx.save_for_backward(weight, scale, both)
        return weight * both

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *grads: Any) -> tuple[Tensor, None]:
        graph: Graph = ctx.graph  # type: ignore[attr-defined]
        weight, scale, both = ctx.saved_tensors  # type: ignore[attr-defined]
        flow = grads[0] * both
        share = flow * weight
        ones = torch.ones(len(scale), 1, dtype=weight.dtype, device=weight.device)
        columns = _csr(graph.t_crow, graph.t_col, share.index_select(0, graph.t_edge), graph.shape) @ ones
        total = graph.row_sum(share) + columns.squeeze(1)
        return flow + (-0.5 * scale.square() * total).index_select(0, graph.row), None
