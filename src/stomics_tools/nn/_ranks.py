"""What the ranks of a distributed run have to agree on; in any other run each function returns what it is given."""

from __future__ import annotations

from torch import Tensor, distributed


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Sum of the tensors of all ranks, written in place."""
    if _several():
        distributed.all_reduce(tensor)
    return tensor


def from_rank_zero(tensor: Tensor) -> Tensor:
    """The tensor of rank 0, written in place."""
    if _several():
        distributed.broadcast(tensor, src=0)
    return tensor
