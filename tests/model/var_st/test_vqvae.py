from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import nbinom, norm
from torch import Tensor, nn

from stomics_tools.model.var_st._module import VarSTModule
from stomics_tools.model.var_st._vqvae import GeneVQVAE, negative_binomial_nll
from stomics_tools.nn import FSQ

Make = Callable[..., VarSTModule]
QUANTIZERS = ["fsq", "ema", "vq"]


@pytest.fixture(params=QUANTIZERS)
def stage1(request: pytest.FixtureRequest, make_networks: Make) -> GeneVQVAE:
    return make_networks(quantizer=request.param).stage1


def profiles(n: int = 20) -> tuple[Tensor, Tensor]:
    """Standardised expression, zero where it was not measured, and where it was."""
    measured = (torch.rand(n, 9) < 0.8).float()
    return torch.randn(n, 9) * measured, measured


def nearest_levels(z: np.ndarray, levels: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Codes and values of finite scalar quantization, number by number, by integrals of the normal density."""
    codes, values = np.zeros(z.shape[:-1], dtype=int), np.zeros(z.shape)
    for place in np.ndindex(*z.shape[:-1]):
        for dimension, n in enumerate(levels):
            level = int(min(np.floor(n * norm.cdf(z[place][dimension])), n - 1))
            low, high = norm.ppf(level / n), norm.ppf((level + 1) / n)
            values[place][dimension] = n * quad(lambda t: t * norm.pdf(t), low, high)[0]
            codes[place] = codes[place] * n + level
    return codes, values


def through(x: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Piecewise linear map that takes `start` to `end`, with slope one beyond them."""
    return np.interp(x, start, end) + np.minimum(x - start[0], 0) + np.maximum(x - start[-1], 0)


class NormalMap:
    """Whitening and quantile maps in numpy, with the statistics of a module."""

    def __init__(self, module: nn.Module) -> None:
        self.knots, self.targets = module.knots.double().numpy(), module.targets.double().numpy()
        self.mean = module.whitening.mean.double().numpy()
        covariance = module.whitening.covariance.double().numpy()
        self.dim = len(covariance)
        self.factor = np.linalg.cholesky(covariance + 1e-5 * np.trace(covariance) / self.dim * np.eye(self.dim))

    def forward(self, x: np.ndarray) -> np.ndarray:
        white = (x - self.mean) @ np.linalg.inv(self.factor).T
        return np.stack([through(white[..., d], self.knots[d], self.targets) for d in range(self.dim)], axis=-1)

    def inverse(self, z: np.ndarray) -> np.ndarray:
        white = np.stack([through(z[..., d], self.targets, self.knots[d]) for d in range(self.dim)], axis=-1)
        return white @ self.factor.T + self.mean


@torch.no_grad()
@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_quantization_across_scales_matches_dense_matrices(make_networks: Make, tree: Tensor, quantizer: str) -> None:
    stage1 = make_networks(quantizer=quantizer).stage1
    field = stage1.encode(*profiles(6))
    found = stage1.quantize(field)

    left, known, token = field.double().numpy(), np.zeros(field.shape), 0
    finest = tree[-1].numpy()
    for scale, groups in enumerate(tree.numpy()):
        size = groups.max() + 1
        member = np.zeros((size, 5))
        for group, part in zip(groups, finest, strict=True):
            member[group, part] = 1
        pooled = np.einsum("gs,bsc->bgc", member / member.sum(1, keepdims=True), left)
        tokens = slice(token, token + size)
        token += size
        read = np.stack([pooled[:, i] @ stage1.project[tokens][i].double().numpy() for i in range(size)], axis=1)
        map_ = NormalMap(stage1.whitening[scale])
        normal = map_.forward(read)
        if isinstance(stage1.quantizer, FSQ):
            codes, values = nearest_levels(normal, stage1.quantizer.levels)
        else:
            table = stage1.quantizer.codebook().double().numpy()
            codes = np.square(normal[:, :, None] - table).sum(-1).argmin(-1)
            values = table[codes]
        told = map_.inverse(values)
        told = np.stack([told[:, i] @ stage1.unproject[tokens][i].double().numpy() for i in range(size)], axis=1)
        added = np.einsum("gs,bgc->bsc", member, told)
        known, left = known + added, left - added
        np.testing.assert_array_equal(found.codes[:, tokens], codes)
        np.testing.assert_allclose(found.prefixes[scale], known, atol=1e-4 * np.abs(known).max())


@torch.no_grad()
def test_codes_tell_the_prefixes_exactly(stage1: GeneVQVAE) -> None:
    field = stage1.quantize(stage1.encode(*profiles()))
    known = torch.zeros(())
    for scale, tokens in enumerate(stage1.scales.slices()):
        known = known + stage1.lookup(field.codes[:, tokens], scale)
        assert torch.equal(known, field.prefixes[scale])
    assert field.codes.shape == (20, 10)
    assert field.codes.dtype == torch.int64
    assert 0 <= field.codes.min()
    assert field.codes.max() < stage1.quantizer.n_codes


@torch.no_grad()
def test_what_a_prefix_decodes_to_does_not_depend_on_later_scales(stage1: GeneVQVAE) -> None:
    field = stage1.quantize(stage1.encode(*profiles()))
    outputs = stage1.decode(field.prefixes)
    assert outputs.shape == (3, 20, 9)
    known = torch.zeros(())
    for scale, tokens in enumerate(stage1.scales.slices()):
        known = known + stage1.lookup(field.codes[:, tokens], scale)
        torch.testing.assert_close(stage1.decode(known), outputs[scale])
    assert not torch.allclose(outputs[0], outputs[2])


@torch.no_grad()
def test_coarse_codes_are_the_same_for_all_genes_of_a_group(stage1: GeneVQVAE) -> None:
    prefix = stage1.quantize(stage1.encode(*profiles())).prefixes[0]
    for group in range(2):
        parts = prefix[:, stage1.scales.up(torch.arange(2).view(1, 2, 1), 0)[0, :, 0] == group]
        assert (parts == parts[:, :1]).all()


@torch.no_grad()
def test_spots_do_not_depend_on_each_other(stage1: GeneVQVAE) -> None:
    x, measured = profiles()
    whole, alone = (stage1.quantize(stage1.encode(a, b)).prefixes for a, b in ((x, measured), (x[3:4], measured[3:4])))
    torch.testing.assert_close(whole[:, 3:4], alone)


@torch.no_grad()
@pytest.mark.parametrize("likelihood", ["normal", "nb"])
def test_genes_in_another_order_with_their_weights_give_the_same(
    make_networks: Make, tree: Tensor, likelihood: str
) -> None:
    stage1 = make_networks(likelihood=likelihood).stage1
    order = torch.randperm(9)
    other = make_networks(tree[:, order], likelihood=likelihood).stage1
    state = stage1.state_dict()
    for name in (name for name, value in state.items() if value.shape[:1] == (9,)):
        state[name] = state[name][order]
    other.load_state_dict(state)
    x, measured = profiles()
    field, moved = stage1.encode(x, measured), other.encode(x[:, order], measured[:, order])
    torch.testing.assert_close(field, moved)
    torch.testing.assert_close(stage1.decode(field)[:, order], other.decode(moved))


@torch.no_grad()
def test_field_is_the_components_of_the_measured_genes_and_what_they_leave(make_networks: Make, tree: Tensor) -> None:
    stage1 = make_networks().stage1
    x, measured = profiles()
    n = stage1.n_components
    parts = torch.zeros(20, 5, stage1.output_weight.shape[1])
    for spot in range(20):
        seen = measured[spot].nonzero()[:, 0]
        components = sum(x[spot, gene] * stage1.components[gene] for gene in seen) * 9 / len(seen)
        parts[spot, :, :n] = components
        for gene in seen:
            left = x[spot, gene] - components @ stage1.output_weight[gene, :n]
            parts[spot, tree[-1][gene], n:] += left * stage1.own_weight[gene]
    torch.testing.assert_close(stage1.encode(x, measured), stage1.encode_block(parts), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_gene_that_was_not_measured_counts_as_missing_and_not_as_its_mean(make_networks: Make) -> None:
    stage1 = make_networks().stage1
    x = torch.randn(5, 9)
    x[:, 2] = 0
    measured = torch.ones(5, 9)
    measured[:, 2] = 0
    assert not torch.allclose(stage1.encode(x, measured), stage1.encode(x, torch.ones(5, 9)))


@pytest.mark.parametrize("likelihood", ["normal", "nb"])
def test_values_that_were_not_measured_influence_nothing(make_networks: Make, likelihood: str) -> None:
    networks = make_networks(likelihood=likelihood)
    x, measured = profiles()
    counts = torch.randint(30, (20, 9)) * measured
    results = []
    for hidden in (0.0, 1e3):
        values = torch.where(measured == 0, hidden, x).requires_grad_()
        torch.manual_seed(1)
        losses = networks.stage1.loss(values, measured, counts, hide=0.5)
        losses["train_loss"].backward()
        assert values.grad is not None
        assert not values.grad[measured == 0].any()
        results.append({name: loss.item() for name, loss in losses.items()})
    assert results[0] == results[1]
    assert all(np.isfinite(value) for value in results[0].values())


@torch.no_grad()
def test_standardised_expression_is_zero_where_it_is_missing(make_networks: Make) -> None:
    networks = make_networks()
    networks.gene_mean.copy_(torch.arange(9.0))
    networks.gene_sd.fill_(2.0)
    expression = torch.randn(4, 9)
    expression[0, 3] = torch.nan
    x, measured = networks.standardize(expression)
    assert x[0, 3] == 0 == measured[0, 3]
    assert measured.sum() == 35
    networks.gene_low.fill_(-100.0)
    torch.testing.assert_close(networks.restore(x)[1:], expression[1:])
    networks.gene_low.fill_(1.0)
    assert (networks.restore(x) >= 1).all()


@torch.no_grad()
def test_decoded_shares_are_in_the_units_of_log_normalised_counts(make_networks: Make) -> None:
    networks = make_networks(likelihood="nb")
    decoded = networks.decoded(networks.stage1.encode(*profiles()))
    torch.testing.assert_close(decoded.expm1().sum(1), torch.full((20,), 1e4))


def test_losses_reach_every_weight(make_networks: Make) -> None:
    for likelihood in ("normal", "nb"):
        stage1 = make_networks(likelihood=likelihood, quantizer="vq").stage1.train()
        x, measured = profiles(64)
        counts = torch.randint(30, (64, 9)) * measured
        stage1.loss(x, measured, counts, hide=0.5)["train_loss"].backward()
        without = [name for name, p in stage1.named_parameters() if p.grad is None or not p.grad.any()]
        assert without == []


@torch.no_grad()
def test_a_table_of_codes_begins_with_profiles(make_networks: Make) -> None:
    x, measured = profiles()
    for quantizer in ("ema", "vq"):
        stage1 = make_networks(quantizer=quantizer).stage1
        stage1.quantizer.initialised.fill_(False)
        before = stage1.quantizer.codebook().clone()
        stage1.initialise(x, measured)
        assert stage1.quantizer.initialised
        assert not torch.allclose(before, stage1.quantizer.codebook())
    make_networks(quantizer="fsq").stage1.initialise(x, measured)


@pytest.mark.parametrize("theta", [0.1, 1.0, 30.0])
def test_negative_binomial_matches_scipy(theta: float) -> None:
    counts = torch.tensor([0.0, 1, 5, 40, 300]).double()[:, None]
    mean = torch.tensor([1e-3, 0.5, 7.0, 200.0]).double()
    found = negative_binomial_nll(counts, mean.log(), torch.tensor(theta).double().log())
    expected = -nbinom.logpmf(counts.numpy(), theta, theta / (theta + mean.numpy()))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    single = negative_binomial_nll(counts.float(), mean.float().log(), torch.tensor(theta).log())
    np.testing.assert_allclose(single, expected, rtol=1e-3, atol=1e-3)
