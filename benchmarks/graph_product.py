"""The sparse product of `stomics_tools.nn.Graph` beside the naive forms: forward and both gradients.

python benchmarks/graph_product.py [--nodes 100000] [--neighbors 30] [--width 64]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from stomics_tools.data import hilbert_order, spatial_knn
from stomics_tools.data._tensors import to_graph
from stomics_tools.nn import Graph


def gathered(graph: Graph, x: Tensor, weight: Tensor) -> Tensor:
    """A message an edge, added up at the receiver: an (n_edges, width) array each way."""
    messages = x[graph.col.long()] * weight[:, None]
    return x.new_zeros(graph.shape[0], x.shape[1]).index_add(0, graph.row.long(), messages)


def coordinate(graph: Graph, x: Tensor, weight: Tensor) -> Tensor:
    """torch's own sparse product of a COO matrix."""
    index = torch.stack([graph.row.long(), graph.col.long()])
    return torch.sparse.mm(torch.sparse_coo_tensor(index, weight, graph.shape, is_coalesced=True), x)


def dense(graph: Graph, x: Tensor, weight: Tensor) -> Tensor:
    """An n x n array."""
    matrix = x.new_zeros(graph.shape).index_put((graph.row.long(), graph.col.long()), weight)
    return matrix @ x


def seconds(product: Callable, graph: Graph, width: int, repeats: int = 5) -> float:
    """Median of forward and backward."""
    torch.manual_seed(0)
    x = torch.randn(graph.shape[1], width, requires_grad=True)
    weight = torch.rand(graph.n_edges, requires_grad=True)
    times = []
    for _ in range(repeats + 1):
        x.grad = weight.grad = None
        start = time.perf_counter()
        product(graph, x, weight).sum().backward()
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--neighbors", type=int, default=30)
    parser.add_argument("--width", type=int, default=64)
    args = parser.parse_args()
    xy = np.random.default_rng(0).uniform(size=(args.nodes, 2))
    orders = {"along a curve": hilbert_order(xy), "random order": np.random.default_rng(1).permutation(args.nodes)}
    forms: dict[str, Callable] = {
        "CSR product (ours)": lambda g, x, w: g(x, w),
        "gather and add": gathered,
        "COO product": coordinate,
    }
    if args.nodes <= 10_000:
        forms["dense n x n"] = dense
    print(f"{args.nodes} nodes x {args.neighbors} edges x {args.width}, float32, {torch.get_num_threads()} threads")
    print("| form | order | forward + backward, s |\n|---|---|---|")
    for order_name, order in orders.items():
        graph, _ = to_graph(spatial_knn(xy[order], args.neighbors))
        for name, product in forms.items():
            print(f"| {name} | {order_name} | {seconds(product, graph, args.width):.3f} |", flush=True)


if __name__ == "__main__":
    main()
