"""How well the codes of stage 1 are used."""

from __future__ import annotations

import pandas as pd
from torch import Tensor

from stomics_tools.model.var_st._vqvae import GeneVQVAE
from stomics_tools.nn import code_usage


def codebook_report(codes: Tensor, stage1: GeneVQVAE) -> pd.DataFrame:
    """Usage of codes ``(n_obs, n_tokens)``, a row a scale (named by its number of tokens) and one for all scales."""
    n_codes = stage1.quantizer.n_codes
    parts = {str(tokens.stop - tokens.start): codes[:, tokens] for tokens in stage1.scales.slices()}
    table = pd.DataFrame({name: code_usage(part, n_codes) for name, part in {**parts, "all": codes}.items()}).T
    table.insert(1, "n_codes", n_codes)
    return table.rename_axis("scale")
