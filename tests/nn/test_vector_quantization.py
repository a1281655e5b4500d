"""Quantizers of vectors against quadrature, brute force, hand-worked averages and numpy."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import distributed

from stomics_tools.nn import FSQ, RunningWhitening, VectorQuantizer, code_usage


def _randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


# Levels


@pytest.mark.parametrize("n", [2, 5, 8])
def test_values_of_levels_are_the_means_of_their_cells(n):
    limits = stats.norm.ppf(np.arange(n + 1) / n)
    means = [
        integrate.quad(lambda z: z * stats.norm.pdf(z), a, b)[0] / integrate.quad(stats.norm.pdf, a, b)[0]
        for a, b in zip(limits[:-1], limits[1:], strict=True)
    ]
    np.testing.assert_allclose(FSQ([n]).codebook()[:, 0], means, atol=1e-6)


def test_codes_are_mixed_radix_numbers_of_the_cells():
    quantizer = FSQ((8, 5, 3))
    z = 1.5 * _randn(4, 50, 3)
    indices = [np.digitize(z[..., i], stats.norm.ppf(np.arange(1, n) / n)) for i, n in enumerate((8, 5, 3))]
    codes = np.ravel_multi_index(indices, (8, 5, 3))
    values, found, loss = quantizer(z)
    np.testing.assert_array_equal(found, codes)
    np.testing.assert_array_equal(quantizer.split(found), np.stack(indices, -1))
    assert torch.equal(quantizer.join(quantizer.split(found)), found)
    assert torch.equal(values, quantizer.codebook()[found])
    assert loss == 0
    assert found.dtype == torch.int64
    assert torch.equal(quantizer(quantizer.codebook()).codes, torch.arange(120))


def test_outermost_levels_take_what_is_far():
    far = torch.tensor([[-1e9, 1e9], [torch.inf, -torch.inf]])
    assert FSQ((4, 8)).split(FSQ((4, 8))(far).codes).tolist() == [[0, 7], [3, 0]]


def test_normal_input_uses_all_codes_alike():
    quantizer = FSQ((8, 4, 4))
    codes = quantizer(_randn(100_000, 3)).codes
    assert stats.chisquare(torch.bincount(codes, minlength=128)).pvalue > 1e-4
    usage = code_usage(codes, 128)
    assert usage["perplexity"] > 0.99 * 128
    assert usage["usage"] == 1


@pytest.mark.parametrize(
    ("n", "levels"),
    [(4096, (8, 8, 8, 8)), (64, (8, 8)), (16, (4, 4)), (128, (8, 4, 4)), (32, (8, 4)), (8, (8,)), (2, (2,))],
)
def test_levels_for_a_vocabulary(n, levels):
    quantizer = FSQ.for_vocabulary(n)
    assert quantizer.levels == levels
    assert (quantizer.n_codes, quantizer.dim) == (n, len(levels))


@pytest.mark.parametrize(("n", "near"), [(1000, "512 or 1024"), (3, "2 or 4"), (1, "Take 2"), (-8, "Take 2")])
def test_vocabulary_that_is_no_power_of_two(n, near):
    with pytest.raises(ValueError, match=f"found {n}.*{near}"):
        FSQ.for_vocabulary(n)


@pytest.mark.parametrize("temperature", [0.0, 0.3, 2.0])
def test_soft_levels_multiply_to_the_soft_targets(temperature):
    quantizer = FSQ((3, 5, 2))
    codes = torch.tensor([[0, 29, 7], [11, 4, 18]])
    soft = quantizer.soft_targets(codes, temperature)
    levels = quantizer.soft_levels(quantizer.split(codes), temperature)
    assert levels.shape == (2, 3, 3, 5)
    assert (levels[..., 0, 3:] == 0).all()
    everywhere = quantizer.split(torch.arange(30))
    product = levels[..., 0, everywhere[:, 0]] * levels[..., 1, everywhere[:, 1]] * levels[..., 2, everywhere[:, 2]]
    torch.testing.assert_close(soft, product)


# Both quantizers


def _quantizers():
    table = VectorQuantizer(30, 3, "vq").eval()
    return [FSQ((3, 5, 2)), table, VectorQuantizer(30, 3, "ema").eval()]


@pytest.mark.parametrize("quantizer", _quantizers(), ids=["fsq", "vq", "ema"])
def test_soft_targets_by_brute_force(quantizer):
    codes = torch.tensor([[0, 29, 7], [11, 4, 18]])
    book = quantizer.codebook().detach().double()
    weights = torch.exp(-(book[codes].unsqueeze(-2) - book).square().sum(-1) / 0.7)
    expected = (weights / weights.sum(-1, keepdim=True)).float()
    torch.testing.assert_close(quantizer.soft_targets(codes, 0.7), expected, atol=1e-6, rtol=1e-5)
    assert torch.equal(quantizer.soft_targets(codes, 0), torch.eye(30)[codes])
    torch.testing.assert_close(quantizer.soft_targets(codes, 1e-4), torch.eye(30)[codes])
    for wrong in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="`temperature`"):
            quantizer.soft_targets(codes, wrong)


@pytest.mark.parametrize("quantizer", _quantizers(), ids=["fsq", "vq", "ema"])
def test_gradient_passes_straight_through(quantizer):
    z = (30 * _randn(7, 2, 3)).requires_grad_()
    flow = _randn(7, 2, 3, seed=1)
    values, codes, _ = quantizer(z)
    assert torch.equal(values, quantizer.lookup(codes))
    (gradient,) = torch.autograd.grad(values, z, flow)
    assert torch.equal(gradient, flow)
    half = quantizer(z.bfloat16())
    assert half.values.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="vectors of 3 numbers, found 4"):
        quantizer(torch.zeros(5, 4))


# The table


def test_nearest_code_by_brute_force(monkeypatch):
    monkeypatch.setattr("stomics_tools.nn.vector_quantization._CHUNK", 700)
    quantizer = VectorQuantizer(100, 6).eval()
    z = _randn(3, 41, 6, seed=3)
    assert torch.equal(quantizer(z).codes, torch.cdist(z.double(), quantizer.codebook().double()).argmin(-1))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantizer(z).codes, torch.cdist(z.double(), quantizer.codebook().double()).argmin(-1))


def test_moving_averages_worked_in_numpy():
    quantizer = VectorQuantizer(6, 2, decay=0.8, dead_after=10**6)
    start = _randn(48, 2, seed=1)
    quantizer.initialise(start)
    table = quantizer.codebook().numpy().astype(float)
    assert {tuple(row) for row in table} <= {tuple(row) for row in start.numpy().astype(float)}
    n = np.full(6, 8.0)
    m = table * 8
    for step in range(5):
        x = _randn(30, 2, seed=step + 2)
        codes = ((x.numpy()[:, None] - table) ** 2).sum(-1).argmin(1)
        values, found, loss = quantizer(x)
        np.testing.assert_array_equal(found, codes)
        np.testing.assert_allclose(values, table[codes], rtol=1e-5)
        np.testing.assert_allclose(loss, 0.25 * ((x.numpy() - table[codes]) ** 2).mean(), rtol=1e-5)
        hot = np.eye(6)[codes]
        n = 0.8 * n + 0.2 * hot.sum(0)
        m = 0.8 * m + 0.2 * hot.T @ x.numpy()
        table = m / ((n + 1e-5) / (n.sum() + 6e-5) * n.sum())[:, None]
        np.testing.assert_allclose(quantizer.codebook(), table, rtol=1e-4)
    quantizer.eval()
    quantizer(x)
    np.testing.assert_allclose(quantizer.codebook(), table, rtol=1e-4)


def test_fewer_rows_than_codes_are_spread_over_all():
    quantizer = VectorQuantizer(20, 2)
    rows = 10 * _randn(6, 2)
    quantizer.initialise(rows)
    distances = torch.cdist(quantizer.codebook(), rows)
    assert distances.amin(1).max() < 0.1
    assert torch.bincount(distances.argmin(1)).tolist().count(3) == 4
    assert len(quantizer.codebook().unique(dim=0)) == 20


def test_dead_codes_come_back_on_clustered_data():
    centres = 10 * _randn(32, 4, seed=5)
    quantizer = VectorQuantizer(32, 4, decay=0.9, dead_after=20)
    quantizer.initialise(centres[:2])
    for step in range(150):
        pick = torch.randint(32, (256,), generator=torch.Generator().manual_seed(step))
        z = centres[pick] + 0.1 * _randn(256, 4, seed=step)
        codes = quantizer(z).codes
        if step == 0:
            assert len(codes.unique()) < 16
    every = centres.repeat_interleave(40, 0) + 0.1 * _randn(1280, 4)
    assert code_usage(quantizer.eval()(every).codes, 32)["n_dead"] == 0


def test_a_restarted_code_has_the_mean_count():
    quantizer = VectorQuantizer(4, 1, decay=0.5, dead_after=2)
    quantizer.initialise(torch.tensor([[0.0], [1.0], [2.0], [100.0]]))
    z = torch.tensor([[0.0], [1.0], [2.0]]).repeat(4, 1)
    unused = quantizer.codebook().argmax()
    quantizer(z)  # counts 2.5, 2.5, 2.5 and 0.5, which is not below a quarter of their mean
    assert quantizer.codebook()[unused] > 90
    quantizer(z)  # counts 3.25, 3.25, 3.25 and 0.25, below a quarter of 2.5
    assert quantizer.counts[unused] == 2.5
    assert quantizer.codebook()[unused] in (0, 1, 2)
    assert quantizer.sums[unused] == 2.5 * quantizer.codebook()[unused]


def test_gradients_of_the_trained_table_by_formula():
    quantizer = VectorQuantizer(12, 3, "vq", commitment=0.4)
    z = _randn(5, 8, 3).requires_grad_()
    _, codes, loss = quantizer(z)
    loss.backward()
    residual = z.detach() - quantizer.codebook().detach()[codes]
    torch.testing.assert_close(loss, 1.4 * residual.square().mean())
    torch.testing.assert_close(z.grad, 0.4 * 2 * residual / residual.numel())
    expected = torch.zeros(12, 3).index_add_(0, codes.flatten(), -2 * residual.flatten(0, 1) / residual.numel())
    torch.testing.assert_close(quantizer.weight.grad, expected)
    assert {tuple(row) for row in quantizer.codebook().tolist()} <= {tuple(r) for r in z.detach().view(-1, 3).tolist()}


def test_only_commitment_has_a_gradient_where_averages_move_the_table():
    quantizer = VectorQuantizer(12, 3)
    assert not list(quantizer.parameters())
    z = _randn(40, 3).requires_grad_()
    values, _, loss = quantizer(z)
    loss.backward()
    torch.testing.assert_close(z.grad, 0.25 * 2 * (z - values).detach() / z.numel())


@pytest.mark.parametrize("mode", ["ema", "vq"])
def test_the_table_begins_once_and_survives_saving(mode):
    first, second = VectorQuantizer(16, 3, mode), VectorQuantizer(16, 3, mode)
    z = _randn(200, 3)
    first.eval()(z)
    assert not first.initialised
    first.train()(z)
    assert first.initialised
    second.load_state_dict(first.state_dict())
    for step in range(3):  # going on, not beginning anew
        for ours, theirs in zip(first(z + step), second(z + step), strict=True):
            assert torch.equal(ours, theirs)
    assert torch.equal(first.codebook(), second.codebook())


def test_same_seed_same_table():
    tables = []
    for _ in range(2):
        torch.manual_seed(3)
        quantizer = VectorQuantizer(64, 3, decay=0.5, dead_after=3)
        for step in range(8):
            quantizer(_randn(50, 3, seed=step))
        tables.append(quantizer.codebook())
    assert torch.equal(*tables)
    torch.manual_seed(4)
    other = VectorQuantizer(64, 3, decay=0.5, dead_after=3)
    other(_randn(50, 3))
    assert not torch.equal(other.codebook(), tables[0])


@pytest.mark.parametrize(
    ("build", "argument"),
    [
        (lambda: FSQ(()), "levels"),
        (lambda: FSQ((8, 1)), "levels"),
        (lambda: FSQ((8, 2.5)), "levels"),
        (lambda: VectorQuantizer(1), "n_codes"),
        (lambda: VectorQuantizer(dim=0), "dim"),
        (lambda: VectorQuantizer(8, mode="fsq"), "mode"),
        (lambda: VectorQuantizer(8, decay=1.0), "decay"),
        (lambda: VectorQuantizer(8, dead_after=0), "dead_after"),
        (lambda: VectorQuantizer(8, commitment=-1.0), "commitment"),
        (lambda: RunningWhitening(0), "dim"),
        (lambda: RunningWhitening(2, momentum=0.0), "momentum"),
        (lambda: RunningWhitening(2, eps=0.0), "eps"),
        (lambda: code_usage(torch.tensor([0, 5]), 5), "codes"),
        (lambda: code_usage(torch.tensor([-1]), 5), "codes"),
        (lambda: code_usage(torch.tensor([], dtype=torch.int64), 5), "codes"),
    ],
)
def test_bad_arguments_are_named(build, argument):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        build()


# Whitening and usage


def test_whitening_follows_the_weighted_statistics_of_all_rows():
    whitening = RunningWhitening(4, momentum=0.3)
    mixing = _randn(4, 4, seed=9)
    rows, weights = [], []
    for step, n in enumerate((50, 20, 90)):
        x = _randn(n // 10, 10, 4, seed=step) @ mixing + step
        whitening(x)
        rows.append(x.view(-1, 4).numpy())
        weights.append(np.full(n, 0.7 ** (2 - step) / n))
    everything, weight = np.concatenate(rows).astype(float), np.concatenate(weights)
    np.testing.assert_allclose(whitening.mean, np.average(everything, axis=0, weights=weight), rtol=1e-4)
    covariance = np.cov(everything.T, aweights=weight, ddof=0)
    np.testing.assert_allclose(whitening.covariance, covariance, rtol=1e-4, atol=1e-5)
    factor = np.linalg.cholesky(covariance + 1e-5 * np.trace(covariance) / 4 * np.eye(4))
    expected = np.linalg.solve(factor, (rows[0] - whitening.mean.numpy()).T).T
    np.testing.assert_allclose(whitening.eval()(torch.from_numpy(rows[0])), expected, rtol=1e-3, atol=1e-4)


def test_the_first_batch_comes_out_white_and_goes_back():
    whitening = RunningWhitening(5)
    x = _randn(400, 5) @ _randn(5, 5, seed=1) + 30
    assert torch.equal(whitening.eval()(x), x)
    assert torch.equal(whitening.inverse(x), x)
    z = whitening.train()(x)
    np.testing.assert_allclose(np.cov(z.T, ddof=0), np.eye(5), atol=2e-3)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-4)
    torch.testing.assert_close(whitening.inverse(z), x, rtol=1e-4, atol=1e-4)
    second = RunningWhitening(5)
    second.load_state_dict(whitening.state_dict())
    assert torch.equal(second(2 * x), whitening(2 * x))


def test_whitening_has_the_gradient_of_a_linear_map():
    whitening = RunningWhitening(3)
    whitening(_randn(60, 3) @ _randn(3, 3, seed=1))
    x = _randn(6, 3, seed=2, dtype=torch.float64).requires_grad_()
    whitening.eval()
    jacobian = torch.autograd.functional.jacobian(lambda row: whitening.inverse(whitening(row)), x[0])
    torch.testing.assert_close(jacobian, torch.eye(3, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(whitening.train()(x)[:, 0].sum(), x)
    assert (gradient == gradient[0]).all()  # none through the mean or the covariance


@pytest.mark.parametrize("dim", [8, 64])
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_whitening_of_degenerate_rows(dim, rank):
    x = 1e3 + 10 * _randn(3000, rank) @ _randn(rank, dim, seed=1)
    whitening = RunningWhitening(dim)
    z = whitening(x)
    assert z.isfinite().all()
    assert z.abs().max() < 100
    torch.testing.assert_close(whitening.inverse(z), x, rtol=1e-4, atol=1e-2)
    assert whitening(x[:1]).isfinite().all()


def test_usage_against_scipy():
    codes = torch.tensor([[0, 3, 3], [3, 7, 0]])
    usage = code_usage(codes, 10)
    assert usage["perplexity"] == pytest.approx(np.exp(stats.entropy([2, 3, 1])))
    assert (usage["usage"], usage["n_dead"], usage["n_tokens"]) == (pytest.approx(0.3), 7, 6)


# Two ranks


def _train_rank(rank, folder):
    torch.set_num_threads(1)  # threads do not survive the fork
    distributed.init_process_group("gloo", f"file://{folder}/store", world_size=2, rank=rank)
    torch.manual_seed(rank)
    whitening, quantizer = RunningWhitening(3), VectorQuantizer(40, 3, decay=0.5, dead_after=3)
    z = [_randn(30, 3, seed=10 * step) + 2 for step in range(6)]
    whitening(z[0][rank::2])
    for batch in z:
        quantizer(batch[rank::2])
    torch.save((whitening.state_dict(), quantizer.state_dict()), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_ranks_agree_and_count_all_rows(tmp_path):
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=_train_rank, args=(rank, str(tmp_path)), daemon=True) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    (white, table), (other_white, other_table) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for ours, theirs in zip(
        (*white.values(), *table.values()), (*other_white.values(), *other_table.values()), strict=True
    ):
        assert torch.equal(ours, theirs)
    single = RunningWhitening(3)
    single(_randn(30, 3) + 2)
    torch.testing.assert_close(white["covariance"], single.covariance)
    torch.testing.assert_close(white["mean"], single.mean)
