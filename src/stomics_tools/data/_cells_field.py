"""The registration of cells with positions with scvi-tools."""

from __future__ import annotations

from typing import Any

import rich
from anndata import AnnData
from scvi.data.fields import BaseAnnDataField

from stomics_tools.data._cells import CellsSpec, read_cells


class CellsField(BaseAnnDataField):
    """All that a model of cells and positions reads of an object to train on, as one field; nothing is written."""

    registry_key = "cells"
    attr_name = "obsm"
    is_empty = False

    def __init__(self, spec: CellsSpec) -> None:
        self.spec = spec

    @property
    def attr_key(self) -> str:
        """Key of the coordinates."""
        return self.spec.spatial_key

    def validate_field(self, adata: AnnData) -> None:
        """Raise where the data cannot be used."""
        read_cells(adata, self.spec)

    def register_field(self, adata: AnnData) -> dict[str, Any]:
        """Genes, dimensions of space, slices, and what counts are scaled by."""
        return read_cells(adata, self.spec).state()

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: Any) -> dict[str, Any]:
        """Register an object that has genes of another; expression is scaled as in that one."""
        own = read_cells(adata_target, self.spec, training=False, genes=state_registry["gene_names"])
        assert own.coordinates is not None
        if own.coordinates.shape[1] != state_registry["n_dims"]:
            raise ValueError(
                f"`spatial_key`: the model was trained in {state_registry['n_dims']} dimensions, "
                f"`adata.obsm[{self.spec.spatial_key!r}]` has {own.coordinates.shape[1]}."
            )
        return {**state_registry, "batches": own.batch_names}

    def get_summary_stats(self, state_registry: dict) -> dict[str, int]:
        """Number of genes, dimensions and slices."""
        return {
            "n_genes": len(state_registry["gene_names"]),
            "n_dims": state_registry["n_dims"],
            "n_slices": len(state_registry["batches"]),
        }

    def view_state_registry(self, state_registry: dict) -> rich.table.Table:
        """Table of what was found under each key."""
        table = rich.table.Table(title="Cells and positions")
        for heading in ("what", "key", "number"):
            table.add_column(heading)
        counts = self.get_summary_stats(state_registry)
        table.add_row("genes", self.spec.layer or "X", str(counts["n_genes"]))
        table.add_row("coordinates", self.spec.spatial_key, str(counts["n_dims"]))
        table.add_row("slices", self.spec.batch_key or "", str(counts["n_slices"]))
        return table

    def get_data_registry(self) -> dict[str, str]:
        """Empty: no single array stands for this field."""
        return {}
