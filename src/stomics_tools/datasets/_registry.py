"""The public slices that spatial multi-omics methods are compared on: what they are and where their files are."""

from __future__ import annotations

from dataclasses import dataclass

ARCHIVE_URL = "https://zenodo.org/records/10362607/files/Data_SpatialGlue.zip"
ARCHIVE_HASH = "md5:b766948c1136bb3af2f3e6e85dc81cfe"
ARCHIVE_DOI = "10.5281/zenodo.10362607"
"""One archive of 672 MB holds all slices, each in a folder of its own."""

LABELS_DOI = "10.5281/zenodo.14591305"

_LONG = "Long et al., Nature Methods 21, 1658 (2024), doi:10.1038/s41592-024-02316-4"
_ZHANG = "Zhang et al., Nature 616, 113 (2023), doi:10.1038/s41586-023-05795-1"
_BEN_CHETRIT = "Ben-Chetrit et al., Nature Biotechnology 41, 788 (2023), doi:10.1038/s41587-022-01536-3"

_LIAO = f"Liao et al., bioRxiv (2023), doi:10.1101/2023.04.28.538364; {_LONG}"

_RNA_PROTEIN = {"rna": "adata_RNA.h5ad", "protein": "adata_ADT.h5ad"}
_RNA_PEAKS = {"rna": "adata_RNA.h5ad", "atac": "adata_peaks_normalized.h5ad"}
_RNA_HISTONE = {"rna": "adata_RNA.h5ad", "histone": "adata_peaks_normalized.h5ad"}


@dataclass(frozen=True)
class PublicSlice:
    """A slice of the archive."""

    folder: str
    files: dict[str, str]  # modality -> file
    citation: str
    labels: str | None = None  # file of labels, one a line in the order of the spots of the first modality


HUMAN_LYMPH_NODE = {
    "A1": PublicSlice("Dataset11_Human_Lymph_Node_A1", _RNA_PROTEIN, _LONG, "GT_labels.txt"),
    "D1": PublicSlice("Dataset12_Human_Lymph_Node_D1", _RNA_PROTEIN, _LONG),
}
MOUSE_BRAIN = {
    "ATAC": PublicSlice("Dataset7_Mouse_Brain_ATAC", _RNA_PEAKS, _ZHANG, "MB_cluster.txt"),
    "H3K4me3": PublicSlice("Dataset8_Mouse_Brain_H3K4me3", _RNA_HISTONE, _ZHANG),
    "H3K27ac": PublicSlice("Dataset9_Mouse_Brain_H3K27ac", _RNA_HISTONE, _ZHANG),
    "H3K27me3": PublicSlice("Dataset10_Mouse_Brain_H3K27me3", _RNA_HISTONE, _ZHANG),
}
MOUSE_SPLEEN = {
    "1": PublicSlice("Dataset1_Mouse_Spleen1", _RNA_PROTEIN, _BEN_CHETRIT),
    "2": PublicSlice("Dataset2_Mouse_Spleen2", _RNA_PROTEIN, _BEN_CHETRIT),
}
MOUSE_THYMUS = {str(i): PublicSlice(f"Dataset{i + 2}_Mouse_Thymus{i}", _RNA_PROTEIN, _LIAO) for i in range(1, 5)}
