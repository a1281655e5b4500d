from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields
from typing import Any

import numpy as np
import pytest

from stomics_tools.model.masked_diffusion._settings import DiffusionSettings

COUNTS = (
    "width n_heads n_layers n_hidden n_frequencies n_latent n_read num_experts moe_top_k diffusion_steps n_window "
    "n_neighbors n_members n_regression_hidden"
).split()
SHARES = {"dropout": 0.0, "regression_dropout": 0.0, "expression_mask_ratio": 0.1, "position_mask_ratio": 0.1}
WEIGHTS = ("balance_weight", "router_z_weight", "mixup", "min_snr")
SWITCHES = ("qk_norm", "use_gated_attention", "use_moe", "enable_masking", "self_conditioning", "augment_pose")
CHOICES = {
    "training_mode": ("joint", "expr_to_pos", "pos_to_expr"),
    "objective": ("diffusion", "flow"),
    "target": ("residual", "x0", "v", "eps"),
    "gate_type": ("elementwise", "headwise"),
    "expert_width": ("same_total", "same_active"),
}


def test_every_setting_is_checked_here() -> None:
    assert {*COUNTS, *SHARES, *WEIGHTS, *SWITCHES, *CHOICES} == {field.name for field in fields(DiffusionSettings)}


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name: str) -> None:
    for value in (0, -3):
        with pytest.raises(ValueError, match=f"`{name}` must be at least 1, found {value}"):
            DiffusionSettings(**{name: value})
    for value in (2.0, "8", None, True):
        with pytest.raises(TypeError, match=f"`{name}` must be an integer"):
            DiffusionSettings(**{name: value})


@pytest.mark.parametrize("name", [*SHARES, *WEIGHTS])
def test_numbers(name: str) -> None:
    for value in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"`{name}` must be in"):
            DiffusionSettings(**{name: value})
    for value in ("0.1", [0.1], True):
        with pytest.raises(TypeError, match=f"`{name}` must be a number"):
            DiffusionSettings(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dropout", 1.0),
        ("regression_dropout", 1.0),
        ("expression_mask_ratio", 0.0),
        ("expression_mask_ratio", 1.1),
        ("position_mask_ratio", 0),
        ("position_mask_ratio", 1.1),
        ("min_snr", 0),
    ],
)
def test_ends_of_ranges(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be in .*found {value}"):
        DiffusionSettings(**{name: value})


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("value", ["yes", None, 2])
def test_switches(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=f"`{name}`"):
        DiffusionSettings(**{name: value})


@pytest.mark.parametrize("name", CHOICES)
def test_choices(name: str) -> None:
    for option in CHOICES[name]:
        assert getattr(DiffusionSettings(**{name: option}), name) == option
    for value in (CHOICES[name][0].upper(), "", None, 1, [CHOICES[name][0]]):
        with pytest.raises(ValueError, match=f"`{name}`: unknown option"):
            DiffusionSettings(**{name: value})
    with pytest.raises(ValueError, match=f"Did you mean '{CHOICES[name][0]}'"):
        DiffusionSettings(**{name: CHOICES[name][0] + "e"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_latent": 65}, "`n_latent` must be at most 64, found 65"),
        ({"width": 30, "n_heads": 4}, r"`width` \(30\) must be a multiple of `n_heads` \(4\)"),
        ({"moe_top_k": 5, "num_experts": 4}, r"`moe_top_k` \(5\) must not be above `num_experts` \(4\)"),
        ({"use_moe": True, "n_hidden": 33}, r"`n_hidden` \(33\) must be a multiple of 2 "),
        (
            {"use_moe": True, "n_hidden": 12, "expert_width": "same_total"},
            r"`n_hidden` \(12\) must be a multiple of 8 ",
        ),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiffusionSettings(**settings)


def test_widths_of_experts_that_are_not_used_are_not_asked_for() -> None:
    assert DiffusionSettings(n_hidden=33).n_hidden == 33
    assert DiffusionSettings(use_moe=True, n_hidden=12, num_experts=8, moe_top_k=3).expert_width == "same_active"


def test_plain_values_come_back_from_text() -> None:
    settings = DiffusionSettings(
        width=np.int64(32),
        n_layers=np.int32(2),
        dropout=np.float32(0.25),
        min_snr=np.float64(5),
        use_moe=np.bool_(True),
    )
    plain = json.loads(json.dumps(settings.plain()))
    assert plain == settings.plain()
    assert (plain["width"], plain["dropout"], plain["min_snr"], plain["use_moe"]) == (32, 0.25, 5.0, True)
    assert DiffusionSettings(**plain) == settings


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        DiffusionSettings().width = 8  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "name", "cause"),
    [
        ({"gate_type": "headwise"}, "gate_type", "use_gated_attention=False"),
        ({"num_experts": 4}, "num_experts", "use_moe=False"),
        ({"moe_top_k": 1}, "moe_top_k", "use_moe=False"),
        ({"expert_width": "same_total"}, "expert_width", "use_moe=False"),
        ({"balance_weight": 0.0}, "balance_weight", "use_moe=False"),
        ({"router_z_weight": 0.1}, "router_z_weight", "use_moe=False"),
        ({"enable_masking": False, "expression_mask_ratio": 0.1}, "expression_mask_ratio", "enable_masking=False"),
        ({"enable_masking": False, "position_mask_ratio": 0.1}, "position_mask_ratio", "enable_masking=False"),
        ({"min_snr": 5.0}, "min_snr", "target='residual'"),
    ],
)
def test_arguments_without_effect(given: dict[str, Any], name: str, cause: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}=.*` has no effect with `{cause}`"):
        DiffusionSettings(**given).check_effects()
    on = {"use_gated_attention": True, "use_moe": True, "target": "x0"}
    DiffusionSettings(**{**on, **given, "enable_masking": True}).check_effects()
    DiffusionSettings().check_effects()
