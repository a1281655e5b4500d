"""Bit packing there and back, and the packed layer against the quantized one."""

from __future__ import annotations

import itertools

import pytest
import torch

from stomics_tools.nn import PackedLinear, QuantLinear, pack, packing, unpack

ALL_BITS = range(2, 9)


def _by_hand(values, bits):
    """The stream as one long Python integer."""
    number = sum((int(v) % 2**bits) << (bits * i) for i, v in enumerate(values))
    return list(number.to_bytes(-(-len(values) * bits // 8), "little"))


@pytest.mark.parametrize("bits", ALL_BITS)
def test_every_value_at_every_place_of_the_stream(bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    rows = [torch.arange(low, high + 1).roll(k) for k in range(8)]
    integers = torch.cat(rows).to(torch.int8)
    packed = pack(integers, bits)
    assert packed.dtype == torch.uint8
    assert packed.tolist() == _by_hand(integers, bits)
    assert torch.equal(unpack(packed, bits, integers.shape), integers)


@pytest.mark.parametrize("bits", ALL_BITS)
def test_all_neighbours(bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    some = sorted({low, low + 1, -1, 0, 1, high})
    integers = torch.tensor(list(itertools.product(some, repeat=3)), dtype=torch.int8)
    assert torch.equal(unpack(pack(integers, bits), bits, integers.shape), integers)


@pytest.mark.parametrize("bits", ALL_BITS)
@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (3, 5), (1, 1, 9), (13, 11)])
def test_odd_shapes_and_bytes(bits, shape):
    generator = torch.Generator().manual_seed(0)
    integers = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), shape, generator=generator, dtype=torch.int8)
    packed = pack(integers, bits)
    assert len(packed) == -(-integers.numel() * bits // 8)
    back = unpack(packed, bits, shape)
    assert back.dtype == torch.int8
    assert torch.equal(back, integers)


def test_wrong_input():
    with pytest.raises(ValueError, match="`integers`: 3 bits hold -4 to 3, found -5 to 2"):
        pack(torch.tensor([2, -5]), 3)
    with pytest.raises(ValueError, match="`bits` must be an integer from 2 to 8, found 9"):
        pack(torch.tensor([2]), 9)
    with pytest.raises(ValueError, match="`packed`: 6 values of 3 bits take 3 bytes, found 2"):
        unpack(torch.zeros(2, dtype=torch.uint8), 3, (2, 3))
    with pytest.raises(ValueError, match="`layer` has weights in floating point"):
        PackedLinear.of(QuantLinear(3, 2, bits=None))


@pytest.mark.parametrize("bits", ALL_BITS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_outputs_are_those_of_the_quantized_layer(bits, bias, dtype):
    torch.manual_seed(bits)
    layer = QuantLinear(37, 13, bias=bias, bits=bits).to(dtype).eval()
    layer.quantizer.refit(layer.weight)
    x = torch.randn(50, 37, dtype=dtype)
    packed = PackedLinear.of(layer)
    assert torch.equal(packed(x), layer(x))
    size = x.element_size()
    assert packed.n_bytes == -(-37 * 13 * bits // 8) + 13 * size + bias * 13 * size
    assert not list(packed.parameters())


def test_state_survives_a_round_trip():
    torch.manual_seed(0)
    first = PackedLinear.of(QuantLinear(9, 4, bits=3))
    second = PackedLinear(9, 4, 3, True)
    second.load_state_dict(first.state_dict())
    x = torch.randn(5, 9)
    assert torch.equal(first(x), second(x))
    assert set(first.state_dict()) == {"packed", "step", "bias"}
    assert set(PackedLinear(9, 4, 3, False).state_dict()) == {"packed", "step"}


def test_weights_are_unpacked_once_and_freed(monkeypatch):
    torch.manual_seed(0)
    layer = QuantLinear(9, 4, bits=3)
    packed, other, x = PackedLinear.of(layer), PackedLinear.of(QuantLinear(9, 4, bits=3)), torch.randn(5, 9)
    calls = []
    monkeypatch.setattr(packing, "unpack", lambda *arguments: calls.append(1) or unpack(*arguments))
    with torch.inference_mode():
        packed(x)
    packed(x.clone().requires_grad_()).sum().backward()  # what inference mode kept is of use in training too
    assert torch.equal(packed(x), layer(x))
    assert len(calls) == 1
    packed.release()
    packed(x)
    assert len(calls) == 2
    packed.load_state_dict(other.state_dict())
    assert torch.equal(packed(x), other(x))
    double = packed.double()(x.double())
    torch.testing.assert_close(double, other(x).double())
    assert double.dtype == torch.float64
    assert set(packed.state_dict()) == {"packed", "step", "bias"}


def test_a_learned_width_is_packed_as_it_is():
    torch.manual_seed(0)
    layer, x = QuantLinear(9, 4, bits="learned"), torch.randn(5, 9)
    layer.quantizer.set_bits(3, layer.weight)
    packed = PackedLinear.of(layer)
    assert packed.bits == 3
    assert len(packed.packed) == -(-9 * 4 * 3 // 8)
    assert torch.equal(packed(x), layer(x))
