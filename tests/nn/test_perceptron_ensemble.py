from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from stomics_tools.nn.perceptron_ensemble import EnsembleLinear, EnsembleNorm, PerceptronEnsemble

N_MEMBERS, N_FOLDS, N_GENES = 2, 3, 4


def make_head(dropout: float = 0.0) -> PerceptronEnsemble:
    """With random weights, also where they begin at zero."""
    torch.manual_seed(0)
    head = PerceptronEnsemble(5, N_GENES, n_members=N_MEMBERS, n_folds=N_FOLDS, width=7, dropout=dropout)
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.5)
    return head


def example(n: int = 12) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs, expression, what was measured, folds."""
    measured = (torch.rand(n, N_GENES) < 0.8).float()
    return torch.randn(n, 5), torch.randn(n, N_GENES) * measured, measured, torch.arange(n) % N_FOLDS


def separate(head: PerceptronEnsemble, member: int) -> nn.Sequential:
    """One member as a perceptron of usual layers."""
    layers: list[nn.Module] = []
    for layer in head.layers:
        if isinstance(layer, EnsembleLinear):
            plain: nn.Module = nn.Linear(*layer.weight.shape[1:])
            plain.weight.data = layer.weight[member].T
            plain.bias.data = layer.bias[member, 0]
        elif isinstance(layer, EnsembleNorm):
            plain = nn.LayerNorm(layer.weight.shape[-1])
            plain.weight.data, plain.bias.data = layer.weight[member, 0], layer.bias[member, 0]
        else:
            plain = layer
        layers.append(plain)
    return nn.Sequential(*layers)


def gradients(head: PerceptronEnsemble, member: int) -> list[Tensor]:
    return [parameter.grad[member] for parameter in head.parameters() if parameter.grad is not None]


def test_every_member_is_a_perceptron_of_its_own() -> None:
    head = make_head()
    x, _, _, fold = example()
    with torch.no_grad():
        members = torch.stack([separate(head, member)(x) for member in range(N_MEMBERS + N_FOLDS)])
        torch.testing.assert_close(head(x), members[:N_MEMBERS].mean(0))
        picked = torch.stack([members[N_MEMBERS + f, row] for row, f in enumerate(fold.tolist())])
        torch.testing.assert_close(head.left_out(x, fold), picked)


def test_linear_layer_begins_like_a_usual_one_or_at_zero() -> None:
    layer = EnsembleLinear(3, 100, 50)
    usual = nn.Linear(100, 50)
    for name in ("weight", "bias"):
        value = getattr(layer, name)
        assert value.abs().max() <= 0.1
        torch.testing.assert_close(value.std(), getattr(usual, name).std(), rtol=0.2, atol=0)
    assert not EnsembleLinear(3, 100, 50, zero=True).weight.any()


def test_a_fresh_head_expects_the_mean() -> None:
    head = PerceptronEnsemble(5, N_GENES, n_members=2, n_folds=3, width=7, dropout=0.3)
    assert not head(torch.randn(6, 5)).any()


@pytest.mark.parametrize("mixup", [0.0, 2.0])
def test_loss_matches_a_loop_over_members_spots_and_genes(mixup: float) -> None:
    head = make_head()
    x, y, measured, fold = example()
    torch.manual_seed(3)
    loss = head.loss(x, y, measured, fold, mixup=mixup)
    torch.manual_seed(3)
    other = torch.randperm(len(x))
    share = torch.ones(len(x), 1)
    if mixup:
        share = torch.distributions.Beta(mixup, mixup).sample((len(x), 1))
    else:
        other = torch.arange(len(x))
    total = 0.0
    for member in range(N_MEMBERS + N_FOLDS):
        network = separate(head, member)
        errors = []
        for i, j in enumerate(other.tolist()):
            if member - N_MEMBERS in (fold[i], fold[j]):
                continue
            predicted = network(share[i] * x[i] + (1 - share[i]) * x[j])
            for gene in range(N_GENES):
                if measured[i, gene] and measured[j, gene]:
                    target = share[i] * y[i, gene] + (1 - share[i]) * y[j, gene]
                    errors.append((predicted[gene] - target).item() ** 2)
        total += sum(errors) / len(errors)
    assert loss.item() == pytest.approx(total / (N_MEMBERS + N_FOLDS), rel=1e-5)


@pytest.mark.parametrize("mixup", [0.0, 2.0])
def test_loss_of_another_error_is_the_cross_entropy_of_every_member(mixup: float) -> None:
    head = make_head()
    x, _, _, fold = example()
    y = torch.randn(len(x), N_GENES).softmax(1)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        loss = head.loss(x, y, torch.ones_like(y), fold, mixup=mixup, error=lambda said, y: -y * said.log_softmax(-1))
        torch.manual_seed(3)
        other, share = torch.randperm(len(x)), torch.ones(len(x), 1)
        if mixup:
            share = torch.distributions.Beta(mixup, mixup).sample((len(x), 1))
        else:
            other = torch.arange(len(x))
    mixed, target = (share * part + (1 - share) * part[other] for part in (x, y))
    total = 0.0
    for member in range(N_MEMBERS + N_FOLDS):
        seen = (fold != member - N_MEMBERS) & (fold[other] != member - N_MEMBERS)
        said = separate(head, member)(mixed[seen])
        total += nn.functional.cross_entropy(said, target[seen]).item() / N_GENES  # a mean over outputs as well
    assert loss.item() == pytest.approx(total / (N_MEMBERS + N_FOLDS), rel=1e-5)


@pytest.mark.parametrize("mixup", [0.0, 2.0])
@pytest.mark.parametrize("fold", range(N_FOLDS))
def test_a_member_learns_nothing_from_the_fold_that_it_leaves_out(fold: int, mixup: float) -> None:
    x, y, measured, folds = example(30)
    here = folds == fold

    def learnt(x: Tensor, y: Tensor, member: int) -> list[Tensor]:
        head = make_head()
        torch.manual_seed(5)
        head.loss(x, y, measured, folds, mixup=mixup).backward()
        return gradients(head, member)

    other_x, other_y = x.clone(), y.clone()
    other_x[here] = 100 * torch.randn(int(here.sum()), 5)
    other_y[here] = 100 * torch.randn(int(here.sum()), N_GENES)
    own = N_MEMBERS + fold
    for a, b in zip(learnt(x, y, own), learnt(other_x, other_y, own), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    for member in {0, N_MEMBERS + (fold + 1) % N_FOLDS}:
        pairs = zip(learnt(x, y, member), learnt(other_x, other_y, member), strict=True)
        assert not all(torch.allclose(a, b) for a, b in pairs)


def test_a_batch_of_one_fold_gives_its_member_no_gradient() -> None:
    head = make_head()
    x, y, measured, _ = example()
    head.loss(x, y, measured, torch.ones(len(x), dtype=torch.int64), mixup=2.0).backward()
    assert not any(gradient.any() for gradient in gradients(head, N_MEMBERS + 1))
    assert all(gradient.any() for member in (0, N_MEMBERS) for gradient in gradients(head, member))


@pytest.mark.parametrize("mixup", [0.0, 2.0])
def test_what_was_not_measured_does_not_matter(mixup: float) -> None:
    head = make_head()
    x, y, measured, fold = example()
    torch.manual_seed(1)
    expected = head.loss(x, y, measured, fold, mixup=mixup)
    torch.manual_seed(1)
    hidden = torch.where(measured == 0, torch.full_like(y, 50.0), y)
    torch.testing.assert_close(head.loss(x, hidden, measured, fold, mixup=mixup), expected)


def test_without_mixup_the_seed_does_not_matter() -> None:
    head = make_head()
    losses = []
    batch = example()
    for seed in range(3):
        torch.manual_seed(seed)
        losses.append(head.loss(*batch, mixup=0.0).item())
    assert len(set(losses)) == 1
    torch.manual_seed(0)
    assert head.loss(*batch, mixup=2.0).item() != losses[0]


def test_one_spot_whose_genes_are_all_missing_is_no_harm() -> None:
    head = make_head()
    nothing = torch.zeros(1, N_GENES)
    assert head.loss(torch.randn(1, 5), nothing, nothing, torch.tensor([0]), mixup=2.0) == 0


def test_members_drop_units_of_their_own() -> None:
    head = make_head(dropout=0.5)
    for parameter in head.parameters():
        parameter.data.copy_(parameter.data[:1].expand_as(parameter.data))
    x, _, _, fold = example()
    everyone = head.train()._every(x)
    assert not torch.allclose(everyone[0], everyone[1])
    torch.testing.assert_close(head.eval().left_out(x, fold), head(x))


def test_it_learns_a_nonlinear_map() -> None:
    x = torch.randn(300, 5)
    y = torch.stack([x[:, 0] * x[:, 1], x[:, 2].abs(), x[:, 3], x[:, 4].sin()], dim=1)
    y = (y - y.mean(0)) / y.std(0)
    head = PerceptronEnsemble(5, N_GENES, n_members=1, n_folds=1, width=32, dropout=0.0)
    fold = torch.zeros(300, dtype=torch.int64)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        head.loss(x, y, torch.ones_like(y), fold, mixup=0.0).backward()
        optimizer.step()
    assert (head(x) - y).square().mean() < 0.1


def test_members_start_at_the_means_of_what_they_may_see() -> None:
    head = PerceptronEnsemble(5, N_GENES, n_members=N_MEMBERS, n_folds=N_FOLDS, width=7, dropout=0.0)
    x, y, measured, fold = example(60)
    head.start_at_means(y, measured, fold)
    mean = [y[:, gene][measured[:, gene] > 0].mean() for gene in range(N_GENES)]
    torch.testing.assert_close(head(x), torch.stack(mean).expand(60, -1))
    for number in range(N_FOLDS):
        others, there = y[fold != number], measured[fold != number] > 0
        mean = torch.stack([others[:, gene][there[:, gene]].mean() for gene in range(N_GENES)])
        torch.testing.assert_close(head.left_out(x, torch.full((60,), number)), mean.expand(60, -1))
