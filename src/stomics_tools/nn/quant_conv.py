"""Convolutions with weights on a learned grid."""

from __future__ import annotations

from torch import Tensor, nn

from stomics_tools.nn.quantization import Bits, Quantized, make_quantizer


class _QuantConv(Quantized):
    """What the convolutions share; the class of :mod:`torch.nn` comes next in the order of the bases."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        padding: int = 0,
        groups: int = 1,
        bias: bool = True,
        bits: Bits = 4,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=padding, groups=groups, bias=bias)  # type: ignore[call-arg]
        self.quantizer = make_quantizer(self.weight, bits)

    def forward(self, x: Tensor) -> Tensor:
        """Output ``(n, out_channels, ...)`` of input ``(n, in_channels, ...)``."""
        return self.transform(x, self.used_weight, self.bias)

    def transform(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution with another weight and bias."""
        return self._conv_forward(x, weight, bias)  # type: ignore[attr-defined]


class QuantConv1d(_QuantConv, nn.Conv1d):
    """1-D convolution with fake-quantized weights; the bias and the input stay as they are.

    Takes sequences ``(n, in_channels, length)``.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, padding, groups, bias
        As of :class:`torch.nn.Conv1d`.
    bits
        As of :class:`QuantLinear`.
    """


class QuantConv2d(_QuantConv, nn.Conv2d):
    """2-D convolution with fake-quantized weights; the bias and the input stay as they are.

    Takes images ``(n, in_channels, height, width)``.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, padding, groups, bias
        As of :class:`torch.nn.Conv2d`.
    bits
        As of :class:`QuantLinear`.
    """
