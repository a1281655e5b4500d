"""The registration of spots with image features with scvi-tools."""

from __future__ import annotations

from typing import Any

import rich
from anndata import AnnData
from scvi.data.fields import BaseAnnDataField

from stomics_tools.data._covariates import Covariate
from stomics_tools.data._image_read import read_image_spots
from stomics_tools.data._image_spots import ImageSpec


class ImageSpotsField(BaseAnnDataField):
    """All that a model of expression from images reads of an object to train on, as one field; nothing is written."""

    registry_key = "image_spots"
    attr_name = "obsm"
    is_empty = False

    def __init__(self, spec: ImageSpec) -> None:
        self.spec = spec

    @property
    def attr_key(self) -> str:
        """Key of the image features."""
        return self.spec.features_key

    def validate_field(self, adata: AnnData) -> None:
        """Raise where the data cannot be used."""
        read_image_spots(adata, self.spec, expression=True)

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Features, genes, encodings of covariates, and names of patients and sections."""
        return read_image_spots(adata, self.spec, expression=True).state()

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: Any) -> dict[str, Any]:
        """Register an object that must have the features, genes and covariates of another, in the encodings of that."""
        own = read_image_spots(adata_target, self.spec, expression=True, state=state_registry).state()
        return {**state_registry, "patients": own["patients"], "sections": own["sections"]}

    def get_summary_stats(self, state_registry: dict) -> dict[str, int]:
        """Number of features, genes, patients (0: not known) and sections."""
        return {
            "n_features": state_registry["n_features"],
            "n_genes": len(state_registry["gene_names"]),
            "n_patients": len(state_registry["patients"]),
            "n_sections": len(state_registry["sections"]),
        }

    def view_state_registry(self, state_registry: dict) -> rich.table.Table:
        """Table of what was found under each key."""
        table = rich.table.Table(title="Spots with image features")
        for heading in ("what", "key", "number"):
            table.add_column(heading)
        spec, counts = self.spec, self.get_summary_stats(state_registry)
        for name, key in (
            ("features", spec.features_key),
            ("genes", spec.layer or "X"),
            ("patients", spec.patient_key),
            ("sections", spec.section_key),
        ):
            table.add_row(name, key or "", str(counts[f"n_{name}"]))
        for covariate in state_registry["covariates"]:
            table.add_row(
                f"{covariate['kind']} covariate", covariate["key"], str(Covariate.from_state(covariate).width)
            )
        return table

    def get_data_registry(self) -> dict[str, str]:
        """Empty: no single array stands for this field."""
        return {}
