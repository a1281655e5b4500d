"""The module: it begins with the closed form, sees nothing but spikes, and predicts no spot from itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

from stomics_tools._spatial_components import fit_spatial_components
from stomics_tools.model.praga_spike._layers import PopulationCode
from stomics_tools.nn import LearnedWidthQuantizer, Multispike, QuantLinear

SIDE = 12
N = SIDE * SIDE
ENCODERS = ["spike", "ssa", "sdt1", "sdt2", "sdt3", "qk_token", "qk_channel", "dssa", "relu"]
FORMS = [
    {},
    *({"encoder": encoder, "layer_scale": 0.5} for encoder in ENCODERS[1:]),
    {"encoder": "relu", "edges": "free", "n_layers": 2, "reparameterize": True},
    {"edges": "free", "attention_windows": (None, 20), "residual": "sew"},
    {"edges": "uniform", "use_fusion": False, "n_feature_neighbors": 0, "weight_bits": "learned"},
    {"graph_fusion": "conv"},
    {"n_layers": 0, "n_feature_neighbors": 0},
]


def _predicted(module, inputs, visible=None, **kwargs):
    with torch.no_grad():
        return module(inputs, visible, **kwargs).predicted


def _latent(module, inputs, **kwargs):
    with torch.no_grad():
        return module.latent(inputs, module(inputs, **kwargs))


def _changed(inputs, rows, by=37.0):
    """The inputs, graphs the same, with other values in some rows."""
    values = [x.clone() for x in inputs.values]
    for m, x in enumerate(values):
        x[rows] = by * (m + 1) - 5 * x[rows]
    return replace(inputs, values=values)


def _blind(inputs, seed=0):
    """A fifth of the spots, and what is left to be seen of each modality."""
    blind = torch.rand(inputs.n_obs, generator=torch.Generator().manual_seed(seed)) < 0.2
    return blind.nonzero()[:, 0], [there * ~blind[:, None] for there in inputs.present]


# -------------------------------------------------------------------- beginning


def _closed_form(inputs, n_latent):
    """Spatial components of the same spots by their own core, and what they predict."""
    rings = [
        sparse.csr_matrix((np.ones(g.n_edges, dtype=np.float32), g.col.numpy(), g.crow.numpy()), shape=g.shape)
        for g in inputs.rings
    ]
    values, present = [x.numpy() for x in inputs.values], [p[:, 0].numpy() > 0 for p in inputs.present]
    batch = np.repeat(np.arange(len(inputs.segments) - 1), np.diff(inputs.segments.numpy()))
    fitted = fit_spatial_components(
        values, present, rings, inputs.distances, batch, n_components=n_latent, center_slices=False
    )
    return fitted, fitted.predict(fitted.own_values(values, present, batch), present, rings)[0]


def _error(fitted, predicted, inputs):
    return sum(
        np.square(predicted @ decoder * scale - x.numpy()).mean()
        for decoder, scale, x in zip(fitted.decoders, fitted.scales, inputs.values, strict=True)
    )


BARE = {"n_layers": 0, "use_fusion": False, "n_feature_neighbors": 0, "edges": "uniform", "homogeneity_weight": 0.0}


@pytest.mark.parametrize("slices", ["spots", "two_slices"])
@pytest.mark.parametrize("edges", ["uniform", "inductive", "free"])
def test_an_untrained_module_gives_the_closed_form(request, fresh, slices, edges):
    """Up to the resolution of spikes and of weights of 4 bits; scores of edges begin with all edges the same."""
    module, inputs = fresh(request.getfixturevalue(slices), **{**BARE, "edges": edges})
    fitted, expected = _closed_form(inputs, 16)
    found = _predicted(module, inputs).numpy()
    assert found.shape == expected.shape
    for d in range(fitted.n_components):
        assert np.corrcoef(found[:, d], expected[:, d])[0, 1] > 0.98
    assert _error(fitted, found, inputs) < 1.02 * _error(fitted, expected, inputs)
    by_spikes = module._features(torch.from_numpy(found))
    own = sum(float((x - y).square().mean()) for x, y in zip(by_spikes, inputs.values, strict=True))
    assert own < 1.02 * _error(fitted, expected, inputs)


@pytest.mark.parametrize("slices", ["spots", "two_slices"])
def test_without_spikes_and_integers_the_closed_form_is_exact(request, fresh, slices):
    module, inputs = fresh(request.getfixturevalue(slices), **BARE, encoder="relu", weight_bits="float")
    _, expected = _closed_form(inputs, 16)
    np.testing.assert_allclose(_predicted(module, inputs).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_untrained_blocks_leave_the_prediction_nearly_as_it_is(spots, fresh, encoder):
    """Blocks are added with the small factor `layer_scale`; with zero they add nothing."""
    module, inputs = fresh(spots, encoder=encoder, layer_scale=0.0)
    silent = _predicted(module, inputs)
    module.blocks = torch.nn.ModuleList()
    assert torch.equal(_predicted(module, inputs), silent)


# ------------------------------------------------------------ nothing but spikes


def _spikes_of(module, inputs):
    """Outcome of every layer of neurons in one pass, and the latent."""
    seen = []
    hooks = [
        part.register_forward_hook(lambda _, __, y: seen.append(y.detach().clone()))
        for part in module.modules()
        if isinstance(part, Multispike)
    ]
    latent = _latent(module, inputs)
    for hook in hooks:
        hook.remove()
    return seen, latent


@pytest.mark.parametrize("given", [form for form in FORMS if form.get("encoder") != "relu"], ids=str)
def test_features_with_the_same_spikes_give_the_same_bits(spots, fresh, given):
    """A path in floating point, however small its weight, would let the difference of the features through."""
    module, inputs = fresh(spots, 3, **given)
    module.self_weights.fill_(0.5)
    noise = torch.Generator().manual_seed(5)
    other = replace(inputs, values=[x + 1e-4 * torch.randn(x.shape, generator=noise) for x in inputs.values])

    def codes(inputs):
        with torch.no_grad():
            return [
                code(encoder(x / module.get_buffer(f"feature_scale_{m}")))
                for m, (x, encoder, code) in enumerate(zip(inputs.values, module.encoders, module.codes, strict=True))
            ]

    same = [(a == b).all(1, keepdim=True) for a, b in zip(codes(inputs), codes(other), strict=True)]
    assert all(rows.float().mean() > 0.9 for rows in same)
    values = [torch.where(rows, y, x) for rows, x, y in zip(same, inputs.values, other.values, strict=True)]
    other = replace(inputs, values=values)
    assert all((x != y).any(1).float().mean() > 0.9 for x, y in zip(inputs.values, values, strict=True))
    assert torch.equal(_latent(module, other), _latent(module, inputs))
    for modality in (0, 1):
        with torch.no_grad():
            a, b = (module.latent(x, module(x), modality) for x in (inputs, other))
        assert torch.equal(a, b)


@pytest.mark.parametrize("given", [form for form in FORMS if form.get("encoder") != "relu"], ids=str)
def test_neurons_fire_whole_numbers_and_silence_says_nothing(spots, fresh, given):
    module, inputs = fresh(spots, 3, **given)
    spikes, latent = _spikes_of(module, inputs)
    steps = module.settings.n_levels - 1
    assert len(spikes) >= 2
    for x in spikes:
        counts = x * steps
        torch.testing.assert_close(counts, counts.round(), atol=1e-6, rtol=0)
        assert x.min() >= 0
        assert x.max() <= 1
    assert latent.std(0).max() > 0.1
    for code in module.codes:
        code.register_forward_hook(lambda _, __, y: torch.zeros_like(y))
    silent = _latent(module, inputs)
    # Not even the pattern of the graphs is left, but for rounding.
    assert silent.std(0).max() < 1e-4 * latent.std(0).max()


def test_decoding_reads_spikes_alone(spots, fresh):
    module, inputs = fresh(spots, 3)
    latent = _latent(module, inputs)[:, : module.n_directions]
    near = latent + 1e-5 * torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))
    same = (module.decoder_code(near) == module.decoder_code(latent)).all(1)
    assert same.float().mean() > 0.9
    with torch.no_grad():
        for a, b in zip(module.decode(inputs, near), module.decode(inputs, latent), strict=True):
            assert torch.equal(a[same], b[same])


# ------------------------------------------------------------------- blind spots


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("given", FORMS, ids=str)
def test_blind_spots_change_no_prediction(spots, fresh, given, training):
    module, inputs = fresh(spots, 3, **given)
    module.train(training)
    blind, visible = _blind(inputs)
    rates = {name: b.clone() for name, b in module.named_buffers()}
    with torch.no_grad():
        a = module(inputs, visible)
        module.load_state_dict({**module.state_dict(), **rates})
        b = module(_changed(inputs, blind), visible)
        module.load_state_dict({**module.state_dict(), **rates})
    for name in ("predicted", "modality_weights", "spatial_weights"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    for x, y in zip((*a.views, *a.edges), (*b.views, *b.edges), strict=True):
        assert torch.equal(x, y)
    shown = torch.tensor(sorted(set(range(N)) - set(blind.tolist())))
    assert not torch.equal(a.predicted[blind], _predicted(module, _changed(inputs, shown), visible)[blind])


@pytest.mark.parametrize("which", [0, 1])
def test_one_blind_modality_changes_no_prediction(spots, fresh, which):
    module, inputs = fresh(spots, 3)
    blind, (rows, _) = _blind(inputs)
    visible = [rows if m == which else torch.ones_like(rows) for m in range(2)]
    values = list(inputs.values)
    values[which] = values[which].clone()
    values[which][blind] = -99.0
    other = replace(inputs, values=values)
    assert torch.equal(_predicted(module, inputs, visible), _predicted(module, other, visible))


@pytest.mark.parametrize("use_fusion", [True, False])
def test_without_blocks_and_scores_no_spot_predicts_itself(spots, fresh, use_fusion):
    given = {"n_feature_neighbors": 4} if use_fusion else {"n_feature_neighbors": 0}
    module, inputs = fresh(spots, 4, n_layers=0, edges="uniform", use_fusion=use_fusion, **given)
    before = _predicted(module, inputs)
    for row in (0, 17, N // 2, N - 1):
        after = _predicted(module, _changed(inputs, torch.tensor([row])))
        assert torch.equal(before[row], after[row])
        assert not torch.equal(before, after)


def test_training_predicts_blind_spots_that_are_not_kept_aside(spots, fresh):
    """Spots kept aside for validation are seen by their neighbors, and never the target of an error."""
    module, inputs = fresh(spots, n_layers=0)
    module.validation_size = 0.2
    targets = []
    module._prediction_error = lambda _, predicted, rows: targets.append(rows) or predicted.sum()
    module.validation_loss(inputs)
    aside = targets.pop()
    assert 0.1 * N < len(aside) < 0.3 * N
    for _ in range(30):
        module.loss(inputs)
    assert len({tuple(rows.tolist()) for rows in targets}) == 30  # other spots in each epoch
    assert set(torch.cat(targets).tolist()) == set(range(N)) - set(aside.tolist())


def test_validation_loss_is_the_error_of_spots_that_nobody_sees(spots, fresh):
    module, inputs = fresh(spots, 3)
    module.validation_size = 0.2
    seen = []
    original = module.forward
    module.forward = lambda inputs, visible: seen.append(visible) or original(inputs, visible)
    loss = float(module.validation_loss(inputs))
    (visible,) = seen
    aside = (visible[0][:, 0] == 0).nonzero()[:, 0]
    assert 0.1 * N < len(aside) < 0.3 * N
    features = module._features(_predicted(module, inputs, visible)[aside])
    expected = sum(float((x - y[aside]).square().mean()) for x, y in zip(features, inputs.values, strict=True))
    assert loss == pytest.approx(expected, rel=1e-5)
    assert float(module.validation_loss(_changed(inputs, aside))) > 10 * loss  # as targets they count


# ------------------------------------------------------------ missing modalities


def test_values_of_missing_modalities_are_not_read(spots_of, grid, values_of, fresh):
    xy = grid(SIDE)
    missing = np.random.default_rng(5).choice(N, 40, replace=False)
    spots = spots_of(values_of(xy), xy, missing={"protein": missing})
    module, inputs = fresh(spots, 3)
    module.self_weights.fill_(0.5)
    place = np.flatnonzero(np.isin(inputs.order, missing))
    values = [x.clone() for x in inputs.values]
    values[0][place] = 55.0
    assert torch.equal(_latent(module, replace(inputs, values=values)), _latent(module, inputs))
    with torch.no_grad():
        encoded = module(inputs)
    # The own spikes of what is there, and the prediction of what is not.
    own = sum(encoded.own) + (encoded.predicted @ module.expected_0) * (1 - inputs.present[0])
    torch.testing.assert_close(module.latent(inputs, encoded)[:, : module.n_directions], (encoded.predicted + own) / 2)


# ------------------------------------------------------------- blocks and slices


@pytest.mark.parametrize("slices", ["spots", "two_slices"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_blocks_of_rows_equal_the_whole(request, fresh, slices, encoder):
    module, inputs = fresh(request.getfixturevalue(slices), 2, encoder=encoder, layer_scale=0.5, n_layers=2)
    whole = _latent(module, inputs)
    for block_size in (13, 50, 10_000):
        blocks = _latent(module, inputs, block_size=block_size)
        # A membrane at its threshold may fall to either side of it.
        assert ((blocks - whole).abs() < 1e-4).float().mean() > 0.99


@pytest.mark.parametrize("given", FORMS, ids=str)
def test_one_slice_does_not_see_the_other(two_slices, fresh, given):
    module, inputs = fresh(two_slices, 2, **given)
    cut = int(inputs.segments[1])
    other = _changed(inputs, torch.arange(cut, N), by=2.0)
    a, b = _latent(module, inputs), _latent(module, other)
    assert not torch.equal(a[cut:], b[cut:])
    assert torch.equal(a[:cut], b[:cut])


@pytest.mark.parametrize("budget", [3.0, 4.0, 5.0])
def test_learned_bits_meet_their_budget_from_the_start(spots, fresh, budget):
    module, _ = fresh(spots, weight_bits="learned", bit_budget=budget)
    learned = [
        (part.weight.numel(), part.bits)
        for part in module.modules()
        if isinstance(part, QuantLinear) and isinstance(part.quantizer, LearnedWidthQuantizer)
    ]
    assert len(learned) > 10
    total = sum(n for n, _ in learned)
    assert budget - 0.25 <= sum(n * bits for n, bits in learned) / total <= budget


def test_ranges_of_the_codes_are_those_of_what_they_read(spots, fresh):
    module, _ = fresh(spots)
    codes = [part for part in module.modules() if isinstance(part, PopulationCode)]
    assert len(codes) == 2 + 2 + 1 + 2 + 1  # modalities, graphs of each, modalities together, a block, the decoder
    for code in codes:
        assert (code.ranges > 0).all()
        assert (code.ranges != 1).all()


def test_weights_of_graphs_and_modalities_sum_to_one(spots, fresh):
    for given in ({}, {"graph_fusion": "conv"}):
        module, inputs = fresh(spots, 3, **given)
        with torch.no_grad():
            encoded = module(inputs)
        torch.testing.assert_close(encoded.modality_weights.sum(1), torch.ones(N))
        assert ((encoded.spatial_weights >= 0) & (encoded.spatial_weights <= 1)).all()
        for graph, weight in zip((*inputs.rings, *inputs.feature_graphs), encoded.edges, strict=True):
            total = torch.zeros(N).index_add(0, graph.row.long(), weight)
            torch.testing.assert_close(total[total > 0], torch.ones(int((total > 0).sum())))
    weights = module.ring_weights()
    assert float(weights.sum()) == pytest.approx(1)
    assert (weights > 0).all()
