"""The sparse product against dense autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from stomics_tools.data._tensors import to_csr, to_graph
from stomics_tools.nn import Graph, hop_filter, normalize_symmetric


def _random(n_rows, n_cols, density, seed=0):
    rng = np.random.default_rng(seed)
    matrix = sparse.random(n_rows, n_cols, density, format="csr", random_state=rng, dtype=np.float64)
    matrix.sort_indices()
    return matrix


def _dense(graph, weight):
    dense = torch.zeros(graph.shape, dtype=weight.dtype)
    return dense.index_put((graph.row.long(), graph.col.long()), weight)


@pytest.mark.parametrize(
    ("n_rows", "n_cols", "density"),
    [(30, 30, 0.2), (7, 19, 0.4), (19, 7, 0.4), (12, 12, 1.0), (25, 25, 0.02), (5, 5, 0.0), (1, 1, 1.0), (1, 1, 0.0)],
)
def test_product_and_both_gradients_equal_dense_autograd(n_rows, n_cols, density):
    graph, weight = to_graph(_random(n_rows, n_cols, density), torch.float64)
    torch.manual_seed(0)
    x = torch.randn(n_cols, 5, dtype=torch.float64, requires_grad=True)
    weight.requires_grad_()
    target = torch.randn(n_rows, 5, dtype=torch.float64)
    ours = torch.autograd.grad(((graph(x, weight) - target) ** 3).sum(), (x, weight))
    dense = torch.autograd.grad(((_dense(graph, weight) @ x - target) ** 3).sum(), (x, weight))
    torch.testing.assert_close(graph(x, weight), _dense(graph, weight) @ x)
    for a, b in zip(ours, dense, strict=True):
        torch.testing.assert_close(a, b)


def test_gradcheck():
    graph, weight = to_graph(_random(9, 6, 0.4), torch.float64)
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(graph, (x, weight.requires_grad_()))


def test_gradient_through_the_normalisation():
    matrix = _random(12, 12, 0.3)
    graph, weight = to_graph(sparse.csr_matrix(matrix + matrix.T), torch.float64)
    assert torch.autograd.gradcheck(lambda w: normalize_symmetric(graph, w), (weight.requires_grad_(),))


def test_normalisation_equals_the_formula():
    matrix = _random(20, 20, 0.1)
    matrix = sparse.csr_matrix(matrix + matrix.T)
    graph, weight = to_graph(matrix, torch.float64)
    dense = matrix.toarray()
    degree = dense.sum(1)
    assert (degree == 0).any()  # rows without edges stay zero
    scale = np.where(degree > 0, degree, np.inf) ** -0.5
    result = to_csr(graph, normalize_symmetric(graph, weight)).toarray()
    np.testing.assert_allclose(result, scale[:, None] * dense * scale, rtol=1e-6)


def test_rows_equal_the_whole():
    graph, weight = to_graph(_random(23, 11, 0.3), torch.float64)
    x = torch.randn(11, 4, dtype=torch.float64)
    whole = graph(x, weight)
    for start, stop in ((0, 23), (0, 1), (5, 17), (22, 23)):
        torch.testing.assert_close(graph.rows(x, weight, start, stop), whole[start:stop])


def test_row_sums():
    matrix = _random(13, 8, 0.3)
    graph, weight = to_graph(matrix, torch.float64)
    np.testing.assert_allclose(graph.row_sum(weight), np.asarray(matrix.sum(1)).ravel())


def test_order_of_nodes_does_not_matter():
    matrix = _random(40, 40, 0.1)
    x = np.random.default_rng(1).normal(size=(40, 6))
    order = np.random.default_rng(2).permutation(40)
    graph, weight = to_graph(matrix, torch.float64)
    permuted = matrix[order][:, order].tocsr()
    permuted.sort_indices()
    other, other_weight = to_graph(permuted, torch.float64)
    expected = graph(torch.from_numpy(x), weight).numpy()[order]
    np.testing.assert_allclose(other(torch.from_numpy(x[order]), other_weight), expected, atol=1e-12)


def test_mirrored_edges_of_a_symmetric_pattern():
    matrix = _random(15, 15, 0.2)
    matrix = sparse.csr_matrix(matrix + matrix.T + sparse.identity(15))
    matrix.data = np.arange(matrix.nnz, dtype=np.float64)
    graph, weight = to_graph(matrix, torch.float64)
    np.testing.assert_array_equal(to_csr(graph, weight[graph.t_edge.long()]).toarray(), matrix.toarray().T)


def test_mirror_mean_and_its_gradient():
    matrix = _random(12, 12, 0.2)
    graph, weight = to_graph(sparse.csr_matrix(matrix + matrix.T), torch.float64)
    value = torch.randn(graph.n_edges, dtype=torch.float64, requires_grad=True)
    dense = _dense(graph, value.detach())
    np.testing.assert_allclose(to_csr(graph, graph.mirror_mean(value)).toarray(), (dense + dense.T) / 2, rtol=1e-6)
    assert torch.autograd.gradcheck(graph.mirror_mean, (value,))


def test_state_holds_the_pattern_alone_and_moves_in_size():
    graph, _ = to_graph(_random(9, 9, 0.5))
    assert set(graph.state_dict()) == {"crow", "col"}
    again = Graph(graph.crow, graph.col)
    for name, buffer in graph.named_buffers():
        assert torch.equal(buffer, again.get_buffer(name))


def test_memory_does_not_grow_with_the_square():
    """30,000 nodes: an n x n float32 array would take 3.6 GB."""
    n, k = 30_000, 4
    col = torch.stack([(torch.arange(n) + s) % n for s in range(1, k + 1)], 1).sort(1).values.reshape(-1)
    graph = Graph(torch.arange(0, n * k + 1, k), col)
    x, weight = torch.randn(n, 8, requires_grad=True), torch.rand(n * k, requires_grad=True)
    with torch.profiler.profile(profile_memory=True) as profile:
        graph(x, weight).sum().backward()
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest < 50 * n * k


PATTERNS = [(14, 14, 0.3), (6, 17, 0.3), (17, 6, 0.3), (25, 25, 0.03), (5, 5, 0.0), (4, 4, 1.0)]
NEEDS = [(True, True), (True, False), (False, True)]


def _normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _leaves(tensors, needs):
    return [t.clone().requires_grad_(need) for t, need in zip(tensors, needs, strict=True)]


def _same_gradients(ours, dense, leaves):
    """The same outcome and the same gradient, in the leaves that need one, of a loss that is not linear."""
    torch.testing.assert_close(ours, dense)
    needing = [leaf for leaf in leaves if leaf.requires_grad]
    target = _normal(*ours.shape, seed=9)
    a = torch.autograd.grad(((ours - target) ** 3).sum(), needing)
    b = torch.autograd.grad(((dense - target) ** 3).sum(), needing)
    for one, other in zip(a, b, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("needs", NEEDS)
@pytest.mark.parametrize(("n_rows", "n_cols", "density"), PATTERNS)
def test_edge_dots_and_gradients_equal_dense_autograd(n_rows, n_cols, density, needs):
    graph, _ = to_graph(_random(n_rows, n_cols, density), torch.float64)
    x, y = _leaves((_normal(n_rows, 3), _normal(n_cols, 3, seed=1)), needs)
    _same_gradients(graph.edge_dots(x, y), (x @ y.T)[graph.row.long(), graph.col.long()], (x, y))


def test_edge_dots_of_a_position_with_itself():
    graph, _ = to_graph(_random(10, 10, 0.3), torch.float64)
    x = _normal(10, 4).requires_grad_()
    _same_gradients(graph.edge_dots(x, x), (x @ x.T)[graph.row.long(), graph.col.long()], (x,))
    assert torch.autograd.gradcheck(lambda x: graph.edge_dots(x, x), (x,))
    assert torch.autograd.gradcheck(graph.edge_dots, (x, _normal(10, 4, seed=1).requires_grad_()))


@pytest.mark.parametrize(("n_rows", "n_cols", "density"), PATTERNS)
def test_row_softmax_and_gradient_equal_dense_autograd(n_rows, n_cols, density):
    graph, _ = to_graph(_random(n_rows, n_cols, density), torch.float64)
    logit = (3 * _normal(graph.n_edges)).requires_grad_()
    row, col = graph.row.long(), graph.col.long()
    dense = torch.full(graph.shape, -torch.inf, dtype=torch.float64).index_put((row, col), logit)
    _same_gradients(graph.row_softmax(logit), dense.softmax(1)[row, col], (logit,))


def test_row_softmax_gradcheck_and_rows_without_edges():
    graph, _ = to_graph(_random(12, 12, 0.12), torch.float64)
    full = graph.crow.diff() > 0
    assert full.any()
    assert not full.all()
    logit = _normal(graph.n_edges).requires_grad_()
    torch.testing.assert_close(graph.row_sum(graph.row_softmax(logit)), full.double())
    assert torch.autograd.gradcheck(graph.row_softmax, (logit,))


def test_row_softmax_of_large_logits():
    graph, _ = to_graph(_random(8, 8, 0.6), torch.float32)
    logit = 1e4 * torch.randn(graph.n_edges, generator=torch.Generator().manual_seed(0))
    weight = graph.row_softmax(logit)
    assert weight.isfinite().all()
    torch.testing.assert_close(graph.row_sum(weight), (graph.crow.diff() > 0).float())
    torch.testing.assert_close(graph.row_softmax(logit + 777.0), weight, atol=2e-3, rtol=0)


def _filters(n_rows, n_cols, density):
    pairs = [to_graph(_random(n_rows, n_cols, d, seed), torch.float64) for seed, d in enumerate((density, 0.2, 0.0))]
    graphs, weights = zip(*pairs, strict=True)
    return graphs, weights, _normal(n_cols, 4), _normal(3, 4, seed=1)


@pytest.mark.parametrize(
    "needs",
    [
        (True,) * 5,
        (True, False, False, False, False),
        (False, True, False, False, False),
        (False, False, *[True, False, True]),
    ],
)
@pytest.mark.parametrize(("n_rows", "n_cols", "density"), PATTERNS)
def test_hop_filter_and_gradients_equal_dense_autograd(n_rows, n_cols, density, needs):
    graphs, weights, x, scale = _filters(n_rows, n_cols, density)
    x, scale, *weights = _leaves((x, scale, *weights), needs)
    parts = [_dense(g, w) @ x * a for g, w, a in zip(graphs, weights, scale, strict=True)]
    _same_gradients(hop_filter(graphs, weights, x, scale=scale), sum(parts), (x, scale, *weights))


def test_hop_filter_gradcheck():
    graphs, weights, x, scale = _filters(7, 5, 0.5)
    leaves = _leaves((x, scale, *weights), (True,) * 5)
    assert torch.autograd.gradcheck(lambda x, a, *w: hop_filter(graphs, w, x, scale=a), leaves)
