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
        self._checked: dict[str, Any] | None = None

    @property
    def attr_key(self) -> str:
        """Key of the coordinates."""
        return self.spec.spatial_key

    def check(
        self,
        adata: AnnData | MuData,
        state: Mapping[str, Any] | None = None,
        *,
        opened: Mapping[str, Any] | None = None,
    ) -> None:
        """Read and check an object, which is to be registered next and is not read again for it.

        What registering records is kept until then; the data are not.

        Parameters
        ----------
        adata
            The object.
        state
            That of other data, whose features the object must have, and like which it is prepared.
        opened
            Matrices of modalities that were opened before.
        """
        self._checked = self._read(adata, state, opened).state()

    def _read(
        self, adata: AnnData | MuData, state: Mapping[str, Any] | None, opened: Mapping[str, Any] | None = None
    ) -> Spots:
        if state is not None:
            self.recipes = recipes_of(state)
        spots = read_spots(adata, self.spec, self.recipes, learn=state is None, opened=opened)
        if state is not None:
            check_same_features(spots, state)
        return spots

    def _take(self, adata: AnnData | MuData, state: Mapping[str, Any] | None) -> dict[str, Any]:
        """State of an object as :meth:`check` found it, or of one that was not checked."""
        found, self._checked = self._checked, None
        return self._read(adata, state).state() if found is None else found

    def validate_field(self, adata: AnnData | MuData) -> None:
        """Raise where the data cannot be used."""
        self._read(adata, None)

    def register_field(self, adata: AnnData | MuData) -> dict[str, Any]:
        """Features of each modality, names and sizes of the batches."""
        return self._take(adata, None)

    def transfer_field(self, state_registry: dict, adata_target: AnnData | MuData, **kwargs: Any) -> dict[str, Any]:
        """Register an object that must have the modalities and features of another."""
        state = self._take(adata_target, state_registry)
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
