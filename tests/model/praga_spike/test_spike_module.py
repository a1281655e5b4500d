"""Prediction by neighbours alone: what a spot cannot see, and what the module finds."""

from __future__ import annotations

import inspect
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from stomics_tools.model import PRAGASpike
from stomics_tools.model.praga_spike import _layers
from stomics_tools.model.praga_spike._inputs import prepare
from stomics_tools.model.praga_spike._outputs import make_module
from stomics_tools.model.praga_spike._settings import SpikeSettings
from stomics_tools.model.praga_spike._signal import find_signal
from stomics_tools.model.praga_spike._spike_module import SpikeModule
from stomics_tools.nn import QuantLinear, mean_bits

SIDE = 12
N = SIDE * SIDE
SMALL = {"n_latent": 16, "n_heads": 4, "n_feature_neighbors": 4, "n_spatial_neighbors": 4, "layer_scale": 0.3}


def _values(xy, seed=0):
    rng = np.random.default_rng(seed)
    right, top = (xy > xy.max() / 2).T - 0.5
    rna = np.outer(right, rng.normal(size=7)) * 3 + rng.normal(size=(len(xy), 7))
    protein = np.outer(top, rng.normal(size=4)) * 3 + rng.normal(size=(len(xy), 4))
    return {"rna": rna, "protein": protein}


@pytest.fixture
def spots(spots_of, grid):
    xy = grid(SIDE)
    return spots_of(_values(xy), xy)


def _settings(**given):
    """Settings of the model with the defaults of its constructor."""
    defaults = {name: p.default for name, p in inspect.signature(PRAGASpike).parameters.items()}
    return SpikeSettings(**{field.name: defaults[field.name] for field in fields(SpikeSettings)} | given)


def _fresh(spots, n_steps=0, double=True, **given):
    """A module of a seed, trained for some steps, and its tissue."""
    settings = _settings(**{**SMALL, **given})
    torch.manual_seed(0)
    tissue = prepare(spots, settings)
    module = make_module(tissue, [1.0] * len(spots.modalities), settings)
    if double:
        tissue = _double(tissue)
        module = module.double()
    _train(module, tissue, n_steps)
    return settings, module, tissue


def _double(tissue):
    return replace(
        tissue,
        values=[x.double() for x in tissue.values],
        present=[p.double() for p in tissue.present],
        moments=[(c.double(), s.double()) for c, s in tissue.moments],
    )


def _train(module, tissue, n_steps, lr=0.03):
    """Large steps, so that every part has left its beginning."""
    optimizer = torch.optim.Adam(module.parameters(), lr=lr)
    module.train()
    for _ in range(n_steps):
        optimizer.zero_grad()
        module.loss(tissue)["train_loss"].backward()
        optimizer.step()
    return module


def _changed(tissue, rows, by=37.0):
    """The tissue, its graphs the same, with other values in some rows."""
    values = [x.clone() for x in tissue.values]
    for m, x in enumerate(values):
        x[rows] = by * (m + 1) - 5 * x[rows]
    return replace(tissue, values=values)


def _latent(module, tissue, **kwargs):
    module.eval()
    with torch.no_grad():
        return module.latent(tissue, module.encode(tissue, **kwargs))


# ------------------------------------------------------------ share of the layers


def test_spots_held_out_teach_nothing(spots):
    """Their values are seen when they are not hidden, and never the target of an error."""
    _, module, tissue = _fresh(spots, 3)
    held = module._held_out(tissue)
    assert 0.1 * N < int(held.sum()) < 0.3 * N
    assert torch.equal(held, module._held_out(tissue))
    targets = []
    module._prediction_error = lambda _, predicted, rows: targets.append(rows) or predicted.sum()
    for _ in range(30):
        module.loss(tissue)
    taught = torch.cat(targets).unique()
    assert torch.equal(taught, (~held).nonzero()[:, 0])
    assert not _fresh(spots, n_layers=0)[1]._held_out(tissue).any()


@pytest.mark.parametrize("layer_scale", [0.1, 1.0])
def test_share_of_the_layers_predicts_held_out_spots_best(spots, layer_scale):
    _, module, tissue = _fresh(spots, 20, layer_scale=layer_scale)
    module.eval()
    module.finish(tissue)
    found = float(module.layer_share)
    held = module._held_out(tissue)
    visible = [there * ~held[:, None] for there in tissue.present]

    def error(share):
        module.layer_share.fill_(share)
        with torch.no_grad():
            predicted = module.encode(tissue, visible).predicted[held]
        return sum(
            float((predicted @ d - x[held]).square().mean())
            for d, x in zip(module.decoders, tissue.values, strict=True)
        )

    grid = np.linspace(0, 1, 201)
    assert found == pytest.approx(grid[np.argmin([error(share) for share in grid])], abs=0.005)


@pytest.mark.parametrize("helpful", [True, False])
def test_layers_count_as_far_as_they_help(spots, helpful):
    """Layers that mend what was spoiled on purpose count in full; with their signs turned they count nothing."""
    _, module, tissue = _fresh(spots, n_layers=1, layer_scale=1.0)
    module.eval()

    class Mend(torch.nn.Module):
        def forward(self, membrane, *others):
            return membrane + (2 if helpful else -2) * membrane

    module.hops.data /= 3
    module.alike.data /= 3
    module.layers = torch.nn.ModuleList([Mend()])
    module.finish(tissue)
    assert float(module.layer_share) == pytest.approx(1.0 if helpful else 0.0, abs=0.1)


# ------------------------------------------------------------------- blind spot

FORMS = [
    {},
    {"encoder": "relu", "edges": "free"},
    {"encoder": "linear", "edges": "uniform"},
    {"encoder": "spike", "edges": "free", "attention_windows": (None, 20)},
    {"encoder": "relu", "edges": "inductive", "n_layers": 2, "reparameterize": True},
    {"encoder": "spike", "edges": "uniform", "use_fusion": False, "weight_bits": "learned"},
    {"encoder": "linear", "edges": "inductive", "n_feature_neighbors": 0},
    {"use_attention": False, "n_layers": 0},
]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("given", FORMS)
def test_hidden_values_change_no_prediction(spots, given, training):
    _, module, tissue = _fresh(spots, 6, double=False, **given)
    module.train(training)
    hidden, visible = module._hide(tissue, 3)
    assert 0.1 * N < len(hidden) < 0.4 * N
    other = _changed(tissue, hidden)
    with torch.no_grad():
        a, b = module.encode(tissue, visible), module.encode(other, visible)
    for name in ("predicted", "modality_weights", "spatial_weights"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    for x, y in zip((*a.views, *a.edges), (*b.views, *b.edges), strict=True):
        assert torch.equal(x, y)
    # What is visible does change them.
    shown = torch.tensor([i for i in range(N) if i not in set(hidden.tolist())])
    with torch.no_grad():
        c = module.encode(_changed(tissue, shown), visible)
    assert not torch.equal(a.predicted[hidden], c.predicted[hidden])


@pytest.mark.parametrize("which", [0, 1])
def test_one_hidden_modality_changes_no_prediction(spots, which):
    _, module, tissue = _fresh(spots, 6, double=False)
    hidden, (rows, _) = module._hide(tissue, 0)
    visible = [rows if m == which else torch.ones_like(rows) for m in range(2)]
    values = list(tissue.values)
    values[which] = values[which].clone()
    values[which][hidden] = -99.0
    with torch.no_grad():
        a, b = module.encode(tissue, visible), module.encode(replace(tissue, values=values), visible)
    assert torch.equal(a.predicted, b.predicted)


@pytest.mark.parametrize("given", FORMS)
def test_hidden_values_reach_the_loss_as_targets_alone(spots, given):
    """A step with other hidden values: the error is that of the same prediction against other targets."""
    _, module, tissue = _fresh(spots, 4, **given)
    _, twin, _ = _fresh(spots, 4, **given)
    hidden, visible = module._hide(tissue, int(module.n_epochs))
    other = _changed(tissue, hidden)
    with torch.no_grad():
        predicted = module.encode(tissue, visible).predicted
        module.train()
        found = twin.train().loss(other)["reconstruction_loss"]
    hidden = hidden[~module._held_out(tissue)[hidden]]
    errors = [
        (predicted[hidden] @ d - x[hidden]).square().mean() for d, x in zip(module.decoders, other.values, strict=True)
    ]
    torch.testing.assert_close(found, torch.stack(errors).sum())


@pytest.mark.parametrize("use_fusion", [True, False])
def test_without_layers_and_scores_no_spot_predicts_itself(spots, use_fusion):
    _, module, tissue = _fresh(spots, 8, double=False, n_layers=0, edges="uniform", use_fusion=use_fusion)
    module.eval()
    with torch.no_grad():
        before = module.encode(tissue)
        for row in (0, 17, N // 2, N - 1):
            after = module.encode(_changed(tissue, torch.tensor([row])))
            assert torch.equal(before.predicted[row], after.predicted[row])
            assert torch.equal(before.modality_weights[row], after.modality_weights[row])
            assert not torch.equal(before.predicted, after.predicted)


def test_prediction_equals_the_formula(spots):
    """Without layers, densely: shares of graphs and modalities over means of visible neighbours."""
    _, module, tissue = _fresh(spots, 8, n_layers=0, edges="uniform")
    module.eval()
    _, visible = module._hide(tissue, 0)
    views, stacked = [], []
    for m, (x, w) in enumerate(zip(tissue.values, module.encoders, strict=True)):
        y, parts = x @ w, []
        for graph in (*tissue.rings, tissue.alike[m]):
            dense = torch.zeros(N, N, dtype=torch.float64)
            dense[graph.row.long(), graph.col.long()] = 1
            dense = dense * visible[m].T
            parts.append(dense @ y / dense.sum(1, keepdim=True).clamp(min=1))
        near = sum(a * part for a, part in zip(module.hops[m], parts[:3], strict=True))
        both = torch.stack([near, module.alike[m] * parts[3]])
        shares = module.graph_fusion[m](both)
        views.append((shares.T[..., None] * both).sum(0))
    stacked = torch.stack(views)
    weights = module.modality_fusion(stacked)
    encoded = module.encode(tissue, visible)
    torch.testing.assert_close(encoded.predicted, 2 * (weights.T[..., None] * stacked).sum(0))
    for a, b in zip(encoded.views, views, strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(encoded.modality_weights, weights)


# ------------------------------------------------------------ missing modality


def test_missing_modality_is_predicted(spots_of, grid):
    xy = grid(SIDE)
    missing = np.random.default_rng(5).choice(N, 40, replace=False)
    spots = spots_of(_values(xy), xy, missing={"protein": missing})
    _, module, tissue = _fresh(spots, 5)
    module.finish(tissue)
    latent = _latent(module, tissue)
    denoised = module.decode(tissue, latent)
    assert latent.isfinite().all()
    assert all(x.isfinite().all() for x in denoised)
    place = np.flatnonzero(np.isin(tissue.order, missing))
    values = [x.clone() for x in tissue.values]
    values[0][place] = 55.0  # absent: whatever stands there is not read
    with torch.no_grad():
        a, b = module.encode(tissue), module.encode(replace(tissue, values=values))
    assert torch.equal(a.predicted, b.predicted)
    assert torch.equal(_latent(module, replace(tissue, values=values)), latent)
    protein = denoised[0].detach().numpy()[place]
    measured, top = _values(xy)["protein"], xy[:, 1] > xy.max() / 2
    signal = np.where(top[:, None], measured[top].mean(0), measured[~top].mean(0))[tissue.order[place]]
    assert np.square(protein - signal).mean() < 0.5 * np.square(measured.mean(0) - signal).mean()


def test_latent_is_the_prediction_corrected_by_the_gain(spots):
    _, module, tissue = _fresh(spots, 5)
    module.finish(tissue)
    module.eval()
    encoded = module.encode(tissue)
    y = sum(x @ w for x, w in zip(tissue.values, module.encoders, strict=True))
    d = y.shape[1]
    latent = module.latent(tissue, encoded)
    torch.testing.assert_close(latent[:, :d], encoded.predicted + module.gain * (y - encoded.predicted))
    assert d < 16
    assert (latent[:, d:] == 0).all()
    for m, x in enumerate(module.decode(tissue, latent)):
        center, scale = tissue.moments[m]
        torch.testing.assert_close(x, latent[:, :d] @ module.decoders[m] * scale + center)


# ------------------------------------------------------------------------ seeds


def test_hidden_spots_of_a_seed(spots):
    _, module, tissue = _fresh(spots)
    _, twin, _ = _fresh(spots)
    draws = [module._hide(tissue, draw)[0].tolist() for draw in (0, 1, 2, -1, -2)]
    assert draws == [twin._hide(tissue, draw)[0].tolist() for draw in (0, 1, 2, -1, -2)]
    assert len({tuple(rows) for rows in draws}) == 5
    torch.manual_seed(1)
    other = SpikeModule(*_parts(module, tissue))
    assert other._hide(tissue, 0)[0].tolist() != draws[0]
    rows, visible = module._hide(tissue, 0)
    for v in visible:
        assert (v[rows] == 0).all()
        assert v.sum() == N - len(rows)


def _parts(module, tissue):
    n_edges = [g.n_edges for g in (*tissue.rings, *tissue.alike)]
    return find_signal(tissue, 16, 0.1), tissue.moments, n_edges, [1.0, 1.0], module.settings


def test_every_epoch_hides_other_spots(spots):
    _, module, tissue = _fresh(spots)
    seen = []
    original = module._hide
    module._hide = lambda tissue, draw: seen.append(draw) or original(tissue, draw)
    for _ in range(3):
        module.loss(tissue)
    assert seen == [0, 1, 2]
    assert int(module.n_epochs) == 3


def test_same_seed_same_training(spots):
    (_, a, tissue), (_, b, _) = _fresh(spots, 4), _fresh(spots, 4)
    assert torch.equal(_latent(a, tissue), _latent(b, tissue))


# ------------------------------------------------------------- after training


@pytest.mark.parametrize("encoder", ["spike", "linear"])
def test_gain_lies_between_none_and_all(spots, encoder):
    _, module, tissue = _fresh(spots, 3, encoder=encoder)
    assert (module.gain == 0).all()
    module.eval()
    module.finish(tissue)
    assert (module.gain >= 0).all()
    assert (module.gain <= 1).all()


def _finished(spots_of, xy, x):
    _, module, tissue = _fresh(spots_of({"rna": x}, xy), n_layers=0)
    module.eval()
    module.finish(tissue)
    return module.gain


def test_gain_of_sharp_and_of_noisy_tissue(spots_of, grid):
    xy = grid(40)
    rng = np.random.default_rng(0)
    blocks = rng.normal(size=(8, 8, 4))[tuple((xy // 5).astype(int).T)]
    sharp = _finished(spots_of, xy, blocks)  # no noise: a spot knows best what it is
    assert (sharp > 0.8).all()
    halves = np.outer(np.sign(xy[:, 0] - 19.5), [1.0, 0.7, -0.5])
    noisy = _finished(spots_of, xy, halves + rng.normal(size=halves.shape))
    assert noisy[0] < 0.1
    assert noisy.max() < 0.3


@pytest.mark.parametrize("budget", [2.0, 3.0, 5.5])
def test_learned_widths_meet_their_budget(spots, budget):
    _, module, tissue = _fresh(spots, 8, weight_bits="learned", bit_budget=budget)
    widths = [part.bits for part in module.modules() if isinstance(part, QuantLinear)]
    assert len(widths) == 7  # three of the layer and four of its attention
    assert budget - 0.25 <= mean_bits(module) <= budget
    before = dict(module.state_dict())
    module.finish(tissue)
    assert [part.bits for part in module.modules() if isinstance(part, QuantLinear)] == widths
    assert any(name.endswith("width") for name in before)


# -------------------------------------------------------------- blocks and slices


@pytest.mark.parametrize("n_slices", [1, 2])
@pytest.mark.parametrize(
    "given", [{}, {"attention_windows": (None, 30)}, {"attention_windows": (9, 30)}, {"n_layers": 2}]
)
def test_blocks_equal_the_whole(spots_of, grid, n_slices, given):
    xy = grid(SIDE)
    batch = (xy[:, 1] >= 5).astype(np.int64) * (n_slices - 1)
    _, module, tissue = _fresh(spots_of(_values(xy), xy, batch=batch), 4, **given)
    assert len(tissue.segments) == n_slices + 1
    module.finish(tissue)
    whole = _latent(module, tissue)
    for block_size in (1, 13, 50, 10_000):
        torch.testing.assert_close(_latent(module, tissue, block_size=block_size), whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize("given", [{}, {"encoder": "relu", "n_layers": 2}, {"encoder": "linear"}])
def test_values_made_again_equal_those_kept(monkeypatch, spots, given):
    results = []
    for limit in (10_000, 0):
        monkeypatch.setattr(_layers, "_MAX_KEPT", limit)
        _, module, tissue = _fresh(spots, 2, **given)
        losses = module.train().loss(tissue)
        losses["train_loss"].backward()
        grads = {f"gradient {name}": p.grad for name, p in module.named_parameters()}
        state = {name: x for name, x in module.state_dict().items() if "num_batches" not in name}
        results.append({**losses, **grads, **state})
    kept, again = results
    assert kept.keys() == again.keys()
    for name, value in kept.items():
        if value is None:
            assert again[name] is None, name
        else:
            torch.testing.assert_close(again[name], value, atol=1e-11, rtol=1e-9, msg=name)


@pytest.mark.parametrize("given", FORMS)
def test_one_slice_does_not_see_the_other(spots_of, grid, given):
    xy = grid(SIDE)
    batch = (xy[:, 1] >= 5).astype(np.int64)
    spots = spots_of(_values(xy), xy, batch=batch)
    settings, module, tissue = _fresh(spots, 6, double=False, **given)
    module.finish(tissue)
    changed = _values(xy)
    for x in changed.values():
        x[batch == 1] = x[batch == 1][::-1] * 2 + 1
    other = prepare(spots_of(changed, xy, batch=batch), settings, module)
    tissue = prepare(spots, settings, module)
    first = slice(0, int(tissue.segments[1]))
    a, b = (_latent(module, t, free_edges=False) for t in (tissue, other))
    assert not torch.equal(a, b)
    assert torch.equal(a[first], b[first])


def test_scattered_missing_values_are_not_taken_for_noise(spots_of, grid):
    """Where a modality is missing at random, the own share of nearly noise-free directions stays what it was."""
    xy = grid(30)
    rng = np.random.default_rng(0)
    domain = (xy[:, 0] > xy[:, 0].mean()) + 2 * (xy[:, 1] > xy[:, 1].mean())
    arrays = {name: np.eye(4)[domain] @ rng.normal(size=(4, 6)) for name in ("a", "b")}
    arrays = {name: (x + 0.01 * rng.normal(size=x.shape)).astype(np.float32) for name, x in arrays.items()}
    gains = []
    for share in (0.0, 0.3):
        spots = spots_of(arrays, xy, missing={"b": rng.random(len(xy)) < share})
        settings = _settings(n_latent=8, n_layers=0)
        tissue = prepare(spots, settings)
        torch.manual_seed(0)
        module = make_module(tissue, [1.0, 1.0], settings).eval()
        module.finish(tissue)
        gains.append(module.gain[:3])
    assert gains[0].min() > 0.8
    assert gains[1].min() > 0.6
