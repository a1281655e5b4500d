"""Features that are no biology, left out."""

from __future__ import annotations

import logging

from anndata import AnnData
from mudata import MuData

from stomics_tools._validate import check_annotated
from stomics_tools.data._feature_types import feature_kinds, without_controls

logger = logging.getLogger("stomics_tools")


def drop_controls(adata: AnnData | MuData, *, copy: bool = False) -> AnnData | MuData | None:
    """Leave out control features: probes and codes that show how well the chemistry worked, and are no genes.

    They are known by ``var["feature_types"]`` (``"Negative Control Probe"``, ``"Negative Control Codeword"``,
    ``"Unassigned Codeword"``, ``"Deprecated Codeword"``, ``"Genomic Control"``, ... of Xenium), and where there is no
    such column, or it calls them genes, by the names that vendors give them: ``NegControlProbe_00042``,
    ``antisense_PROKR2``, ``BLANK_0069`` and ``Intergenic_Region_17`` (Xenium), ``Blank-12`` (MERSCOPE), ``NegPrb03``,
    ``Negative3``, ``SystemControl12`` and ``FalseCode7`` (CosMx), ``NegProbe-WTX`` (GeoMx), ``ERCC-00002`` (spike-ins).
    Genes with similar names, such as NEGR1, CTRL, BLNK, ERCC1 or the fly's blanks, stay.

    Parameters
    ----------
    adata
        One object, or several modalities, of which those that hold nothing but controls are left out as a whole.
    copy
        Return a copy instead of changing `adata`. A MuData can only be copied.

    Returns
    -------
    The copy if `copy`, else None. How many features of which sort were left out is logged. Nothing else changes;
    ``raw`` keeps all features.

    Raises
    ------
    TypeError
        If a MuData is to be changed in place, which mudata cannot do without loss.
    ValueError
        If nothing would be left.
    """
    check_annotated(adata)
    if isinstance(adata, MuData) and not copy:
        raise TypeError(
            "`copy`: a MuData cannot be changed in place. Write `mdata = st.pp.drop_controls(mdata, copy=True)`."
        )
    result, what = without_controls(adata)
    if what:
        logger.warning("left out control features: %s", what)
    if copy:
        return result if what else adata.copy()
    if what:
        adata._inplace_subset_var(~feature_kinds(adata.var).is_control)
    return None
