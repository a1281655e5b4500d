"""The registration of spots with scvi-tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import rich
from anndata import AnnData
from mudata import MuData
from scvi.data.fields import BaseAnnDataField

from stomics_tools.data._origin import recipes_of
from stomics_tools.data._read import check_same_features, read_spots
from stomics_tools.data._recipe import Recipe
from stomics_tools.data._spots import Spots, SpotsSpec


class SpotsField(BaseAnnDataField):
    """All that a model reads of an object, as one field.

    scvi-tools' own fields ask for one array each, rewrite it, and need every spot in every modality; this one reads
    what :class:`SpotsSpec` names, changes nothing, and allows for spots that lack a modality.
    """

    registry_key = "spots"
    attr_name = "obsm"
    is_empty = False

    def __init__(self, spec: SpotsSpec) -> None:
        self.spec = spec
        self.recipes: dict[str, Recipe] = {}

    @property
    def attr_key(self) -> str:
        """Key of the coordinates."""
        return self.spec.spatial_key

    def read(self, adata: AnnData | MuData, state: Mapping[str, Any] | None = None) -> Spots:
        """Spots of an object, with the `state` of other data: which must have its features, and are prepared alike."""
        if state is not None:
            self.recipes = recipes_of(state)
        spots = read_spots(adata, self.spec, self.recipes, learn=state is None)
        if state is not None:
            check_same_features(spots, state)
        return spots

    def validate_field(self, adata: AnnData | MuData) -> None:
        """Raise where the data cannot be used."""
        self.read(adata)

    def register_field(self, adata: AnnData | MuData) -> dict[str, Any]:
        """Features of each modality and names of the batches."""
        return self.read(adata).state()

    def transfer_field(self, state_registry: dict, adata_target: AnnData | MuData, **kwargs: Any) -> dict[str, Any]:
        """Register an object that must have the modalities and features of another."""
        state = self.read(adata_target, state_registry).state()
        for name, modality in state["modalities"].items():  # how the data of training were made stays known
            modality["origin"] = state_registry["modalities"][name].get("origin") or modality["origin"]
            modality["whole"] = state_registry["modalities"][name]["whole"]  # of a slice without it nothing tells
        return state

    def get_summary_stats(self, state_registry: dict) -> dict[str, int]:
        """Number of features of each modality and of batches."""
        # scvi-tools takes no dots in these names.
        features = {f"n_{name.replace('.', '_')}": m["n_features"] for name, m in state_registry["modalities"].items()}
        return {"n_batch": len(state_registry["batches"]), **features}

    def view_state_registry(self, state_registry: dict) -> rich.table.Table:
        """Table of the modalities."""
        table = rich.table.Table(title="Modalities")
        for heading in ("name", "key", "features"):
            table.add_column(heading)
        for name, modality in state_registry["modalities"].items():
            table.add_row(name, self.spec.modalities[name], str(modality["n_features"]))
        return table

    def get_data_registry(self) -> dict[str, str]:
        """Empty: no single array stands for this field."""
        return {}
