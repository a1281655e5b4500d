"""Integers of 2 to 8 bits stored in as many bits, and the linear layer that keeps its weights so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stomics_tools.nn.quantization import QuantLinear, grid_limits

_GROUP = 8  # values; with b bits each they fill b bytes exactly, and one int64


def _n_bytes(n_values: int, bits: int) -> int:
    return -(-n_values * bits // 8)


def pack(integers: Tensor, bits: int) -> Tensor:
    """A stream of `bits` bits a value, in two's complement, the lowest bit first.

    Parameters
    ----------
    integers
        Whole numbers from ``-2^(b-1)`` to ``2^(b-1) - 1``, any shape, of integer dtype.
    bits
        From 2 to 8.

    Returns
    -------
    uint8 ``(ceil(n_values bits / 8),)``; the unused bits of the last byte are 0.
    """
    low, high = grid_limits(bits)
    if integers.numel() and (integers.min() < low or integers.max() > high):
        raise ValueError(
            f"`integers`: {bits} bits hold {low} to {high}, found {integers.min().item()} to {integers.max().item()}."
        )
    n_values = integers.numel()
    values = F.pad(integers.flatten().long() & (2**bits - 1), (0, -n_values % _GROUP)).view(-1, _GROUP)
    words = (values << _shifts(bits, _GROUP, values)).sum(1, keepdim=True)
    stream = (words >> _shifts(8, bits, words)) & 255
    return stream.flatten()[: _n_bytes(n_values, bits)].to(torch.uint8)


def unpack(packed: Tensor, bits: int, shape: Sequence[int]) -> Tensor:
    """The integers of :func:`pack`.

    Parameters
    ----------
    packed
        uint8 ``(ceil(n_values bits / 8),)``.
    bits
        From 2 to 8.
    shape
        Shape of the integers, ``n_values`` in all.

    Returns
    -------
    int8 of that shape.
    """
    n_values, half = math.prod(shape), grid_limits(bits)[1] + 1
    if len(packed) != _n_bytes(n_values, bits):
        raise ValueError(
            f"`packed`: {n_values} values of {bits} bits take {_n_bytes(n_values, bits)} bytes, found {len(packed)}."
        )
    stream = F.pad(packed.long(), (0, -len(packed) % bits)).view(-1, bits)
    words = (stream << _shifts(8, bits, stream)).sum(1, keepdim=True)
    values = (words >> _shifts(bits, _GROUP, words)) & (2 * half - 1)
    return ((values ^ half) - half).flatten()[:n_values].to(torch.int8).view(*shape)


def _shifts(width: int, n: int, like: Tensor) -> Tensor:
    return width * torch.arange(n, device=like.device)


class PackedLinear(nn.Module):
    """Linear layer for inference whose weights are packed integers: ``y = x (s Q)^T + b``.

    The outputs equal those of the :class:`QuantLinear` it is made of (:meth:`of`) bit by bit. The first call unpacks
    the weights, and keeps them in floating point for the next ones: a call costs what one of
    :class:`torch.nn.Linear` does. What is saved is the packed form alone; :meth:`release` frees the other.

    Parameters
    ----------
    in_features, out_features
        Widths of input and output.
    bits
        Bits of a weight, from 2 to 8.
    bias
        Whether to add a bias.
    """

    packed: Tensor
    step: Tensor
    bias: Tensor | None

    def __init__(self, in_features: int, out_features: int, bits: int, bias: bool = True) -> None:
        super().__init__()
        grid_limits(bits)
        self.in_features, self.out_features, self.bits = in_features, out_features, bits
        n_bytes = _n_bytes(in_features * out_features, bits)
        self.register_buffer("packed", torch.zeros(n_bytes, dtype=torch.uint8))
        self.register_buffer("step", torch.ones(out_features, 1))
        self.register_buffer("bias", torch.zeros(out_features) if bias else None)
        self._unpacked: Tensor | None = None

    @classmethod
    @torch.no_grad()
    def of(cls, layer: QuantLinear) -> PackedLinear:
        """The packed form of a layer with the bits it has now, in its dtype and on its device."""
        quantizer = layer.quantizer
        if quantizer is None:
            raise ValueError("`layer` has weights in floating point: make it with `bits` from 2 to 8 or 'learned'.")
        packed = cls(layer.in_features, layer.out_features, quantizer.bits, layer.bias is not None).to(layer.weight)
        packed.packed.copy_(pack(quantizer.integers(layer.weight), quantizer.bits))
        packed.step.copy_(quantizer.step)
        if packed.bias is not None:
            packed.bias.copy_(layer.bias)
        return packed

    @property
    def n_bytes(self) -> int:
        """Bytes of the packed weights, steps and bias, what is kept unpacked apart."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self.buffers())

    @property
    def weight(self) -> Tensor:
        """The weights in floating point, ``(out_features, in_features)``; kept from the first time on."""
        if self._unpacked is None:
            with torch.inference_mode(False), torch.no_grad():  # of use under any mode later
                self._unpacked = unpack(self.packed, self.bits, (self.out_features, self.in_features)) * self.step
        return self._unpacked

    def release(self) -> None:
        """Free the unpacked weights; the next call makes them again. Needed after buffers were changed in place."""
        self._unpacked = None

    def forward(self, x: Tensor) -> Tensor:
        """Output ``(..., out_features)`` of input ``(..., in_features)``."""
        return F.linear(x, self.weight, self.bias)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self.release()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.release()
        super()._load_from_state_dict(*args, **kwargs)

    def extra_repr(self) -> str:
        """Shown by ``print``."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bits={self.bits}, "
            f"bias={self.bias is not None}"
        )
