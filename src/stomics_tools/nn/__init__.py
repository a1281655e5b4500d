"""Building blocks that know torch only."""

from stomics_tools.nn.graph import Graph, hop_filter, normalize_symmetric
from stomics_tools.nn.multispike import Multispike, multispike, unroll
from stomics_tools.nn.packing import PackedLinear, pack, unpack
from stomics_tools.nn.quantization import (
    LearnedWidthQuantizer,
    QuantLinear,
    WeightQuantizer,
    initial_step,
    lsq,
    width_penalty,
)
from stomics_tools.nn.reparam import QuantConv2d, RepConv, RepLinear, fold_all
from stomics_tools.nn.spike_attention import SpikeAttention

__all__ = [
    "Graph",
    "LearnedWidthQuantizer",
    "Multispike",
    "PackedLinear",
    "QuantConv2d",
    "QuantLinear",
    "RepConv",
    "RepLinear",
    "SpikeAttention",
    "WeightQuantizer",
    "fold_all",
    "hop_filter",
    "initial_step",
    "lsq",
    "multispike",
    "normalize_symmetric",
    "pack",
    "unpack",
    "unroll",
    "width_penalty",
]
