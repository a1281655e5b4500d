"""What comes of closed forms: the weights that a module begins with, and the self weights that it ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from stomics_tools._spatial_components import SpatialComponents, fit_spatial_components, nugget
from stomics_tools.model.praga_spike._inputs import Inputs, as_matrix
from stomics_tools.model.praga_spike._layers import PopulationCode, SpikeBlock, UniformEdges
from stomics_tools.model.praga_spike._module import SpikeModule
from stomics_tools.model.praga_spike._quantize import restore_packed
from stomics_tools.model.praga_spike._settings import SpikeSettings
from stomics_tools.nn import QuantLinear

_COVERED = 0.995
"""Fraction of the spots that lie within the range of a population code; what lies beyond fires as on its border."""
_LEAST_RANGE = 1.5  # standard deviations
_MAX_ROWS = 20_000
"""Spots from which a range is found."""
_RIDGE = 1e-4
_N_DRAWS = 4
"""Draws of blind spots by which the error of prediction is measured."""
_MIN_COMPLETE = 50
"""Spots with every modality from which the noise is estimated; where there are fewer, all are taken."""


def new_module(inputs: Inputs, loss_weights: Sequence[float], settings: SpikeSettings) -> SpikeModule:
    """A module whose weights are those of the closed form; one loss weight a modality, in the order of names."""
    segments = inputs.segments
    batch = torch.arange(len(segments) - 1).repeat_interleave(segments.diff())
    fitted = fit_spatial_components(
        [x.numpy() for x in inputs.values],
        [there[:, 0].numpy() > 0 for there in inputs.present],
        [as_matrix(ring) for ring in inputs.rings],
        inputs.distances,
        batch.numpy(),
        n_components=settings.n_latent,
        signal_threshold=settings.signal_threshold,
        center_slices=False,  # of each slice, where it is wanted: the inputs are centered already
    )
    n_edges = [graph.n_edges for graph in (*inputs.rings, *inputs.feature_graphs)]
    n_features = [x.shape[1] for x in inputs.values]
    module = SpikeModule(n_features, fitted.n_components, n_edges, loss_weights, settings)
    start_from_components(module, inputs, fitted)
    return module


@torch.no_grad()
def start_from_components(module: SpikeModule, inputs: Inputs, fitted: SpatialComponents) -> None:
    """Set weights and ranges so that the spikes of `module` give what the closed form gives, up to their resolution."""
    module.center_slices.fill_(inputs.center_slices)
    d, decoders, own = fitted.n_components, [], []
    for m, x in enumerate(inputs.values):
        center, scale = inputs.moments[m]
        module.get_buffer(f"center_{m}").copy_(center)
        module.get_buffer(f"scale_{m}").copy_(scale)
        size = x.square().mean(0).sqrt().clamp(min=1e-6)
        module.get_buffer(f"feature_scale_{m}").copy_(size)
        encoder = torch.from_numpy(fitted.encoders[m] / fitted.scales[m]).to(x)  # (n_features, d)
        decoder = torch.from_numpy(fitted.decoders[m] * fitted.scales[m]).to(x)  # (d, n_features)
        module.get_buffer(f"expected_{m}").copy_(decoder @ encoder)
        _set(module.encoders[m], (encoder * size[:, None]).T)
        decoders.append(decoder.T)
        own.append(x @ encoder)
        _set_range(module.codes[m], own[m])
    far = _feature_graph_weights(inputs, own)
    for m, code in enumerate(module.codes):
        hops = torch.from_numpy(fitted.hop_weights[m]).to(far)
        scales = [torch.ones(d), *hops, *([far[m]] if module.settings.has_feature_graphs else [])]
        _set(module.synapses[m], torch.cat([code.decoding(torch.diag(scale)) for scale in scales]))
    kept = module.blocks
    module.blocks = nn.ModuleList()
    encoded = module.eval()(inputs)
    module.blocks = kept
    for part in module.modules():
        if isinstance(part, PopulationCode) and all(part is not code for code in module.codes):
            _set_range(part, encoded.predicted)
    _set(module.decoder, module.decoder_code.decoding(torch.cat(decoders)))
    if module.settings.weight_bits == "learned":
        with torch.enable_grad():
            module.allocate(inputs)
    _set_norms(module, inputs)


def _set(layer: QuantLinear, weight: Tensor) -> None:
    layer.weight.copy_(weight)
    if layer.quantizer is not None:
        layer.quantizer.refit(layer.weight)


def _set_range(code: PopulationCode, u: Tensor) -> None:
    covered = u[:: -(-len(u) // _MAX_ROWS)].abs().quantile(_COVERED, dim=0)
    spread = u.square().mean(0).sqrt()
    code.ranges.copy_(torch.maximum(covered, _LEAST_RANGE * spread).clamp(min=1e-3))


def _set_norms(module: SpikeModule, inputs: Inputs) -> None:
    """Running statistics of the normalisations: those of the spots, before any training."""
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm1d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    for part in module.modules():
        if isinstance(part, SpikeBlock):
            part.train()
    module(inputs)
    module.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _feature_graph_weights(inputs: Inputs, own: Sequence[Tensor]) -> Tensor:
    """Least-squares weights ``(n_modalities, d)`` of the means over the feature graphs, for each direction by itself."""
    y, uniform = torch.stack(list(own)).sum(0), UniformEdges()
    if not inputs.feature_graphs:
        return y.new_zeros(len(own), y.shape[1])
    means = torch.stack([g(x, uniform(g, x)) for g, x in zip(inputs.feature_graphs, own, strict=True)]).double()
    gram = torch.einsum("pnd,qnd->dpq", means, means) / len(y)
    target = torch.einsum("pnd,nd->dp", means, y.double()) / len(y)
    ridge = _RIDGE * gram.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)
    eye = torch.eye(len(own), dtype=gram.dtype)
    return torch.linalg.solve(gram + ridge[:, None, None] * eye, target[..., None])[..., 0].T.to(y)


@torch.no_grad()
def set_self_weights(module: SpikeModule, inputs: Inputs) -> None:
    """After training, how much a spot's own spikes correct its prediction: ``g = (1 - noise / residual)^2``.

    `residual` is the variance of the error of prediction of blind spots, `noise` what no spot shares with another. Where
    domains are wide and single cells mixed, a spot's own spikes count little; where domains are narrow they count much.
    """
    complete = torch.stack(inputs.present).prod(0)  # zeros that stand for a missing modality are no noise
    if complete.sum() < _MIN_COMPLETE:
        complete = torch.ones_like(complete)
    total, count = module.self_weights.new_zeros(module.n_directions), complete.new_zeros(())
    for draw in range(_N_DRAWS):
        blind, visible = module.blind_spots(inputs, -1 - draw)
        encoded = module(inputs, visible)
        own = torch.stack(encoded.own).sum(0)
        error = (own - encoded.predicted)[blind].square() * complete[blind]
        total, count = total + error.sum(0), count + complete[blind].sum()
    residual = (total / count.clamp(min=1)).clamp(min=1e-9)
    module.self_weights.copy_((1 - _own_noise(own, inputs, complete) / residual).clamp(0, 1).square())


def _own_noise(y: Tensor, inputs: Inputs, complete: Tensor) -> Tensor:
    """Variance ``(d,)`` of directions ``(n_obs, d)`` that a spot shares with no other, among spots that are `complete`."""
    y = y * complete
    fraction = complete.double().mean().clamp(min=1e-9)
    uniform, shared = UniformEdges(), []
    for ring in inputs.rings:
        sums = ring(torch.cat([y, complete], dim=1), uniform(ring, y))
        means = sums[:, :-1] / sums[:, -1:].clamp(min=1e-6)
        shared.append((y * means).double().mean(0) / fraction)
    variance = y.double().square().mean(0) / fraction
    found = nugget(variance.cpu().numpy(), torch.stack(shared).cpu().numpy(), inputs.distances)
    return torch.from_numpy(found).to(y)


def restored_module(
    tensors: Mapping[str, Tensor], loss_weights: Sequence[float], settings: SpikeSettings
) -> SpikeModule:
    """A module into which saved tensors fit."""
    n_modalities = len(loss_weights)
    n_graphs = settings.n_hops + (n_modalities if settings.has_feature_graphs else 0)
    sizes = [(f"edges.{i}.logit", f"average_{i}") for i in range(n_graphs)]
    n_edges = [next((len(tensors[key]) for key in keys if key in tensors), 0) for keys in sizes]
    n_features = [len(tensors[f"feature_scale_{m}"]) for m in range(n_modalities)]
    module = SpikeModule(n_features, len(tensors["self_weights"]), n_edges, loss_weights, settings)
    restore_packed(module, tensors)
    return module
