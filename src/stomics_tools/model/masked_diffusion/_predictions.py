"""What a trained MaskedDiffusion says of cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from anndata import AnnData

from stomics_tools import _validate
from stomics_tools.model.masked_diffusion._drawing import Drawing, Given, How
from stomics_tools.model.masked_diffusion._preparation import normalized
from stomics_tools.model.masked_diffusion._queries import MaskedDiffusionQueries
from stomics_tools.model.masked_diffusion._sampler import Sampler
from stomics_tools.model.masked_diffusion._settings import Mode
from stomics_tools.train import yielding

Estimate = Literal["layout", "mean"]
_FEWEST_LANDMARKS = 3
_TEMPERATURE = 0.1


class Consensus(NamedTuple):
    """Positions ``(n_obs, d)`` that draws agree on, and how far draws scatter ``(n_obs,)``.

    ``dispersion`` is the root mean square distance of the draws of a cell to the mean of these draws, in the unit of the
    coordinates: 0 for landmarks, and for a single draw.
    """

    position: np.ndarray
    dispersion: np.ndarray


class MaskedDiffusionPredictions(MaskedDiffusionQueries):
    """Predictions of :class:`~stomics_tools.model.MaskedDiffusion`."""

    @property
    def gene_names(self) -> list[str]:
        """Genes in the order of training."""
        return list(self._state["gene_names"])

    @yielding()
    def sample(
        self,
        adata: AnnData | None = None,
        *,
        mode: Mode,
        n_samples: int = 1,
        n_steps: int = 20,
        n_cells: int | None = None,
        landmarks: np.ndarray | str | None = None,
        hidden: np.ndarray | str | None = None,
        sampler: Sampler = "dpm++",
        temperature: float | None = None,
        guidance: float = 0.0,
        seed: int = 0,
    ) -> np.ndarray | dict[str, np.ndarray]:
        """Draw positions given expression, expression given positions, or both; nothing is written.

        Parameters
        ----------
        adata
            The object of setup by default, or another one. Genes of training that it lacks are not given, others are
            left out. Slices by the `batch_key` of setup are drawn one by one. Not used by ``"joint"``.
        mode
            ``"expr_to_pos"``: positions of cells, given their genes; coordinates are read of landmarks only.
            ``"pos_to_expr"``: expression of cells, given where they are and the expression of the others.
            ``"joint"``: `n_cells` new cells, positions and expression.
        n_samples
            Draws.
        n_steps
            Passes through the network a draw.
        n_cells
            Cells of a draw of ``"joint"``.
        landmarks
            Cells whose positions are known, a mask ``(n_obs,)`` or the name of a boolean ``obs`` column: at least 3 in a
            slice. Positions then come in the frame of the slice; otherwise centred at 0 in that of training, in the
            mean size of a slice.
        hidden
            Cells whose expression is asked for by ``"pos_to_expr"``, likewise; by default those whose expression is NaN.
            The expression of the others is given.
        sampler
            ``"dpm++"``, ``"ddim"`` or ``"ancestral"``, compared in :doc:`/benchmarks`.
        temperature
            Of positions. At 1 draws are those of the model: each cell lies as far off as the model is unsure of it, so
            that draws tell uncertainty, but little of the order of a tissue is left where genes say little. Below, cells lie
            around the layout of :meth:`consensus`, the square of that distance multiplied by it, and are spread to the density
            of the tissue of training, which makes layouts as near the truth as positions of that density can be. By default
            0.1; with landmarks 1, and nothing else, as the outline is then that of a slice of which only these are known.
        guidance
            How much more what is given counts than it would: ``1 + guidance`` times what the network says with it less
            `guidance` times what it says without it (Ho & Salimans 2021), in twice the time. Of models trained for all modes,
            not for ``"joint"``.
        seed
            Same seed and order of cells, same draws.

        Returns
        -------
        ``"expr_to_pos"``: positions float32 ``(n_obs, d)``, in the units of the coordinates of training; of more than one
        draw ``(n_samples, n_obs, d)``, all in the same pose. ``"pos_to_expr"``: expression float32 ``(n_obs, n_genes)`` or
        ``(n_samples, n_obs, n_genes)`` in the order of :attr:`gene_names` and the units of training, as given where
        it is not hidden. ``"joint"``: a dict of both, ``"position"`` and ``"expression"``.

        Raises
        ------
        ValueError
            If the model was not trained for `mode`, or something that it needs is not there.
        """
        self._check_mode(mode)
        _validate.check_integer(n_samples, argument="n_samples")
        _validate.check_integer(n_steps, argument="n_steps")
        _validate.check_option(sampler, Sampler.__args__, argument="sampler")  # type: ignore[attr-defined]
        generator = torch.Generator().manual_seed(_validate.check_integer(seed, argument="seed", minimum=0))
        for name, value, of in (
            ("n_cells", n_cells, "joint"),
            ("landmarks", landmarks, "expr_to_pos"),
            ("hidden", hidden, "pos_to_expr"),
            ("temperature", temperature, "expr_to_pos"),
        ):
            if value is not None and mode != of:
                raise ValueError(f"`{name}` is of `mode={of!r}`, found {mode!r}. Leave it out.")
        _validate.check_number(guidance, argument="guidance", low=0, high=100)
        if guidance > 0 and (mode == "joint" or self._settings.training_mode != "joint"):
            raise ValueError(
                "`guidance` needs a model of `training_mode='joint'` and another `mode` than 'joint': "
                f"found {self._settings.training_mode!r} and {mode!r}. Leave it out."
            )
        if mode == "joint":
            return self._joint(n_cells, n_samples, How(n_steps, sampler), generator)
        if mode == "expr_to_pos":
            how = How(n_steps, sampler, expression=False, guidance=guidance)
            warmth = _temperature(temperature, landmarks)
            draws = self._positions(adata, landmarks, how, lambda d: d.layout(generator, warmth), n_samples)
        else:
            how = How(n_steps, sampler, position=False, guidance=guidance)
            draws = np.stack([self._hidden_expression(adata, hidden, how, generator) for _ in range(n_samples)])
        return draws[0] if n_samples == 1 else draws

    @yielding()
    def consensus(
        self,
        adata: AnnData | None = None,
        *,
        n_samples: int = 8,
        n_steps: int = 20,
        landmarks: np.ndarray | str | None = None,
        sampler: Sampler = "dpm++",
        estimate: Estimate | None = None,
        seed: int = 0,
    ) -> Consensus:
        """Positions that draws agree on, and the scatter of draws around them. Nothing is written.

        They are nearer the truth than a draw, and lie closer together than cells do: see :meth:`sample` for layouts as
        large as tissue is.

        Parameters
        ----------
        adata, n_steps, landmarks, sampler, seed
            See :meth:`sample`.
        estimate
            ``"layout"``, the default without landmarks: cells lie at the distances from one another that are to be
            expected, near ones above all. Two sides of a tissue that genes do not tell apart come to lie on one another.
            ``"mean"``, the default with landmarks: every cell lies at the mean of all draws there could be, between two
            such sides. It has the smallest squared error in the frame of the slice.
        n_samples
            Draws for the scatter, at temperature 1: it is the doubt of the model, not the scatter of layouts. At least 2,
            or there is none.
        """
        self._check_mode("expr_to_pos")
        _validate.check_integer(n_samples, argument="n_samples")
        how = How(_validate.check_integer(n_steps, argument="n_steps"), sampler, expression=False)
        _validate.check_integer(seed, argument="seed", minimum=0)
        generator = torch.Generator().manual_seed(seed)
        kind = _estimate(estimate, landmarks)
        draws = self.sample(
            adata,
            mode="expr_to_pos",
            n_samples=n_samples,
            n_steps=n_steps,
            landmarks=landmarks,
            sampler=sampler,
            temperature=1.0,
            seed=seed,
        )
        assert isinstance(draws, np.ndarray)
        draws = (draws[None] if n_samples == 1 else draws).astype(np.float64)  # landmarks then scatter by exactly 0
        scatter = np.sqrt(np.square(draws - draws.mean(axis=0)).sum(axis=2).mean(axis=0))
        if kind == "layout":
            position = self._positions(adata, None, how, lambda drawing: drawing.expected_layout)[0]
        else:
            position = self._positions(adata, landmarks, how, lambda drawing: drawing.expect(generator)[0])[0]
        return Consensus(position, scatter.astype(np.float32))

    @yielding()
    def impute(
        self,
        adata: AnnData | None = None,
        *,
        hidden: np.ndarray | str | None = None,
        use_positions: bool = True,
        seed: int = 0,
    ) -> np.ndarray:
        """Expression expected of genes that were not measured, or of cells without expression; nothing is written.

        Parameters
        ----------
        adata
            The object of setup by default, or another one. Genes of training that it lacks, or that are NaN, are asked for.
        hidden
            See :meth:`sample`: cells whose expression is asked for.
        use_positions
            Whether positions are read; without them, cells are judged by their own genes.
        seed
            Of the noise.

        Returns
        -------
        float32 ``(n_obs, n_genes)`` in the order of :attr:`gene_names` and the units of training; measured values as they are.
        """
        self._check_mode("pos_to_expr")
        generator = torch.Generator().manual_seed(_validate.check_integer(seed, argument="seed", minimum=0))
        how = How(position=False)
        return self._hidden_expression(adata, hidden, how, generator, expected=True, positions=use_positions)

    @yielding()
    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        use_positions: bool = True,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Embedding of every cell among the others: the last tokens of the network without noise; nothing is written.

        Parameters
        ----------
        adata
            The object of setup by default, or another one.
        indices
            Rows of the object that are wanted, by default all. The others are read all the same, as neighbours of these.
        use_positions
            Whether positions are read.
        batch_size
            Cells that the network sees at a time, by default `n_window`. Only these are among one another, so that the
            result depends on it.

        Returns
        -------
        float32 ``(n_obs, width)``.
        """
        self._require_trained()
        if batch_size is not None:
            _validate.check_integer(batch_size, argument="batch_size")
        wanted = _validate.check_indices(indices, self._data(adata).obs_names)
        cells = self._read(adata, coordinates=use_positions)
        result = np.zeros((cells.n_obs, self._settings.width), dtype=np.float32)
        nobody = np.zeros(cells.n_obs, dtype=bool)
        for rows, given, _ in self._given(cells, ~nobody if use_positions else nobody, nobody):
            for part, tokens in Drawing(self.module, given, How()).tokens(batch_size):
                result[rows[part.numpy()]] = tokens.numpy()
        return result[wanted]

    # ------------------------------------------------------------------ parts

    def _positions(
        self,
        adata: AnnData | None,
        landmarks: np.ndarray | str | None,
        how: How,
        found_by: Callable[[Drawing], torch.Tensor],
        n_times: int = 1,
    ) -> np.ndarray:
        """What `found_by` says of the cells of each slice ``(n, d)``, as coordinates ``(n_times, n_obs, d)``."""
        known = self._mask(adata, landmarks, "landmarks")
        cells = self._read(adata, coordinates=known if known is not None and known.any() else False)
        placed = np.zeros(cells.n_obs, dtype=bool) if known is None else known
        if known is not None:
            for rows, name in zip(cells.rows(), cells.batch_names, strict=True):
                if known[rows].sum() < _FEWEST_LANDMARKS:
                    raise ValueError(
                        f"`landmarks`: slice {name!r} has {int(known[rows].sum())}, at least {_FEWEST_LANDMARKS} are "
                        "needed to tell where and how large it is."
                    )
        nobody = np.zeros(cells.n_obs, dtype=bool)
        slices = []
        for rows, given, frame in self._given(cells, placed, nobody):
            if not given.told.all():
                raise ValueError(
                    f"`layer`: {int((~given.told).sum())} cells have no expression (all NaN), by which they are placed."
                )
            slices.append((rows, frame, Drawing(self.module, given, how)))
        result = np.empty((n_times, cells.n_obs, self._state["n_dims"]), dtype=np.float32)
        for positions in result:
            for rows, frame, drawing in slices:
                positions[rows] = frame.leave(found_by(drawing).numpy())
        if cells.coordinates is not None:
            result[:, placed] = cells.coordinates[placed]  # without what rounding did to them
        return result

    def _hidden_expression(
        self,
        adata: AnnData | None,
        hidden: np.ndarray | str | None,
        how: How,
        generator: torch.Generator,
        *,
        expected: bool = False,
        positions: bool = True,
    ) -> np.ndarray:
        asked = self._mask(adata, hidden, "hidden")
        cells = self._read(adata, coordinates=positions)
        nobody = np.zeros(cells.n_obs, dtype=bool)
        missing = np.isnan(cells.expression)
        unseen = missing.all(axis=1) if asked is None else asked | missing.all(axis=1)
        if not (unseen.any() or missing.any()):
            raise ValueError(
                "Nothing is asked for: all genes of training were measured in all cells. Name cells by `hidden`, or set "
                "what is to be predicted to NaN."
            )
        result = normalized(cells, self._state).copy()
        for rows, given, _ in self._given(cells, ~nobody if positions else nobody, unseen):
            drawing = Drawing(self.module, given, how)
            latent = (drawing.expect(generator) if expected else drawing.draw(generator))[1]
            partly = given.told & ~given.shown
            if partly.any():
                told = given.latent[partly]
                alike = self.module.retrieved(told.to(self.device), given.panel.to(self.device)).cpu()
                latent[partly] += alike - told
            open_ = missing[rows] | unseen[rows, None]
            result[rows] = np.where(open_, self._decoded(latent), result[rows])
        return result

    def _joint(
        self, n_cells: int | None, n_samples: int, how: How, generator: torch.Generator
    ) -> dict[str, np.ndarray]:
        if n_cells is None:
            raise ValueError("`mode='joint'` draws new cells: name `n_cells`.")
        n, n_dims = _validate.check_integer(n_cells, argument="n_cells", minimum=2), self._state["n_dims"]
        n_genes, n_latent = len(self._state["gene_names"]), len(self.module.latent.variance)
        nobody = torch.zeros(n, dtype=torch.bool)
        given = Given(
            torch.zeros(n, n_genes),
            torch.zeros(n_genes),
            nobody,
            torch.zeros(n, n_latent),
            nobody,
            torch.zeros(n, n_dims),
            nobody,
            None,
        )
        position, expression = [], []
        for _ in range(n_samples):
            drawn = Drawing(self.module, given, how).draw(generator)
            position.append((drawn[0] * self.module.unit.cpu()).numpy())
            expression.append(self._decoded(drawn[1]))
        first = n_samples == 1
        return {
            "position": position[0] if first else np.stack(position),
            "expression": expression[0] if first else np.stack(expression),
        }


def _temperature(asked: float | None, landmarks: np.ndarray | str | None) -> float:
    if asked is None:
        return _TEMPERATURE if landmarks is None else 1.0
    found = _validate.check_number(asked, argument="temperature", low=0, high=1)
    if found < 1 and landmarks is not None:
        raise ValueError(f"`temperature` is {found}: with `landmarks` it must be 1. Leave it out.")
    return found


def _estimate(asked: Estimate | None, landmarks: np.ndarray | str | None) -> Estimate:
    if asked is None:
        return "layout" if landmarks is None else "mean"
    _validate.check_option(asked, Estimate.__args__, argument="estimate")  # type: ignore[attr-defined]
    if asked == "layout" and landmarks is not None:
        raise ValueError("`estimate` is 'layout': with `landmarks` it must be 'mean'. Leave it out.")
    return asked
