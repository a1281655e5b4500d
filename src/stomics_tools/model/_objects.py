"""What models do to the objects that users hand them."""

from __future__ import annotations

import logging

from anndata import AnnData
from mudata import MuData

logger = logging.getLogger("stomics_tools")


def own_data(data: AnnData | MuData) -> None:
    """Turn a view into an object of its own, in place, so that its parent is never written.

    Results then lie in `data` itself, the object that the user named.
    """
    if data.is_view:
        logger.warning("Received a view: it becomes a copy that holds the results; its parent stays as it is.")
        backed = isinstance(data, AnnData) and data.isbacked
        data._init_as_actual(data.to_memory() if backed else data.copy())
