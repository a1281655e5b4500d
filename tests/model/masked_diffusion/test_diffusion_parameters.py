from __future__ import annotations

import pytest
import torch

from stomics_tools.model import MaskedDiffusion
from stomics_tools.model.masked_diffusion._network import DiffusionTransformer
from stomics_tools.model.masked_diffusion._settings import DiffusionSettings

SMALL = {"width": 16, "n_heads": 2, "n_layers": 2, "n_hidden": 32, "n_latent": 8}
MOE = {**SMALL, "use_moe": True, "num_experts": 4, "moe_top_k": 2}


def test_parameters_are_those_of_the_network() -> None:
    table = MaskedDiffusion.parameter_table({"plain": SMALL, "experts": MOE}, n_cells=32, n_steps=1)
    for name, arguments in (("plain", SMALL), ("experts", MOE)):
        network = DiffusionTransformer(DiffusionSettings(**arguments), 2, 8)
        assert table.loc[name, "total"] == sum(p.numel() for p in network.parameters())
    assert table.loc["plain", "active"] == table.loc["plain", "total"]
    # Experts of 32 / 2 = 16: weights and biases of two of the four in each of two layers are idle.
    assert table.loc["experts", "total"] - table.loc["experts", "active"] == 2 * 2 * (2 * 16 * 16 + 16 + 16)
    assert (table["seconds_per_step"] > 0).all()


def test_operations_grow_as_those_of_exact_attention() -> None:
    few, many = (
        MaskedDiffusion.parameter_table({"plain": SMALL}, n_cells=n, n_steps=1).loc["plain", "flops_per_cell"]
        for n in (64, 128)
    )
    # 64 cells more to read: two products of 2 * 16 operations each, in two layers. What a set of times costs is shared.
    shared = 2 * 2 * (512 * 16 + 16 * 16) + 2 * 16 * (2 * 6 * 16 + 2 * 16)
    assert many - few == pytest.approx(2 * 64 * 2 * 2 * 16 - shared * (1 / 64 - 1 / 128), rel=1e-6)


def test_same_seed_same_network_and_the_generator_as_it_was() -> None:
    before = torch.get_rng_state()
    MaskedDiffusion.parameter_table({"plain": SMALL}, n_cells=8, n_steps=1)
    assert torch.equal(before, torch.get_rng_state())


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(TypeError, match="no_such"):
        MaskedDiffusion.parameter_table({"x": {"no_such": 1}})
