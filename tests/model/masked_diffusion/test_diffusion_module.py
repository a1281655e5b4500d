from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stomics_tools.model.masked_diffusion._mixture import Mixture, mixture_posterior
from stomics_tools.model.masked_diffusion._module import HELD_OUT, MaskedDiffusionModule
from stomics_tools.model.masked_diffusion._network import Cells
from stomics_tools.model.masked_diffusion._schedule import Level

TARGETS = ("residual", "x0", "v", "eps")
OBJECTIVES = ("diffusion", "flow")
N, N_REAL = 12, 9
Batch = dict[str, Tensor]


def make_batch(seed: int = 0) -> Batch:
    """Two sets: all genes of some cells, and half of the genes of all; the second one has padding at its end."""
    g = torch.Generator().manual_seed(seed)
    told = torch.stack([torch.arange(N) % 3 > 0, torch.ones(N, dtype=torch.bool)])
    panel = torch.stack([torch.ones(12), (torch.arange(12) % 2).float()])
    batch = {
        "told": told,
        "shown": told & torch.tensor([[True], [False]]),
        "placed": (torch.arange(N) % 4 < 2).expand(2, N),
        "beside": (torch.arange(N) % 5 < 3).expand(2, N),
        "genes": torch.randn(2, N, 12, generator=g) * told[..., None] * panel[:, None],
        "latent": torch.randn(2, N, 4, generator=g),
        "position": torch.randn(2, N, 2, generator=g),
        "around": torch.randn(2, N, 12, generator=g),
        "fold": torch.randint(3, (2, N), generator=g),
        "time": torch.tensor([[0.3, 0.6], [0.8, 0.8]])[:, None].expand(2, N, 2),
        "real": torch.stack([torch.ones(N, dtype=torch.bool), torch.arange(N) < N_REAL]),
    }
    batch["around"] = batch["around"] * batch["beside"][..., None]
    return {k: v * batch["real"].view(2, N, *[1] * (v.ndim - 2)) for k, v in batch.items()} | {"panel": panel}


def losses(module: MaskedDiffusionModule, batch: Batch) -> dict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return module.loss(batch)


def noise(batch: Batch) -> tuple[Tensor, Tensor]:
    """That of :func:`losses`."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return torch.randn_like(batch["position"]), torch.randn_like(batch["latent"])


def levels(module: MaskedDiffusionModule, time: Tensor) -> list[Level]:
    """Signal and noise by their formulas."""
    if module.settings.objective == "flow":
        return [Level(1 - t, t) for t in time.unsqueeze(-2).unbind(-1)]
    return [Level((t * np.pi / 2).cos(), (t * np.pi / 2).sin()) for t in time.unsqueeze(-2).unbind(-1)]


def shown_cells(module: MaskedDiffusionModule, batch: Batch) -> Cells:
    """What the transformer is shown."""
    seen: list[Cells] = []
    hook = module.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    losses(module, batch)
    hook.remove()
    return seen[0]


def given_priors(module: MaskedDiffusionModule, batch: Batch) -> tuple[Mixture, Any]:
    return module.position_prior(batch), module.expression_prior(batch)


def unknown(batch: Batch) -> tuple[Tensor, Tensor]:
    return batch["real"] & ~batch["placed"], batch["real"] & ~batch["shown"]


def asked(batch: Batch, target: str = "residual") -> tuple[Tensor, Tensor]:
    """What is not known, of cells that residuals are learnt from."""
    learnt = batch["fold"] != HELD_OUT if target == "residual" else torch.tensor(True)
    return tuple(mask & learnt for mask in unknown(batch))


# ------------------------------------------------------------------ losses


@pytest.mark.parametrize("min_snr", [None, 2.0])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_losses_are_mean_errors_of_what_is_not_known(
    make_module: Callable, objective: str, target: str, min_snr: float | None
) -> None:
    # Before training the network says zero, hence the loss is the mean square of what it should say.
    module = make_module(begin=True, objective=objective, target=target, min_snr=min_snr)
    batch = make_batch()
    found = losses(module, batch)
    clean, eps = (batch["position"], batch["latent"]), noise(batch)
    places, expected = given_priors(module, batch)
    gene_weight = module.latent.variance / module.latent.variance.mean()
    for kind, (name, level) in enumerate(
        zip(("position_loss", "expression_loss"), levels(module, batch["time"]), strict=True)
    ):
        signal, scale = level
        noised = signal * clean[kind] + scale * eps[kind]
        weight = torch.ones_like(signal)
        if target == "residual":
            if kind == 0:
                after = mixture_posterior(noised, level, places)
                mean, sd = after.mean, after.sd
            else:
                precision = 1 / expected.variance + (signal / scale) ** 2
                mean = (expected.mean / expected.variance + signal * noised / scale**2) / precision
                sd = precision**-0.5
            said = (clean[kind] - mean) / sd
        else:
            v = (signal * eps[kind] - scale * clean[kind]) / (signal**2 + scale**2)
            said = {"x0": clean[kind], "v": v, "eps": eps[kind]}[target]
            if min_snr is not None:
                snr = (signal / scale) ** 2
                weight = snr.clamp(max=min_snr) * {"x0": 1, "v": scale**2, "eps": 1 / snr}[target]
        error = (said.square() * weight * (gene_weight if kind else 1)).mean(-1)
        torch.testing.assert_close(found[name], error[asked(batch, target)[kind]].mean(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["train_loss"], found["position_loss"] + found["expression_loss"])


def test_what_is_asked_for_is_the_clean_value_also_of_what_was_masked(make_module: Callable) -> None:
    module, batch = make_module(begin=True, target="x0"), make_batch()
    found = losses(module, batch)
    masked = unknown(batch)
    assert batch["told"][1, :N_REAL].all()  # genes are given, some are masked, and all are asked for
    assert masked[1][1, :N_REAL].all()
    torch.testing.assert_close(found["position_loss"], batch["position"][masked[0]].square().mean())
    weight = module.latent.variance / module.latent.variance.mean()
    torch.testing.assert_close(found["expression_loss"], (batch["latent"].square() * weight)[masked[1]].mean())


@pytest.mark.parametrize("target", TARGETS)
def test_only_what_is_not_known_counts(make_module: Callable, target: str) -> None:
    module, batch = make_module(begin=True, target=target), make_batch()
    found = losses(module, batch)
    for name, mask, loss in zip(
        ("position", "latent"), unknown(batch), ("position_loss", "expression_loss"), strict=True
    ):
        changed = torch.where(mask[..., None], batch[name], batch[name] + 2)
        assert torch.equal(losses(module, {**batch, name: changed})[loss], found[loss])
        if target == "eps":
            continue  # asks for the noise, whatever the value
        learnt = asked(batch, target)[("position", "latent").index(name)]
        for set_, cell in (mask & learnt).nonzero()[::5].tolist():
            changed = batch[name].clone()
            changed[set_, cell] += 2
            assert not torch.equal(losses(module, {**batch, name: changed})[loss], found[loss])


def test_a_network_that_knows_has_no_loss(make_module: Callable) -> None:
    module, batch = make_module(target="x0"), make_batch()
    outputs = module.network(shown_cells(module, batch))._replace(
        position=batch["position"], expression=batch["latent"]
    )
    module.network.forward = lambda _: outputs
    found = losses(module, batch)
    assert found["position_loss"] == 0
    assert found["expression_loss"] == 0


@pytest.mark.parametrize(
    "kind", [{}, {"use_moe": True}, {"use_gated_attention": True}, {"use_moe": True, "augment_pose": True}], ids=str
)
def test_padding_changes_no_loss(make_module: Callable, kind: dict[str, Any]) -> None:
    module, batch = make_module(**kind), make_batch()
    found = losses(module, batch)
    other, real = make_batch(seed=5), batch["real"]
    for name in batch.keys() - {"real", "panel"}:
        garbage = other[name].roll(1, 0)  # the other set has no padding
        garbage = garbage * 20 if garbage.is_floating_point() and name != "time" else garbage
        other[name] = torch.where(real.view(2, N, *[1] * (garbage.ndim - 2)), batch[name], garbage)
        assert name in ("beside", "fold") or not torch.equal(other[name], batch[name])
    changed = losses(module, {**other, "real": real, "panel": batch["panel"]})
    for name, value in found.items():
        torch.testing.assert_close(changed[name], value, rtol=1e-5, atol=1e-5)


def test_genes_that_are_not_told_are_not_read(make_module: Callable) -> None:
    module, batch = make_module(), make_batch()
    genes = torch.where(batch["told"][..., None], batch["genes"], 9.0)
    for one, other in zip(shown_cells(module, batch), shown_cells(module, {**batch, "genes": genes}), strict=True):
        assert one is other is None or torch.equal(one, other)


def test_losses_of_routers_enter(make_module: Callable) -> None:
    batch = make_batch()
    for weights in ({"balance_weight": 0.3, "router_z_weight": 0.0}, {"balance_weight": 0.0, "router_z_weight": 0.2}):
        module = make_module(use_moe=True, **weights)
        outputs: list[Any] = []
        module.network.register_forward_hook(lambda *args, outputs=outputs: outputs.append(args[2]))
        found = losses(module, batch)
        router = outputs[0].router
        extra = weights["balance_weight"] * router.balance + weights["router_z_weight"] * router.z
        assert extra > 0.01
        torch.testing.assert_close(found["train_loss"], found["position_loss"] + found["expression_loss"] + extra)
        (found["train_loss"] - found["position_loss"] - found["expression_loss"]).backward()
        assert all(block.experts.router.weight.grad.abs().max() > 1e-6 for block in module.network.blocks)


def test_known_values_are_shown_as_they_are(make_module: Callable) -> None:
    module, batch = make_module(), make_batch()
    cells, eps = shown_cells(module, batch), noise(batch)
    placed, shown, real = batch["placed"], batch["shown"], batch["real"]
    assert torch.equal(cells.time[..., 0] == 0, placed | ~real)
    assert torch.equal(cells.time[..., 1] == 0, shown | ~real)
    assert torch.equal(cells.position[placed], batch["position"][placed])
    assert torch.equal(cells.prior_position[placed], batch["position"][placed])
    assert torch.equal(cells.flags, torch.stack([batch[k] for k in ("told", "placed", "beside")], -1).float())
    # Of expression that is known two components are shown (n_read), of what is noised all.
    assert torch.equal(cells.expression[shown][:, :2], batch["latent"][shown][:, :2])
    assert (cells.expression[shown][:, 2:] == 0).all()
    assert (cells.prior_expression[shown][:, 2:] == 0).all()
    signal, scale = levels(module, batch["time"])[1]
    noised = signal * batch["latent"] + scale * eps[1]
    hidden = ~shown & real
    torch.testing.assert_close(cells.expression[hidden], noised[hidden])


def test_turned_sets_keep_what_is_said_of_them(make_module: Callable) -> None:
    batch = make_batch()
    batch["time"] = torch.where(torch.tensor([True, False]), 0.9995, batch["time"])
    plain, turning = make_module(), make_module(augment_pose=True)
    straight, turned = shown_cells(plain, batch), shown_cells(turning, batch)
    for one in range(2):
        placed = batch["placed"][one]
        pose = torch.linalg.lstsq(batch["position"][one, placed], turned.position[one, placed]).solution
        torch.testing.assert_close(pose @ pose.T, torch.eye(2), atol=1e-5, rtol=0)
        assert (pose - torch.eye(2)).abs().max() > 0.05
        # Noise tells nothing at the last time, so what is expected is the prior, turned alike.
        open_ = unknown(batch)[0][one]
        torch.testing.assert_close(
            turned.prior_position[one, open_], straight.prior_position[one, open_] @ pose, atol=0.02, rtol=0
        )
    x0 = [losses(make_module(begin=True, target="x0", augment_pose=turn), batch) for turn in (False, True)]
    torch.testing.assert_close(x0[0]["position_loss"], x0[1]["position_loss"])


def test_gradients_are_finite_and_reach_the_whole_network(make_module: Callable) -> None:
    module = make_module(use_moe=True, use_gated_attention=True)
    losses(module, make_batch())["train_loss"].backward()
    for name, parameter in module.network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_half_of_the_sets_are_told_what_the_network_finds_without(make_module: Callable) -> None:
    module, batch = make_module(self_conditioning=True), make_batch()
    seen: list[Cells] = []
    module.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(60):
            module.loss(batch)["train_loss"].backward()
    told = [cells for cells in seen if cells.earlier is not None]
    assert 18 < len(told) < 42
    assert len(seen) == 60 + len(told)
    assert not any(cells.earlier.requires_grad for cells in told)
    assert module.network.earlier.weight.grad.abs().max() > 0
    known = batch["placed"] & batch["real"]
    assert torch.equal(told[0].earlier[known][:, :2], batch["position"][known])  # what is known is found as it is


# ------------------------------------------------------------------- share


@pytest.mark.parametrize(("says", "share"), [(2.0, 0.5), (1.0, 1.0), (0.5, 1.0), (-1.0, 0.0)])
def test_a_network_counts_as_much_as_it_helps_cells_held_out(make_module: Callable, says: float, share: float) -> None:
    """One that says twice what it should counts half; what it says of other cells does not matter."""
    module, batch = make_module(), make_batch()

    def forward(cells: Cells) -> Any:
        right = (batch["position"] - cells.prior_position) / cells.position_sd.clamp(min=1e-6)
        position = torch.where((batch["fold"] == HELD_OUT)[..., None], says * right, torch.randn_like(right))
        return found._replace(position=position, expression=torch.zeros_like(batch["latent"]))

    found = module.network(shown_cells(module, batch))
    module.network.forward = forward
    with torch.random.fork_rng():
        module.weigh([batch, batch])
    torch.testing.assert_close(module.share, torch.tensor([share, 1.0]))


def test_the_share_is_that_of_the_least_error(make_module: Callable) -> None:
    module, batches = make_module(), [make_batch(seed) for seed in range(3)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module.weigh(batches)
        torch.manual_seed(0)
        answers = [module._answers(batch)[0] for batch in batches]
    for kind in (0, 1):
        error = torch.zeros(1001, dtype=torch.float64)
        for batch, answer in zip(batches, answers, strict=True):
            a, mask = answer[kind], unknown(batch)[kind] & (batch["fold"] == HELD_OUT)
            for i, part in enumerate(torch.linspace(0, 1, 1001)):
                error[i] += ((a.target - part * a.output).square() * a.weight)[mask].sum()
        assert module.share[kind] == pytest.approx(int(error.argmin()) / 1000, abs=1e-3)


def test_outputs_count_by_the_share_and_what_is_known_does_not_change(make_module: Callable) -> None:
    module, batch = make_module(), make_batch()
    noised, found = noise(batch), []
    known = torch.stack([batch["placed"], batch["shown"]], dim=-1)
    time = batch["time"].masked_fill(known, 0.0)
    priors = given_priors(module, batch)
    for share in (0.0, 0.5, 1.0):
        module.share.fill_(share)
        found.append(module.denoise(noised, time, batch, priors)[:2])
    for kind in (0, 1):
        none, half, whole = (each[kind] for each in found)
        torch.testing.assert_close(half, (none + whole) / 2)
        assert torch.equal(whole[known[..., kind]], noised[kind][known[..., kind]])
        assert (whole - none)[unknown(batch)[kind]].abs().min() > 0


@pytest.mark.parametrize("target", TARGETS[1:])
def test_what_says_all_by_itself_counts_whole(make_module: Callable, target: str) -> None:
    module = make_module(target=target)
    module.weigh([make_batch()])
    assert (module.share == 1).all()


# ------------------------------------------------------------------ priors


def alike_by_hand(module: MaskedDiffusionModule, genes: Tensor, panel: Tensor, fold: Tensor | None, n: int) -> Tensor:
    """What the `n` references that are most alike, and one that lies anywhere, say of places: ``(n_obs, n_places)``."""
    references, places, sd = module.references, module.places, module.latent.variance.sqrt()
    as_genes = module.latent.decode(references.scores / sd) * panel
    query, among = (module.latent.given(x[None], panel[None])[0][0] * sd for x in (genes, as_genes))
    share, target = places.log_share.exp(), places.target(references.position)
    said = []
    for k, one in enumerate(query):
        order = (among - one).square().sum(1).argsort()
        if fold is not None:
            order = order[references.fold[order] != fold[k]]
        nearest = order[:n]
        said.append(((target[nearest].sum(0) + share) / (len(nearest) + 1) / share).log())
    return torch.stack(said)


@pytest.mark.parametrize("all_genes", [True, False])
def test_cells_of_training_are_judged_by_members_that_have_not_seen_them(
    make_module: Callable, monkeypatch: pytest.MonkeyPatch, all_genes: bool
) -> None:
    """And by references of other folds."""
    monkeypatch.setattr("stomics_tools.model.masked_diffusion._retrieval._N_ALIKE", 5)
    module, fold = make_module(), torch.arange(20) % 3
    panel = torch.ones(12) if all_genes else (torch.arange(12) % 3 > 0).float()
    genes = torch.randn(20, 12, generator=torch.Generator().manual_seed(0)) * panel
    module.train()
    found, left_out = module.said(genes, panel), module.said(genes, panel, fold)
    assert module.regression.training  # as it was, though nothing is dropped out of predictions
    torch.testing.assert_close(module.said(genes, panel), found, rtol=0, atol=0)
    every = module.regression.eval()._every(genes)
    torch.testing.assert_close(found[:, 0], every[:2].mean(0))
    for k in range(20):
        torch.testing.assert_close(left_out[k, 0], every[2 + fold[k], k])
    torch.testing.assert_close(found[:, 1], alike_by_hand(module, genes, panel, None, 5), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(left_out[:, 1], alike_by_hand(module, genes, panel, fold, 5), atol=1e-4, rtol=1e-4)
    assert (left_out[:, 1] - found[:, 1]).abs().max() > 0.1


def test_where_all_references_are_of_the_fold_they_say_nothing(make_module: Callable) -> None:
    module = make_module()
    module.references.fold.fill_(1)
    said = module.said(torch.randn(6, 12), torch.ones(12), torch.tensor([1, 1, 1, 0, 0, 2]))[:, 1]
    torch.testing.assert_close(said[:3], torch.zeros_like(said[:3]), atol=1e-5, rtol=0)
    assert said[3:].abs().max() > 0.1


def test_position_prior_is_that_of_cells_told_else_that_at_large(make_module: Callable) -> None:
    module, batch = make_module(), make_batch()
    places, told = module.places, batch["told"]
    places.log_sharpness.data[1] = -0.3
    share, sharpness = places.log_share.double(), places.log_sharpness.double().exp()
    asked = {name: value for name, value in batch.items() if name in ("genes", "panel", "told", "fold")}
    # Of cells of training by the member that has not seen them, of others by the mean of those that have seen all.
    for given in (asked, {name: value for name, value in asked.items() if name != "fold"}):
        prior = module.position_prior(given)
        assert torch.equal(prior.mean.expand(2, N, -1, 2), places.position.expand(2, N, -1, 2))
        wanted = places.log_variance.exp().expand(2, N, len(share), 2)
        torch.testing.assert_close(prior.variance.expand_as(wanted), wanted)
        for one in range(2):
            said = module.said(
                batch["genes"][one], batch["panel"][one], batch["fold"][one] if "fold" in given else None
            )
            for cell in range(N):
                weight = share + said[cell].double().T @ sharpness if told[one, cell] else share
                found = prior.log_weight[one, cell].double()
                torch.testing.assert_close(found, weight - weight.logsumexp(0), atol=1e-4, rtol=1e-4)
    assert prior.log_weight[told].std(0).min() > 0.2


def test_probabilities_of_places_are_the_weights_of_the_prior(
    make_module: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, genes = make_module(), torch.randn(30, 12, generator=torch.Generator().manual_seed(0))
    panel = (torch.arange(12) % 4 > 0).float()
    genes *= panel
    prior = module.position_prior(
        {"genes": genes[None], "panel": panel[None], "told": torch.ones(1, 30, dtype=torch.bool)}
    )
    monkeypatch.setattr("stomics_tools.model.masked_diffusion._module._ROWS", 8)  # in blocks
    found = module.probabilities(genes, panel)
    torch.testing.assert_close(found, prior.log_weight[0].exp())
    torch.testing.assert_close(found @ module.places.position, prior.expected()[0])


def test_cells_alike_in_the_genes_given(make_module: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each reference what the same genes would tell, the nearest of these, and the mean of their whole values."""
    monkeypatch.setattr("stomics_tools.model.masked_diffusion._retrieval._N_ALIKE", 5)
    monkeypatch.setattr("stomics_tools.model.masked_diffusion._module._ROWS", 4)  # in blocks
    module = make_module()
    generator = torch.Generator().manual_seed(0)
    panel = (torch.arange(12) % 3 > 0).float()
    mean, sd = torch.randn(9, 4, generator=generator), module.latent.variance.sqrt()
    references = module.references.scores / sd
    told = module.latent.given((module.latent.decode(references) * panel)[None], panel[None])[0][0]
    expected = torch.stack([references[((told - one) * sd).square().sum(1).argsort()[:5]].mean(0) for one in mean])
    torch.testing.assert_close(module.retrieved(mean, panel), expected, atol=1e-4, rtol=1e-4)


def test_expression_prior_by_genes_else_by_neighbours_else_at_large(make_module: Callable) -> None:
    module, batch = make_module(), make_batch()
    prior = module.expression_prior(batch)
    variance = prior.variance.expand_as(prior.mean)
    told, beside = batch["told"], batch["beside"] & ~batch["told"]
    neither = ~told & ~beside
    assert min(told.sum(), beside.sum(), neither.sum()) > 1
    by_genes = module.latent.given(batch["genes"], batch["panel"])
    torch.testing.assert_close(prior.mean[told], by_genes[0][told])
    torch.testing.assert_close(variance[told], by_genes[1].expand_as(prior.mean)[told])
    torch.testing.assert_close(prior.mean[beside], batch["around"][beside] @ module.around_weight)
    torch.testing.assert_close(variance[beside], module.around_variance.expand(int(beside.sum()), -1))
    assert (prior.mean[neither] == 0).all()
    assert (variance[neither] == 1).all()


# ----------------------------------------------------------------- denoise


def noised_values(batch: Batch, module: MaskedDiffusionModule) -> tuple[tuple[Tensor, Tensor], Tensor]:
    known = torch.stack([batch["placed"], batch["shown"]], -1)
    time = batch["time"].masked_fill(known, 0.0)
    clean, eps = (batch["position"], batch["latent"]), noise(batch)
    values = [
        torch.where(known[..., k : k + 1], x, level.signal * x + level.noise * e)
        for k, (x, e, level) in enumerate(zip(clean, eps, levels(module, batch["time"]), strict=True))
    ]
    return (values[0], values[1]), time


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("objective", OBJECTIVES)
@torch.no_grad()
def test_known_values_come_back_bit_for_bit(make_module: Callable, objective: str, target: str) -> None:
    module, batch = make_module(objective=objective, target=target), make_batch()
    values, time = noised_values(batch, module)
    position, expression, _ = module.denoise(values, time, batch, given_priors(module, batch))
    placed, shown, real = batch["placed"], batch["shown"], batch["real"]
    assert torch.equal(position[placed], batch["position"][placed])
    assert torch.equal(expression[shown], batch["latent"][shown])
    assert (position[~placed & real] != values[0][~placed & real]).all()
    assert (expression[~shown & real] != values[1][~shown & real]).all()
    # With one of both known everywhere, all of it comes back, and only the other is found.
    for kind in (0, 1):
        known = time.clone()
        known[..., kind] = 0
        found = module.denoise(values, known, batch, given_priors(module, batch))
        assert torch.equal(found[kind], values[kind])
        assert not torch.equal(found[1 - kind], values[1 - kind])


@pytest.mark.parametrize("objective", OBJECTIVES)
@torch.no_grad()
def test_before_training_cells_are_independent_and_exact(make_module: Callable, objective: str) -> None:
    module, batch = make_module(begin=True, objective=objective), make_batch()
    values, time = noised_values(batch, module)
    priors = given_priors(module, batch)
    position, expression, _ = module.denoise(values, time, batch, priors)
    signal, scale = (part.double() for part in levels(module, batch["time"])[1])
    hidden = ~batch["shown"] & batch["real"]
    mean, variance = priors[1].mean.double(), priors[1].variance.double()
    precision = 1 / variance + (signal / scale) ** 2
    exact = (mean / variance + signal * values[1] / scale**2) / precision
    torch.testing.assert_close(expression[hidden].double(), exact[hidden], rtol=1e-4, atol=1e-5)
    # Positions by quadrature of Bayes' theorem over the plane.
    axis = torch.linspace(-6, 6, 241, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    signal, scale = (part[:, 0, 0].double() for part in levels(module, batch["time"])[0])
    weight, centre, spread = (part.double() for part in (priors[0].log_weight.exp(), *priors[0][:2]))
    for one, cell in unknown(batch)[0].nonzero()[::3].tolist():
        gap = (grid[:, None] - centre).square() / spread
        prior = (weight[one, cell] * (-gap.sum(-1) / 2).exp() / spread.prod(-1).sqrt()).sum(-1)
        miss = (values[0][one, cell] - signal[one] * grid).square().sum(-1) / scale[one] ** 2
        density = prior * (-miss / 2).exp()
        expected = (density[:, None] * grid).sum(0) / density.sum()
        torch.testing.assert_close(position[one, cell].double(), expected, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_the_order_of_cells_does_not_matter_to_a_trained_module(make_module: Callable) -> None:
    module = make_module(use_moe=True, use_gated_attention=True).double()
    batch = {k: v.double() if v.is_floating_point() else v for k, v in make_batch().items()}
    values, time = noised_values(batch, module)
    found = module.denoise(values, time, batch, given_priors(module, batch))[:2]
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    turned = {k: v if k == "panel" else v[:, order] for k, v in batch.items()}
    again = module.denoise(tuple(v[:, order] for v in values), time[:, order], turned, given_priors(module, turned))
    for one, other in zip(found, again[:2], strict=True):
        assert one.std() > 0.1
        torch.testing.assert_close(other, one[:, order], atol=1e-5, rtol=1e-5)
