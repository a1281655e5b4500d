"""Presets of PRAGASpike: the model and its settings by name, with what the user gave in their place."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from stomics_tools import _validate
from stomics_tools.model.praga_spike._settings import PRAGA, PragaSettings
from stomics_tools.model.praga_spike._spike_settings import EFFECTS, SpikeSettings

# Source: the published settings of the enhanced model; the norm of its gradient clipping is not given there.
ENHANCED = SpikeSettings(max_epochs=1000, lr=1e-4, patience=50, scheduler="plateau", clip_grad=1.0)


def resolve(preset: str | None, data_type: str, **given: Any) -> PragaSettings | SpikeSettings:
    """Settings of a preset, with all that is not None in `given` in their place.

    Raises ``ValueError`` for an argument that the model of the preset does not have, or that has no effect beside the
    others.
    """
    _validate.check_option(preset, [None, "enhanced", "praga"], argument="preset")
    _validate.check_option(data_type, list(PRAGA), argument="data_type")
    base = PRAGA[data_type] if preset == "praga" else ENHANCED if preset == "enhanced" else SpikeSettings()
    given = {name: value for name, value in given.items() if value is not None}
    known = {field.name for field in fields(base)}
    for name in given:
        if name not in known:
            raise ValueError(f"`{name}` is not an argument of the model of `preset={preset!r}`. Leave it out.")
    settings = base.replaced(**given)
    if isinstance(settings, SpikeSettings):
        _validate.check_effects(given, settings, EFFECTS)
    return settings
