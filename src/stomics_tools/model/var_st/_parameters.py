"""Parameters of the model, counted, beside those of the published one."""

from __future__ import annotations

import pandas as pd
from torch import nn

from stomics_tools.model.var_st._module import VarSTModule

# Source: the published stage 2 of 12 post-norm decoder layers, its condition processor and its stage 1.
_PUBLISHED = {"transformer blocks": 12 * 6_565_760, "condition": 799_296, "stage 1": 649_604, "all": 85_484_996}
_PUBLISHED_STAGE2 = 84_036_096

_WHY = {
    "stage 1": "weights for every gene on the way in and out, codes in a space of few dimensions; one code book",
    "condition": "features, and what the mean head expects, to the width of the transformer",
    "transformer blocks": "modulation by the condition (6 w^2 a block) for cross-attention to it (4 w^2, of which half "
    "cannot act on a single token)",
    "transformer ends": "codes enter by the field that they stand for, not by an embedding of their ids",
    "mean head": "an ensemble that predicts the conditional mean; the published model has none",
}


def parameter_table(networks: VarSTModule) -> pd.DataFrame:
    """Trained parameters by part; the smooth regression has none."""
    blocks = networks.transformer.blocks
    counted = {
        "stage 1": _count(networks.stage1),
        "condition": _count(networks.condition) + _count(networks.expected) + networks.no_condition.numel(),
        "transformer blocks": _count(blocks),
        "transformer ends": _count(networks.transformer) - _count(blocks),
        "mean head": _count(networks.mean),
    }
    published = {**_PUBLISHED, "transformer ends": _PUBLISHED_STAGE2 - _PUBLISHED["transformer blocks"], "mean head": 0}
    table = pd.DataFrame(
        {
            "parameters": pd.Series({**counted, "all": sum(counted.values())}),
            "published": pd.Series(published),
            "why": pd.Series({**_WHY, "all": ""}),
        }
    )
    return table.loc[[*counted, "all"]].rename_axis("part")


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
