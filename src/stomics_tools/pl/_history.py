"""How training went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stomics_tools._validate import check_key
from stomics_tools.pl._common import finish


def history(
    model: Any,
    *,
    keys: str | Sequence[str] | None = None,
    ax: Axes | None = None,
    save: str | Path | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
) -> Figure | Axes | list[Axes] | None:
    """Draw the losses of a training run against the epoch.

    Parameters
    ----------
    model
        A trained model, or its ``history``: a mapping from names to series or one-column frames indexed by epoch.
    keys
        Name, or names, to draw. Default: every one that ends in ``"loss"``, or all if none does.
    ax
        Axes to draw on.
    save
        File to write the figure to; its ending tells the format.
    show
        Show the plot instead of returning it. Default: ``scanpy.settings.autoshow``.
    return_fig
        Return the figure.

    Returns
    -------
    The figure if `return_fig`, else None if shown, else the axes.

    Raises
    ------
    ValueError
        If the model is not trained yet.
    KeyError
        If one of the `keys` is absent.
    """
    record: Mapping[str, Any] | None = model if isinstance(model, Mapping) else getattr(model, "history", None)
    if not record:
        raise ValueError("`model` has no training history. Call `model.train()` first.")
    if keys is None:
        keys = [key for key in record if key.endswith("loss")] or list(record)
    keys = [keys] if isinstance(keys, str) else list(keys)
    for key in keys:
        check_key(key, record, argument="keys", where="model.history")
    if ax is None:
        _, ax = plt.subplots(layout="constrained", figsize=(5, 3.5))
    for key in keys:
        values = pd.DataFrame(record[key]).iloc[:, 0].dropna()
        ax.plot(values.index.to_numpy(), values.to_numpy(dtype=np.float64), label=key)
    ax.set_xlabel("epoch")
    if len(keys) == 1:
        ax.set_ylabel(keys[0].replace("_", " "))
    else:
        ax.legend(frameon=False)
    return finish([ax], save=save, show=show, return_fig=return_fig)
