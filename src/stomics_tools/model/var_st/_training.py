"""The two-stage training of VARST."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from stomics_tools import _validate
from stomics_tools._random import local_seed
from stomics_tools.data import ImageSpots
from stomics_tools.model.var_st._folds import Folds
from stomics_tools.model.var_st._module import MAX_LANDMARKS, Stage1, Stage2
from stomics_tools.model.var_st._smooth import SmoothRegression, novelty
from stomics_tools.model.var_st._stage1 import VarSTStage1, stage1_of
from stomics_tools.train import MiniBatchPlan, fit, history_tables, read_checkpoint, row_batches

logger = logging.getLogger("stomics_tools")

Stage = Literal["both", 1, 2]
_VISITS = 20_000
_USUAL = 0.9
_SMOOTH = {"relative_width": 10.0, "penalty": 3.0}


class VarSTTraining(VarSTStage1):
    """Training of :class:`~stomics_tools.model.VARST`, stage by stage or in one call."""

    _stage: Stage = "both"

    def train(
        self,
        *,
        stage1: Mapping[str, Any] | str | Path | None = None,
        stage2: Mapping[str, Any] | None = None,
        seed: int | None = None,
        checkpoint_dir: str | Path | None = None,
        ckpt_path: str | Path | None = None,
        key_added: str | None = "var_st",
        **fit_kwargs: Any,
    ) -> None:
        """Train both stages, or the one that :meth:`set_training_stage` chose, and write the results.

        Parameters
        ----------
        stage1
            Arguments of :meth:`train_stage1`, such as ``{"max_epochs": 150}``; or a folder of :meth:`save_stage1`
            whose networks are taken instead of training.
        stage2
            Arguments of :meth:`train_stage2`.
        seed
            Of all random numbers, by default that of ``scvi.settings`` or 0; no global random state is touched.
        checkpoint_dir
            Folder for checkpoints, ``stage1/last.ckpt`` and ``stage2/last.ckpt``.
        ckpt_path
            Such a folder, of a run that was interrupted, to go on from; the result is that of an uninterrupted run.
        key_added
            Name of the results in the object of setup, see :meth:`~stomics_tools.model.VARST.write_results`; None for
            no results.
        **fit_kwargs
            Of both stages: ``max_epochs`` and other arguments that they share; ``accelerator``, ``devices``, ``logger``,
            ``enable_progress_bar`` and what else :class:`lightning.pytorch.Trainer` takes.
        """
        given = {**fit_kwargs, **(stage2 or {})}
        checked = {
            "max_epochs": 1,
            "batch_size": 1,
            "lr": 1.0,
            "weight_decay": 0.0,
            "patience": None,
            "clip_grad": None,
        }
        known: dict[str, Any] = {k: v if given.get(k) is None else given[k] for k, v in checked.items()}
        seed = self._check_stage(seed=seed, **known)  # before stage 1 is trained, not after
        shared = {"seed": seed, **fit_kwargs}
        resumed = {1: None, 2: None} if ckpt_path is None else _checkpoints(Path(ckpt_path))
        folders = {1: None, 2: None}
        if checkpoint_dir is not None:
            folders = {stage: Path(checkpoint_dir) / f"stage{stage}" for stage in (1, 2)}  # type: ignore[misc]
        if self._stage == 1 or (self._stage == "both" and resumed[2] is None):
            if isinstance(stage1, str | Path):
                self.load_stage1(stage1, seed=seed)
            else:
                where = {"checkpoint_dir": folders[1], "ckpt_path": resumed[1]}
                self.train_stage1(**{**shared, **where, **(stage1 or {})})
        if self._stage in ("both", 2):
            where = {"checkpoint_dir": folders[2], "ckpt_path": resumed[2]}
            self.train_stage2(**{**shared, **where, "key_added": key_added, **(stage2 or {})})

    def set_training_stage(self, stage: Stage) -> None:
        """Choose what :meth:`train` trains. Stage 1 is never changed by stage 2.

        Parameters
        ----------
        stage
            ``1``, ``2`` or ``"both"``.
        """
        _validate.check_option(stage, ["both", 1, 2], argument="stage")
        self._stage = stage

    def train_stage1(
        self,
        *,
        max_epochs: int | None = None,
        batch_size: int = 256,
        lr: float = 2e-4,
        weight_decay: float = 1e-4,
        clip_grad: float | None = 1.0,
        patience: int | None = None,
        seed: int | None = None,
        checkpoint_dir: str | Path | None = None,
        ckpt_path: str | Path | None = None,
        **fit_kwargs: Any,
    ) -> None:
        """Train the auto-encoder of expression, on the object of setup.

        Parameters
        ----------
        max_epochs
            By default as many as show 20,000 spots to it, 10 to 150.
        batch_size, lr, weight_decay, clip_grad
            Spots of a step, largest learning rate of AdamW, its decay, and largest norm of the gradient. Stage 1 begins
            as a linear model; a rate of 1e-3 takes it away from there faster than the losses lead anywhere.
        patience
            Stop when the training loss has not fallen for so many epochs.
        seed, checkpoint_dir, ckpt_path
            See :meth:`train`; checkpoints lie in `checkpoint_dir` itself.
        **fit_kwargs
            See :meth:`train`.
        """
        spots, folds = self._training_spots()
        max_epochs = _epochs(max_epochs, _VISITS // spots.n_obs, 150)
        seed = self._check_stage(max_epochs, batch_size, lr, weight_decay, seed, patience, clip_grad)
        meta = self._meta(
            spots, seed, 1, max_epochs=max_epochs, batch_size=batch_size, lr=lr, weight_decay=weight_decay
        )
        if ckpt_path is not None:
            self._check_resumable(read_checkpoint(ckpt_path)["stomics_tools"], meta)
        self._stage1_trained = self.is_trained_ = False
        self._begin(spots, folds, seed)
        expression, counts = self._expression(spots)
        x, measured = self.module.standardize(torch.as_tensor(expression))
        tensors = {"expression": x, "measured": measured}
        if self._settings.likelihood == "nb":
            assert counts is not None
            tensors["counts"] = torch.as_tensor(np.nan_to_num(counts))
        with local_seed(seed):
            self.module.stage1.initialise(x[:batch_size], measured[:batch_size])
        self._fit(
            Stage1(self.module),
            tensors,
            max_epochs,
            batch_size,
            lr,
            weight_decay,
            meta,
            seed=seed,
            patience=patience,
            clip_grad=clip_grad,
            checkpoint_dir=checkpoint_dir,
            ckpt_path=ckpt_path,
            **fit_kwargs,
        )
        self._stage1_trained = True
        self._trained_on = meta["data"]
        self._train_args = {"stage1_epochs": max_epochs, "seed": seed}
        report = self.codebook_report()
        worst = report["perplexity"] / report[["n_codes", "n_tokens"]].min(axis=1)
        if worst.min() < 0.1:
            scale = str(worst.idxmin())
            logger.warning(
                "Scale %s uses its codes poorly (perplexity %.0f of %.0f). Train stage 1 longer, or lower `n_codes`.",
                scale,
                report["perplexity"][scale],
                report["n_codes"][scale],
            )

    def train_stage2(
        self,
        *,
        max_epochs: int | None = None,
        batch_size: int = 64,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        clip_grad: float | None = 1.0,
        patience: int | None = None,
        seed: int | None = None,
        checkpoint_dir: str | Path | None = None,
        ckpt_path: str | Path | None = None,
        key_added: str | None = "var_st",
        **fit_kwargs: Any,
    ) -> None:
        """Train the mean head and the transformer, anew, on the codes of stage 1, which stays as it is.

        Parameters
        ----------
        max_epochs
            By default as many as show 20,000 spots to it, 10 to 60.
        batch_size, lr, weight_decay, clip_grad, patience, seed, checkpoint_dir, ckpt_path
            See :meth:`train_stage1`.
        key_added, **fit_kwargs
            See :meth:`train`.

        Raises
        ------
        RuntimeError
            If stage 1 is not trained.
        """
        spots, folds = self._training_spots()
        max_epochs = _epochs(max_epochs, _VISITS // spots.n_obs, 60)
        seed = self._check_stage(max_epochs, batch_size, lr, weight_decay, seed, patience, clip_grad)
        meta = self._meta(
            spots, seed, 2, max_epochs=max_epochs, batch_size=batch_size, lr=lr, weight_decay=weight_decay
        )
        if ckpt_path is not None:  # a checkpoint of stage 2 holds stage 1
            checkpoint = read_checkpoint(ckpt_path)
            self._check_resumable(checkpoint["stomics_tools"], meta)
            stage1 = stage1_of({n.removeprefix("module.networks."): t for n, t in checkpoint["state_dict"].items()})
            record = checkpoint["stomics_tools"]["stage1"]
            self._train_args, self.history_ = record["train_args"], history_tables(record["history"])
        else:
            self._require_stage1()
            if meta["data"] != self._trained_on:
                raise ValueError("The data changed since stage 1 was trained on them. Train it again.")
            stage1 = self._stage1_tensors()
            self.history_ = {name: table for name, table in self.history_.items() if name.startswith("stage1_")}
        history = {name: table[name].tolist() for name, table in self.history_.items()}
        meta["stage1"] = {"train_args": self._train_args, "history": history}
        self._build_on(stage1, spots, folds, seed)
        module = self.module
        expression = torch.as_tensor(self._expression(spots)[0])
        x, measured = module.standardize(expression)
        inputs = self._inputs(spots).rows(np.arange(spots.n_obs))
        fold = torch.as_tensor(folds.fold)
        with local_seed(seed):
            smooth, strange = self._fit_smooth(inputs, x, fold)
        module.mean.start_at_means(x, measured, fold)
        self._fit(
            Stage2(module),
            {
                "inputs": inputs,
                "expression": x,
                "measured": measured,
                "fold": fold,
                "smooth": smooth,
                "novelty": strange,
                "codes": self._codes(x, measured),
            },
            max_epochs,
            batch_size,
            lr,
            weight_decay,
            meta,
            seed=seed,
            patience=patience,
            clip_grad=clip_grad,
            checkpoint_dir=checkpoint_dir,
            ckpt_path=ckpt_path,
            **fit_kwargs,
        )
        self._weigh(inputs, x, measured, expression, smooth, strange, folds)
        self.is_trained_ = True
        self._trained_on = meta["data"]
        self._train_args = {**self._train_args, "stage2_epochs": max_epochs, "folds": folds.kind, "seed": seed}
        if key_added is not None:
            self.write_results(key_added=key_added)

    @abstractmethod
    def write_results(self, adata: Any = None, *, key_added: str | None = None) -> None:
        """Write predictions into an object."""

    def _check_stage(
        self,
        max_epochs: int,
        batch_size: int,
        lr: float,
        weight_decay: float,
        seed: int | None,
        patience: int | None,
        clip_grad: float | None,
    ) -> int:
        _validate.check_integer(batch_size, argument="batch_size")
        _validate.check_number(lr, argument="lr", low=0, open_low=True)
        _validate.check_number(weight_decay, argument="weight_decay", low=0)
        return self._check_training(max_epochs, seed, patience, clip_grad)

    def _meta(self, spots: ImageSpots, seed: int, stage: int, **how: float) -> dict[str, Any]:
        """What a resumed run must share with the interrupted one."""
        arguments = {**self._arguments(), "stage": stage, **how}
        return {"model": type(self).__name__, "arguments": arguments, "data": spots.fingerprint(), "seed": seed}

    def _fit(
        self,
        stage: Stage1 | Stage2,
        tensors: dict[str, Tensor],
        max_epochs: int,
        batch_size: int,
        lr: float,
        weight_decay: float,
        meta: dict[str, Any],
        **fit_kwargs: Any,
    ) -> None:
        loader = row_batches(tensors, min(batch_size, len(tensors["expression"])), seed=fit_kwargs["seed"])
        for parameter in self.module.stage1.parameters():
            parameter.requires_grad_(isinstance(stage, Stage1))

        def optimizer(parameters: Any) -> torch.optim.Optimizer:
            return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)

        number = 1 if isinstance(stage, Stage1) else 2
        plan = MiniBatchPlan(stage, optimizer, meta=meta, prefix=f"stage{number}_")
        history = fit(plan, loader, max_epochs=max_epochs, **fit_kwargs)
        self.history_ = {**(self.history_ if number == 2 else {}), **history}
        self.module.eval().to(plan.trained_on)

    def _fit_smooth(self, inputs: Tensor, x: Tensor, fold: Tensor) -> tuple[Tensor, Tensor]:
        """Fit the smooth regression.

        Returns
        -------
        What one fitted to the other folds says of each fold, ``(n_obs, n_genes)``, and how strange its spots are to
        that one, ``(n_obs, 1)``: nine of ten are not.
        """
        regression = self.module.smooth
        regression.fit(inputs, x, **_SMOOTH)
        left_out, distance = torch.empty_like(x), torch.empty(len(x))
        for number in range(int(fold.max()) + 1):
            here = fold == number
            other = SmoothRegression(min(MAX_LANDMARKS, int((~here).sum())), inputs.shape[1], x.shape[1])
            other.fit(inputs[~here], x[~here], **_SMOOTH)
            blocks = inputs[here].split(1024)
            left_out[here] = torch.cat([other(block) for block in blocks])
            distance[here] = torch.cat([other.distance(block) for block in blocks])
        regression.usual_distance.copy_(distance.quantile(_USUAL).clamp(min=1e-6))
        return left_out, novelty(distance, regression.usual_distance)

    @torch.no_grad()
    def _weigh(
        self,
        inputs: Tensor,
        x: Tensor,
        measured: Tensor,
        expression: Tensor,
        smooth: Tensor,
        strange: Tensor,
        folds: Folds,
    ) -> None:
        """Share of the smooth regression in the mean, by least squares on spots left out, and what is left then."""
        device, module = self.device, self.module.cpu()
        fold = torch.as_tensor(folds.fold)
        heads = [module.mean.left_out(a, b) for a, b in zip(inputs.split(1024), fold.split(1024), strict=True)]
        base = torch.lerp(torch.cat(heads), smooth, strange)
        step = (smooth - base) * measured
        share = ((x - base) * step).sum() / step.square().sum().clamp(min=1e-12)
        module.smooth_share.copy_(share.clamp(0, 1))
        expected = module.restore(torch.lerp(base, smooth, module.smooth_share))
        module.residuals.fit((expression - expected).numpy(), folds.group)
        module.to(device)


def _epochs(given: int | None, suggested: int, most: int) -> int:
    return given if given is not None else min(max(suggested, 10), most)


def _checkpoints(folder: Path) -> dict[int, Path | None]:
    """Checkpoints of an interrupted run, by stage."""
    found = {stage: folder / f"stage{stage}" for stage in (1, 2)}
    there: dict[int, Path | None] = {
        stage: path if (path / "last.ckpt").is_file() else None for stage, path in found.items()
    }
    if there[1] is None and there[2] is None:
        raise FileNotFoundError(f"`ckpt_path`: no stage1/last.ckpt or stage2/last.ckpt in {str(folder)!r}.")
    return there
