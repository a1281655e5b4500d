"""Stage 1 by itself: how its codes are used, and files of it for other models."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from anndata import AnnData
from torch import Tensor

from stomics_tools import __version__, _validate
from stomics_tools._random import local_seed
from stomics_tools.data import ImageSpots
from stomics_tools.model._files import read_model, write_model
from stomics_tools.model.var_st._folds import Folds
from stomics_tools.model.var_st._health import codebook_report
from stomics_tools.model.var_st._module import MAX_LANDMARKS
from stomics_tools.model.var_st._networks import VarSTNetworks
from stomics_tools.train import seed_or_default

logger = logging.getLogger("stomics_tools")

_SETTINGS = ("scales", "quantizer", "n_codes", "n_field", "n_components", "likelihood")


def stage1_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stage 1 and the units of expression, out of the state of all networks."""
    return {name: value for name, value in tensors.items() if name.startswith(("stage1.", "tree", "gene_"))}


class VarSTStage1(VarSTNetworks):
    """What can be done with stage 1 of :class:`~stomics_tools.model.VARST` alone."""

    _stage1_trained: bool = False
    _stage2_begun: bool = False

    def _require_stage1(self) -> None:
        if not self._stage1_trained:
            raise RuntimeError("Stage 1 is not trained. Call `train_stage1()` or `load_stage1(folder)` first.")

    def codebook_report(self, adata: AnnData | None = None) -> pd.DataFrame:
        """Use of the codes: a row a scale, named by its number of tokens, and one for all scales.

        Parameters
        ----------
        adata
            The object of setup by default, or another one with the same genes.

        Returns
        -------
        Columns ``usage`` (share of the vocabulary that was seen), ``n_codes`` (in the vocabulary), ``perplexity``
        (exponential of the entropy), ``n_dead`` (codes never seen) and ``n_tokens`` (codes seen).
        """
        self._require_stage1()
        expression = torch.as_tensor(self._expression(self._read(adata, expression=True))[0])
        x, measured = self.module.standardize(expression.to(self.device))
        return codebook_report(self._codes(x, measured).cpu(), self.module.stage1)

    def _warn_of_codes(self) -> None:
        report = self.codebook_report()
        worst = report["perplexity"] / report[["n_codes", "n_tokens"]].min(axis=1)
        if worst.min() < 0.1:
            scale = str(worst.idxmin())
            logger.warning(
                "Scale %s uses its codes poorly (perplexity %.0f of %.0f). Train stage 1 longer, or lower `n_codes`.",
                scale,
                report["perplexity"][scale],
                report["n_codes"][scale],
            )

    def save_stage1(self, dir_path: str | Path, *, overwrite: bool = False) -> None:
        """Save stage 1 alone, for other models of the same genes, as safetensors and JSON.

        Parameters
        ----------
        dir_path
            Made by this call.
        overwrite
            Replace what was saved there before.
        """
        self._require_stage1()
        write_model(dir_path, self._stage1_tensors(), self._stage1_meta(), overwrite=overwrite)

    def load_stage1(self, dir_path: str | Path, *, seed: int | None = None) -> None:
        """Take stage 1 from a folder of :meth:`save_stage1` instead of training it. No code from it is run.

        Parameters
        ----------
        dir_path
            The folder.
        seed
            Of the weights of the other networks, by default that of ``scvi.settings`` or 0.

        Raises
        ------
        FileNotFoundError
            If there is none.
        ValueError
            If it is damaged, or of other genes, dimensions or data.
        """
        seed = _validate.check_integer(seed_or_default(seed), argument="seed", minimum=0)
        tensors, meta = read_model(dir_path)
        if meta.get("model") != "VARST stage 1":
            raise ValueError(f"`dir_path`: {str(dir_path)!r} holds a {meta.get('model')}, not a stage 1 of VARST.")
        own = self._stage1_meta()
        if meta["gene_names"] != own["gene_names"]:
            missing = sorted(set(own["gene_names"]) - set(meta["gene_names"]))
            what = f"without {len(missing)} of these ({missing[:3]})" if missing else "others or in another order"
            raise ValueError(
                f"`dir_path`: stage 1 in {str(dir_path)!r} is of {len(meta['gene_names'])} genes, {what}. Subset the "
                "data to its genes, in its order, or train stage 1 on these."
            )
        for name in _SETTINGS:
            if meta["settings"][name] != own["settings"][name]:
                raise ValueError(
                    f"`dir_path`: stage 1 in {str(dir_path)!r} has `{name}` {meta['settings'][name]!r}, this model "
                    f"{own['settings'][name]!r}."
                )
        spots, folds = self._training_spots()
        self._expression(spots)
        with self._all_or_nothing():
            self._build_on(tensors, spots, folds, seed)
            self._trained_on = spots.fingerprint()
            self._train_args, self.history_ = {"stage1": "loaded", "seed": seed}, {}

    def _build_on(self, stage1: dict[str, Tensor], spots: ImageSpots, folds: Folds, seed: int) -> None:
        """New networks around a trained stage 1."""
        with local_seed(seed):
            module = self._make_module(folds.number, min(MAX_LANDMARKS, spots.n_obs), stage1["tree"].cpu())
        module.scaling.fit(spots.features)
        module.load_state_dict({**module.state_dict(), **stage1})
        self.module = module.eval()
        self._stage1_trained, self._stage2_begun, self.is_trained_ = True, False, False

    def _stage1_tensors(self) -> dict[str, Tensor]:
        return stage1_of(self.module.state_dict())

    def _stage1_meta(self) -> dict[str, Any]:
        plain = self._settings.plain()
        return {
            "version": __version__,
            "model": "VARST stage 1",
            "gene_names": self._state["gene_names"],
            "settings": {name: plain[name] for name in _SETTINGS},
        }
