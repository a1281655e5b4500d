"""What every plot shares: what it returns and where it is saved."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scanpy import settings


def root_figure(ax: Axes) -> Figure:
    """The figure that an axes ends up in."""
    return cast(Figure, ax.get_figure(root=True))


def finish(
    axes: list[Axes], *, save: str | Path | None, show: bool | None, return_fig: bool | None
) -> Figure | Axes | list[Axes] | None:
    """Save the figure if asked for; return or show as scanpy does: the figure, else the axes unless they are shown."""
    if save is not None:
        if not isinstance(save, str | Path):
            raise TypeError(f"`save` must be the path of a file, such as 'figure.png', found {save!r}.")
        root_figure(axes[0]).savefig(Path(save).expanduser(), bbox_inches="tight")
    if return_fig:
        return root_figure(axes[0])
    if settings.autoshow if show is None else show:
        plt.show()
        return None
    return axes[0] if len(axes) == 1 else axes
