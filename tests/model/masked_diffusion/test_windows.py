from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import Tensor
from torch.utils.data import default_collate

from stomics_tools.model.masked_diffusion._module import MaskedDiffusionModule
from stomics_tools.model.masked_diffusion._slices import Slice
from stomics_tools.model.masked_diffusion._windows import Windows

LARGE, SMALL = 40, 10  # cells; a window holds 16
Item = dict[str, Tensor]


@pytest.fixture
def slices(make_slice: Callable[..., Slice]) -> list[Slice]:
    """The second fits into a window and lacks a third of the genes."""
    return [make_slice(LARGE), make_slice(SMALL, seed=1, n_hidden=4)]


@pytest.fixture
def draw(make_module: Callable[..., MaskedDiffusionModule], slices: list[Slice]) -> Callable[..., list[Item]]:
    def drawn(n: int = 150, *, seed: int = 0, **settings: Any) -> list[Item]:
        module = make_module(**settings)
        windows = Windows(slices, module.latent, module.settings, module.schedule, n)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return [windows[k] for k in range(len(windows))]

    return drawn


def rows_of(item: Item, slices: list[Slice]) -> tuple[Slice, Tensor]:
    """The slice of a set, and which of its cells are in the set."""
    own = item["position"][item["real"]]
    for one in slices:
        same = (own[:, None] == one.position).all(-1)
        if same.any():
            assert (same.sum(1) == 1).all()  # positions are unique, and all are of this slice
            return one, same.int().argmax(1)
    raise AssertionError("no slice has these cells")


def kind(item: Item) -> str:
    real = item["real"]
    if item["placed"][real].all():
        return "expression"
    return "position" if item["told"][real].all() else "joint"


def test_shapes(draw: Callable, slices: list[Slice]) -> None:
    items = draw(60)
    assert len(items) == 60
    shapes = {"genes": (16, 12), "panel": (12,), "latent": (16, 4), "position": (16, 2), "around": (16, 12)}
    shapes |= {"time": (16, 2)} | dict.fromkeys(("beside", "fold", "told", "shown"), (16,))
    shapes |= dict.fromkeys(("placed", "real"), (16,))
    flags = {"beside", "told", "shown", "placed", "real"}
    for item in items:
        assert {name: tuple(value.shape) for name, value in item.items()} == shapes
        for name, value in item.items():
            wanted = torch.bool if name in flags else torch.float32
            assert value.dtype == (torch.int64 if name == "fold" else wanted), name
    batch = default_collate(items)
    assert batch["genes"].shape == (60, 16, 12)


def test_sets_are_cells_of_one_slice_each_once_and_the_rest_is_padding(draw: Callable, slices: list[Slice]) -> None:
    sizes = []
    for item in draw():
        real = item["real"]
        one, rows = rows_of(item, slices)
        sizes.append(len(rows))
        assert len(rows) == min(one.n_obs, 16)
        assert len(set(rows.tolist())) == len(rows)
        assert real[: len(rows)].all()
        for name, own in (("position", one.position), ("latent", one.latent), ("fold", one.fold)):
            assert torch.equal(item[name][real], own[rows])  # clean, whatever is hidden
        assert all((value[~real] == 0).all() for name, value in item.items() if name != "panel")
    # A slice is taken as often as it has cells.
    assert abs(np.mean(np.array(sizes) == SMALL) - SMALL / (SMALL + LARGE)) < 0.1


def test_all_cells_are_seen(draw: Callable, slices: list[Slice]) -> None:
    seen = {(one.n_obs, row) for one, rows in (rows_of(item, slices) for item in draw()) for row in rows.tolist()}
    assert seen == {(n_obs, row) for n_obs in (LARGE, SMALL) for row in range(n_obs)}


@pytest.mark.parametrize(
    ("mode", "shares"),
    [
        ("joint", {"position": 0.5, "expression": 0.4, "joint": 0.1}),
        ("expr_to_pos", {"position": 1}),
        ("pos_to_expr", {"expression": 1}),
    ],
)
def test_what_is_asked_for_follows_the_mode(draw: Callable, mode: str, shares: dict[str, float]) -> None:
    kinds = [kind(item) for item in draw(400, training_mode=mode)]
    for name in ("position", "expression", "joint"):
        share = np.mean([k == name for k in kinds])
        assert abs(share - shares.get(name, 0)) < 0.08 * (shares.get(name, 0) not in (0, 1)) + 0.02


def test_flags_go_together(draw: Callable, slices: list[Slice]) -> None:
    partly = {"panel": 0, "placed": 0, "told": 0}
    for item in draw():
        real, told, panel = item["real"], item["told"], item["panel"]
        one, rows = rows_of(item, slices)
        whole = torch.equal(panel, one.measured)
        # Expression is known of cells whose genes are all given.
        assert torch.equal(item["shown"], told if whole else torch.zeros_like(told))
        # Genes are those given of cells that are told.
        assert torch.equal(item["genes"][real], one.genes[rows] * panel * told[real][:, None])
        assert (panel <= one.measured).all()
        assert told.any() <= panel.any()
        assert ((panel == 0) | (panel == 1)).all()
        placed = item["placed"][real]
        partly["panel"] += int(told.any() and not whole)
        partly["placed"] += int(0 < placed.sum() < len(placed))
        partly["told"] += int(0 < told.sum() < real.sum())
        if kind(item) == "joint":
            assert not told.any()
            assert not placed.any()
    assert min(partly.values()) > 15


def test_neighbours_are_told_and_placed_and_never_the_cell_itself(
    draw: Callable, slices: list[Slice], make_module: Callable
) -> None:
    """Against brute force, where the whole slice is in the set and its flags are known."""
    latent_model, n_checked = make_module().latent, 0
    for item in draw(300, seed=2):
        one, rows = rows_of(item, slices)
        real, known = item["real"], item["told"] & item["placed"]
        assert not item["around"][~item["placed"]].any()  # nobody knows who is beside a cell without a place
        assert torch.equal(item["beside"], item["around"].abs().sum(-1) > 0)
        if not item["placed"][real].all():
            assert not item["around"].any()  # few cells that are placed are no neighbours
            continue
        if one.n_obs != SMALL:
            continue
        hidden_genes = not torch.equal(item["panel"], one.measured) and bool(item["told"].any())
        values = item["latent"]
        if hidden_genes:  # then the values of neighbours are what the genes given say
            values = latent_model.given(item["genes"][None], item["panel"][None])[0][0]
        distance = cdist(item["position"][real], item["position"][real])
        for i in np.flatnonzero(item["placed"][real]):
            order = [j for j in distance[i].argsort() if j != i and known[j]]
            expected = [
                values[order[:n]].mean(0) if order else torch.zeros(4)
                for n in (1, 3, 6)  # a third, as many as, and twice `n_neighbors`
            ]
            torch.testing.assert_close(item["around"][i], torch.cat(expected), atol=1e-5, rtol=1e-5)
            n_checked += bool(order)
    assert n_checked > 100


def test_neighbours_outside_of_the_set_are_read_as_well(draw: Callable) -> None:
    items = draw(100, training_mode="pos_to_expr", enable_masking=False)
    assert any(item["beside"].any() and not item["told"].any() for item in items)


def test_without_masking_nothing_is_masked(draw: Callable, slices: list[Slice]) -> None:
    for item in draw(enable_masking=False):
        one, _ = rows_of(item, slices)
        placed = item["placed"][item["real"]]
        assert placed.all() or not placed.any()
        assert torch.equal(item["panel"], one.measured) or not item["told"].any()
        assert torch.equal(item["shown"], item["told"])


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.9, 1.0])
def test_share_of_masked_genes(draw: Callable, slices: list[Slice], ratio: float) -> None:
    hidden = []
    for item in draw(400, training_mode="pos_to_expr", expression_mask_ratio=ratio):
        one, _ = rows_of(item, slices)
        if one.n_obs == LARGE and item["told"].any():
            hidden.append(1 - float(item["panel"].mean()))
    # Half of the sets hide genes: from half as many as, to one and a half times as many as the ratio.
    shares = [min(ratio * (0.5 + u), 11 / 12) for u in np.linspace(0, 1, 101)]
    masked = np.array([share for share in hidden if share > 0])
    assert 0.3 < len(masked) / len(hidden) < 0.75
    assert abs(masked.mean() - np.mean(shares)) < 0.06 + 0.05 * (ratio == 0.1)  # sets that hide none are not counted
    assert masked.max() < 1


@pytest.mark.parametrize("ratio", [0.33, 0.9, 1.0])
def test_share_of_masked_positions(draw: Callable, ratio: float) -> None:
    known = [
        float(item["placed"][item["real"]].float().mean())
        for item in draw(300, training_mode="expr_to_pos", position_mask_ratio=ratio)
    ]
    assert abs(np.mean(known) - 0.5 * (1 - ratio) / 2) < 0.04  # masked in half of the sets, from the ratio to all
    assert np.mean(np.array(known) == 0) > 0.45


def test_times(draw: Callable) -> None:
    equal, last = [], []
    for item in draw(400):
        time = item["time"][item["real"]]
        assert (time == time[0]).all()
        assert (time > 0).all()
        assert (time <= 0.9995).all()
        assert torch.allclose((time[0] * 1000).round() / 1000, time[0], atol=6e-4)
        equal.append(bool(time[0, 0] == time[0, 1])) if kind(item) == "joint" else None
        last.append(bool(time[0, 1] > 0.999)) if kind(item) == "position" else None
    assert 0.25 < np.mean(equal) < 0.75  # both noised alike in half of the sets where nothing is given
    assert 0.4 < np.mean(last) < 0.6  # expression that tells nothing in half of those that ask for positions


def test_same_seed_same_sets(draw: Callable) -> None:
    for one, again, other in zip(draw(20), draw(20), draw(20, seed=1), strict=True):
        assert all(torch.equal(one[name], again[name]) for name in one)
        assert not torch.equal(one["position"], other["position"])


def test_slices_are_left_as_they_are(draw: Callable, slices: list[Slice]) -> None:
    before = [{name: value.clone() for name, value in vars(one).items()} for one in slices]
    draw(40)
    for one, kept in zip(slices, before, strict=True):
        assert all(torch.equal(value, kept[name]) for name, value in vars(one).items())
