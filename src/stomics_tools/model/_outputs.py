"""What a model of spots and graphs writes into an object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from torch import Tensor

from stomics_tools.nn import Graph


@dataclass
class Outputs:
    """Outputs of a model for all spots, rows in the order of its inputs.

    Parameters
    ----------
    latent
        ``(n_obs, n_latent)``.
    graphs
        By name: patterns that do not overlap and their weights ``(n_edges,)``, to be added up to one graph.
    tables
        By name: columns, and values ``(n_obs, n_columns)``.
    """

    latent: Tensor
    graphs: dict[str, list[tuple[Graph, Tensor]]]
    tables: dict[str, tuple[list[str], Tensor]] = field(default_factory=dict)


def chosen_features(names: Sequence[str], features: Sequence[str] | None, *, where: str) -> list[int]:
    """Positions of `features` in `names`, all of them if None; raises ``KeyError`` for one that is not there."""
    if features is None:
        return list(range(len(names)))
    features = [features] if isinstance(features, str) else [str(feature) for feature in features]
    place = {name: i for i, name in enumerate(names)}
    missing = [feature for feature in features if feature not in place]
    if missing:
        close = get_close_matches(missing[0], names, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise KeyError(
            f"`features`: {missing[:3]} not found among the {len(names)} of {where}, such as {list(names[:5])}.{hint}"
        )
    return [place[feature] for feature in features]
