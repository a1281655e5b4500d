"""Building blocks that know torch only."""

from typing import Any

from stomics_tools._namespace import missing_attribute
from stomics_tools.nn.bit_allocation import allocate_bits, mean_bits
from stomics_tools.nn.codes import code_usage
from stomics_tools.nn.dual_spike_attention import DualSpikeAttention
from stomics_tools.nn.firing_rates import FiringRate, firing_rates
from stomics_tools.nn.fsq import FSQ
from stomics_tools.nn.gated_attention import GatedAttention
from stomics_tools.nn.gaussianization import RunningGaussianization
from stomics_tools.nn.graph import Graph, hop_filter, normalize_symmetric
from stomics_tools.nn.lif import LIFNode, fire
from stomics_tools.nn.moe import MixtureOfExperts, RouterLosses
from stomics_tools.nn.multispike import Multispike, multispike, unroll
from stomics_tools.nn.packing import PackedLinear, pack, unpack
from stomics_tools.nn.perceptron_ensemble import PerceptronEnsemble
from stomics_tools.nn.quant_conv import QuantConv1d, QuantConv2d
from stomics_tools.nn.quantization import (
    LearnedWidthQuantizer,
    QuantLinear,
    WeightQuantizer,
    initial_step,
    lsq,
)
from stomics_tools.nn.relative_position import SpikingRelativePosition
from stomics_tools.nn.reparam import RepConv, RepLinear, fold_all
from stomics_tools.nn.row_attention import SpikingRowAttention, SpikingRowBlock
from stomics_tools.nn.row_groups import consecutive_groups, group_mean
from stomics_tools.nn.spike_attention import SpikeAttention
from stomics_tools.nn.spikformer import Spikformer, SpikingRowPooling
from stomics_tools.nn.spiking_encoding import SpikingEncoding, SpikingPositionEncoding
from stomics_tools.nn.spiking_layer import SpikingLayer
from stomics_tools.nn.spiking_patch_splitting import SpikingPatchSplitting
from stomics_tools.nn.spiking_self_attention import SpikingSelfAttention, spiking_attention
from stomics_tools.nn.spiking_transformer import SpikingMLP, SpikingTransformerBlock
from stomics_tools.nn.time_embedding import TimeEmbedding
from stomics_tools.nn.vector_quantization import VectorQuantizer
from stomics_tools.nn.whitening import RunningWhitening

__all__ = [
    "DualSpikeAttention",
    "FSQ",
    "FiringRate",
    "GatedAttention",
    "Graph",
    "LIFNode",
    "LearnedWidthQuantizer",
    "MixtureOfExperts",
    "Multispike",
    "PackedLinear",
    "PerceptronEnsemble",
    "QuantConv1d",
    "QuantConv2d",
    "QuantLinear",
    "RepConv",
    "RepLinear",
    "RouterLosses",
    "RunningGaussianization",
    "RunningWhitening",
    "SpikeAttention",
    "Spikformer",
    "SpikingEncoding",
    "SpikingLayer",
    "SpikingMLP",
    "SpikingPatchSplitting",
    "SpikingPositionEncoding",
    "SpikingRelativePosition",
    "SpikingRowAttention",
    "SpikingRowBlock",
    "SpikingRowPooling",
    "SpikingSelfAttention",
    "SpikingTransformerBlock",
    "TimeEmbedding",
    "VectorQuantizer",
    "WeightQuantizer",
    "allocate_bits",
    "code_usage",
    "consecutive_groups",
    "fire",
    "firing_rates",
    "fold_all",
    "group_mean",
    "hop_filter",
    "initial_step",
    "lsq",
    "mean_bits",
    "multispike",
    "normalize_symmetric",
    "pack",
    "spiking_attention",
    "unpack",
    "unroll",
]


def __getattr__(name: str) -> Any:
    raise missing_attribute(__name__, name, __all__)


def __dir__() -> list[str]:
    return sorted(__all__)
