"""Layers that are two linear maps and two normalisations in training and one linear map in inference."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from stomics_tools.nn.quant_conv import QuantConv2d
from stomics_tools.nn.quantization import Bits, Quantized, QuantLinear, WeightQuantizer


def _affine(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift of a normalisation in inference, ``s = gamma / sqrt(var + eps)``, ``t = beta - mean s``."""
    mean, var = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    scale = norm.weight * torch.rsqrt(var + norm.eps)
    return scale, norm.bias - mean.clone() * scale  # the next batch writes the mean, which the gradient may still need


def _folded_bits(*layers: Quantized) -> int | None:
    """The most bits of the layers; :func:`allocate_bits` gives them the same."""
    bits = [layer.bits for layer in layers if layer.bits is not None]
    return max(bits) if bits else None


class RepLinear(nn.Module):
    """Linear layer for training, ``N2 P N1 A x``, that folds into one for inference.

    A is ``(in, in)``, P is ``(out, in)``, both without bias; N1 and N2 are batch normalisations.

    Parameters
    ----------
    in_features, out_features
        Widths of input and output.
    bits
        Bits of the weights, as of :class:`QuantLinear`.

    Source: the re-parameterised convolution of QSD-Transformer (Qiu et al., 2025) without its 3x3 part.
    """

    def __init__(self, in_features: int, out_features: int, bits: Bits = None) -> None:
        super().__init__()
        self.first = QuantLinear(in_features, in_features, bias=False, bits=bits)
        self.first_norm = nn.BatchNorm1d(in_features)
        self.second = QuantLinear(in_features, out_features, bias=False, bits=bits)
        self.second_norm = nn.BatchNorm1d(out_features)

    def forward(self, x: Tensor) -> Tensor:
        """Output ``(n, out_features)`` of input ``(n, in_features)``."""
        return self.second_norm(self.second(self.first_norm(self.first(x))))

    @torch.no_grad()
    def fold(self) -> QuantLinear:
        """One layer equal to this one in evaluation: ``W = diag(s2) P diag(s1) A``, ``b = s2 (P t1) + t2``.

        Without bits it is exact. With bits W leaves the grids of A and P and is quantized again on one of its own,
        so that the outputs differ by the rounding of the weights.
        """
        (s1, t1), (s2, t2) = _affine(self.first_norm), _affine(self.second_norm)
        second = self.second.used_weight
        weight = s2[:, None] * ((second * s1) @ self.first.used_weight)
        with torch.device("meta"):  # nothing is drawn
            folded = QuantLinear(self.first.in_features, self.second.out_features, bits=None)
        folded.assign(weight, s2 * (second @ t1) + t2, _folded_bits(self.first, self.second))
        return folded.train(self.training)


class RepConv(nn.Module):
    """3x3 convolution for training that folds into one for inference.

    1x1 convolution A, batch normalisation N1, a border of one pixel with N1's value of zero, depthwise 3x3 convolution
    D without padding, 1x1 convolution P, batch normalisation N2; no biases.

    Parameters
    ----------
    in_channels, out_channels
        Channels of input and output.
    bits
        Bits of the weights, as of :class:`QuantLinear`.

    Source: QSD-Transformer (Qiu et al., 2025).
    """

    def __init__(self, in_channels: int, out_channels: int, bits: Bits = None) -> None:
        super().__init__()
        self.first = QuantConv2d(in_channels, in_channels, 1, bias=False, bits=bits)
        self.first_norm = nn.BatchNorm2d(in_channels)
        self.depthwise = QuantConv2d(in_channels, in_channels, 3, groups=in_channels, bias=False, bits=bits)
        self.second = QuantConv2d(in_channels, out_channels, 1, bias=False, bits=bits)
        self.second_norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Output ``(n, out_channels, height, width)`` of images ``(n, in_channels, height, width)``."""
        inner = self.first_norm(self.first(x))
        n, n_channels, height, width = inner.shape
        _, border = _affine(self.first_norm)
        padded = border.view(1, -1, 1, 1).repeat(n, 1, height + 2, width + 2)
        padded[:, :, 1:-1, 1:-1] = inner
        return self.second_norm(self.second(self.depthwise(padded)))

    @torch.no_grad()
    def fold(self) -> QuantConv2d:
        """One 3x3 convolution with padding 1 equal to this layer in evaluation.

        ``K_oihw = s2_o sum_c P_oc D_chw s1_c A_ci`` and ``b = s2 (P (t1 sum_hw D)) + t2``. Without bits it is exact;
        with bits K is quantized again on a grid of its own, so that the outputs differ by the rounding of the weights.
        """
        (s1, t1), (s2, t2) = _affine(self.first_norm), _affine(self.second_norm)
        first, second = self.first.used_weight[:, :, 0, 0], self.second.used_weight[:, :, 0, 0]
        depthwise = self.depthwise.used_weight[:, 0]
        kernel = torch.einsum("oc,chw,ci->oihw", s2[:, None] * second * s1, depthwise, first)
        with torch.device("meta"):
            folded = QuantConv2d(self.first.in_channels, self.second.out_channels, 3, padding=1, bits=None)
        bias = s2 * (second @ (t1 * depthwise.sum((1, 2)))) + t2
        folded.assign(kernel, bias, _folded_bits(self.first, self.depthwise, self.second))
        return folded.train(self.training)


@torch.no_grad()
def fold_normed(layer: QuantLinear, norm: nn.BatchNorm1d) -> QuantLinear:
    """``s W x + t``, exact where s is positive: a step belongs to a channel, hence ``s W`` has a grid as well."""
    scale, shift = _affine(norm)
    with torch.device("meta"):
        folded = QuantLinear(layer.in_features, layer.out_features, bits=None)
    bias = shift if layer.bias is None else shift + scale * layer.bias
    folded.assign(scale[:, None] * layer.used_weight, bias, None)
    own = layer.quantizer
    if own is not None:
        step = scale[:, None].abs() * own.step
        quantizer = WeightQuantizer(folded.weight, own.bits)
        quantizer.log_step.copy_(step.clamp(min=torch.finfo(step.dtype).tiny).log())
        quantizer.refit(folded.weight)
        folded.quantizer = quantizer
    return folded.train(layer.training)


def _fold(layer: nn.Module) -> nn.Module | None:
    """One layer in the place of `layer`, if there is one."""
    if callable(fold := getattr(layer, "fold", None)):
        return fold()
    if isinstance(layer, nn.Sequential) and [type(part) for part in layer] == [QuantLinear, nn.BatchNorm1d]:
        return fold_normed(*layer)
    return None


def fold_all(module: nn.Module) -> nn.Module:
    """A deep copy for inference in which every :class:`RepLinear` and :class:`RepConv` is folded.

    So is every :class:`torch.nn.Sequential` of a :class:`QuantLinear` and its normalisation, and these two in every
    :class:`SpikingLayer`.

    Parameters
    ----------
    module
        Any module, itself or with such layers at any depth; it is not changed.

    Returns
    -------
    The copy, in evaluation mode; a layer used at several places stays one layer.
    """
    # deepcopy takes what its memo holds for an object instead of copying it.
    folded = {id(layer): new for layer in module.modules() if (new := _fold(layer)) is not None}
    return copy.deepcopy(module, folded).eval()
