"""The two-stage training of VARST."""

from __future__ import annotations

import copy
import logging
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from stomics_tools import _validate
from stomics_tools._paths import user_path
from stomics_tools._random import local_seed
from stomics_tools.data import ImageSpots
from stomics_tools.model._arguments import check_call
from stomics_tools.model.var_st._folds import Folds
from stomics_tools.model.var_st._module import Stage1, Stage2
from stomics_tools.model.var_st._smooth import fit_left_out
from stomics_tools.model.var_st._stage1 import VarSTStage1, stage1_of
from stomics_tools.train import MiniBatchPlan, fit, history_tables, read_checkpoint, row_batches, yielding

logger = logging.getLogger("stomics_tools")

Stage = Literal["both", 1, 2]
_VISITS = 20_000


class VarSTTraining(VarSTStage1):
    """Training of :class:`~stomics_tools.model.VARST`, stage by stage or in one call."""

    _stage: Stage = "both"

    def train(
        self,
        max_epochs: int | None = None,
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

        A second call goes on from the weights there are, with new optimisers.

        Parameters
        ----------
        max_epochs
            Passes over the data, of each stage; by default see :meth:`train_stage1` and :meth:`train_stage2`.
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
            Arguments that both stages share, such as ``batch_size``, ``lr`` and ``early_stopping``; ``accelerator``,
            ``devices``, ``logger``, ``enable_progress_bar`` and what else :class:`lightning.pytorch.Trainer` takes.
        """
        checked: dict[str, Any] = {"max_epochs": 1, "batch_size": 1, "lr": 1.0, "weight_decay": 0.0}
        checked |= dict.fromkeys(("patience", "early_stopping", "early_stopping_patience", "clip_grad"))
        fit_kwargs["max_epochs"] = max_epochs
        for name, own in (("train_stage1", stage1), ("train_stage2", stage2)):  # both before one of them is trained
            given = {**fit_kwargs, **(own if isinstance(own, Mapping) else {})}
            check_call(type(self), name, given)
            known: dict[str, Any] = {k: v if given.get(k) is None else given[k] for k, v in checked.items()}
            self._check_stage(seed=seed, key_added=given.get("key_added", key_added), **known)
        untrained: dict[Stage, tuple[str, Any]] = {1: ("stage2", stage2), 2: ("stage1", stage1)}
        name, unused = untrained.get(self._stage, ("", None))
        if unused is not None:
            raise ValueError(f"`{name}` has no effect after `set_training_stage({self._stage})`. Leave it out.")
        shared = {"seed": seed, **fit_kwargs}
        resumed = {1: None, 2: None} if ckpt_path is None else _checkpoints(user_path(ckpt_path))
        folders = {n: None if checkpoint_dir is None else user_path(checkpoint_dir) / f"stage{n}" for n in (1, 2)}
        key_added = (stage2 or {}).get("key_added", key_added)
        # What was whole before is not given up for a half; of a new model, a first stage that is done stays.
        with self._all_or_nothing() if self.is_trained_ else nullcontext():
            if self._stage == 1 or (self._stage == "both" and resumed[2] is None):
                if isinstance(stage1, str | Path):
                    self.load_stage1(stage1, seed=seed)
                else:
                    where = {"checkpoint_dir": folders[1], "ckpt_path": resumed[1]}
                    self.train_stage1(**{**shared, **where, **(stage1 or {})})
            if self._stage in ("both", 2):
                where = {"checkpoint_dir": folders[2], "ckpt_path": resumed[2]}
                self.train_stage2(**{**shared, **where, **(stage2 or {}), "key_added": None})
        if self._stage in ("both", 2) and key_added is not None:
            self.write_results(key_added=key_added)

    def set_training_stage(self, stage: Stage) -> None:
        """Choose what :meth:`train` trains. Stage 1 is never changed by stage 2.

        Parameters
        ----------
        stage
            ``1``, ``2`` or ``"both"``.
        """
        _validate.check_option(stage, ["both", 1, 2], argument="stage")
        self._stage = stage

    @yielding()
    def train_stage1(
        self,
        *,
        max_epochs: int | None = None,
        batch_size: int = 256,
        lr: float = 2e-4,
        weight_decay: float = 1e-4,
        clip_grad: float | None = 1.0,
        patience: int | None = None,
        early_stopping: bool | None = None,
        early_stopping_patience: int | None = None,
        seed: int | None = None,
        checkpoint_dir: str | Path | None = None,
        ckpt_path: str | Path | None = None,
        **fit_kwargs: Any,
    ) -> None:
        """Train the auto-encoder of expression, on the object of setup; a second call goes on from the weights there are.

        Stage 2 then needs training as well.

        Parameters
        ----------
        max_epochs
            By default as many as show 20,000 spots to it, 10 to 150.
        batch_size, lr, weight_decay, clip_grad
            Spots of a step, largest learning rate of AdamW, its decay, and largest norm of the gradient. Stage 1 begins
            as a linear model; a rate of 1e-3 takes it away from there faster than the losses lead anywhere.
        patience
            Stop when the training loss has not fallen for so many epochs.
        early_stopping, early_stopping_patience
            The same in the words of scvi-tools: True is a `patience` of 45 epochs, or of `early_stopping_patience`.
        seed, checkpoint_dir, ckpt_path
            See :meth:`train`; checkpoints lie in `checkpoint_dir` itself.
        **fit_kwargs
            See :meth:`train`.
        """
        spots, folds = self._training_spots()
        max_epochs = _epochs(max_epochs, _VISITS // spots.n_obs, 150)
        patience = self._patience(patience, early_stopping, early_stopping_patience)
        max_epochs, seed = self._check_stage(max_epochs, batch_size, lr, weight_decay, seed, patience, clip_grad)
        meta = self._meta(
            spots, seed, 1, max_epochs=max_epochs, batch_size=batch_size, lr=lr, weight_decay=weight_decay
        )
        if ckpt_path is not None:
            self._check_resumable(read_checkpoint(ckpt_path)["stomics_tools"], meta)
        goes_on = self._stage1_trained and ckpt_path is None
        if goes_on and meta["data"] != self._trained_on:
            raise ValueError(f"The data changed since stage 1 was trained on them. Make a new {type(self).__name__}.")
        expression, counts = self._expression(spots)
        with self._all_or_nothing():
            with local_seed(seed):
                # An interrupted training leaves the networks that there are as they were.
                module = copy.deepcopy(self.module).cpu() if goes_on else self._new_module(spots, folds)
            x, measured = module.standardize(torch.as_tensor(expression))
            tensors = {"expression": x, "measured": measured}
            if self._settings.likelihood == "nb":
                assert counts is not None
                tensors["counts"] = torch.as_tensor(np.nan_to_num(counts))
            if not goes_on:
                self.history_, self._stage2_begun = {}, False
                with local_seed(seed):
                    module.stage1.initialise(x[:batch_size], measured[:batch_size])
            self.module = module
            self._stage1_trained = self.is_trained_ = False
            self._fit(
                Stage1(module),
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
        self._warn_of_codes()

    @yielding()
    def train_stage2(
        self,
        *,
        max_epochs: int | None = None,
        batch_size: int = 64,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        clip_grad: float | None = 1.0,
        patience: int | None = None,
        early_stopping: bool | None = None,
        early_stopping_patience: int | None = None,
        seed: int | None = None,
        checkpoint_dir: str | Path | None = None,
        ckpt_path: str | Path | None = None,
        key_added: str | None = "var_st",
        **fit_kwargs: Any,
    ) -> None:
        """Train the mean head and the transformer on the codes of stage 1, which stays as it is.

        A second call goes on from the weights there are.

        Parameters
        ----------
        max_epochs
            By default as many as show 20,000 spots to it, 10 to 60.
        batch_size, lr, weight_decay, clip_grad, patience, early_stopping, early_stopping_patience, seed
            See :meth:`train_stage1`.
        checkpoint_dir, ckpt_path
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
        patience = self._patience(patience, early_stopping, early_stopping_patience)
        max_epochs, seed = self._check_stage(
            max_epochs, batch_size, lr, weight_decay, seed, patience, clip_grad, key_added=key_added
        )
        meta = self._meta(
            spots, seed, 2, max_epochs=max_epochs, batch_size=batch_size, lr=lr, weight_decay=weight_decay
        )
        with self._all_or_nothing():
            if ckpt_path is not None:  # a checkpoint of stage 2 holds stage 1
                checkpoint = read_checkpoint(ckpt_path)
                self._check_resumable(checkpoint["stomics_tools"], meta)
                stage1 = stage1_of({n.removeprefix("module.networks."): t for n, t in checkpoint["state_dict"].items()})
                record = checkpoint["stomics_tools"]["stage1"]
                self._train_args, self.history_ = record["train_args"], history_tables(record["history"])
            else:
                self._require_stage1()
                if meta["data"] != self._trained_on:
                    raise ValueError(
                        f"The data changed since stage 1 was trained on them. Make a new {type(self).__name__}."
                    )
                stage1 = self._stage1_tensors()
            history = {name: table[name].tolist() for name, table in self.history_.items()}
            meta["stage1"] = {"train_args": self._train_args, "history": history}
            goes_on = self._stage2_begun and ckpt_path is None
            if goes_on:
                self.module = copy.deepcopy(self.module).cpu()
            else:
                self._build_on(stage1, spots, folds, seed)
            module = self.module
            expression = torch.as_tensor(self._expression(spots)[0])
            x, measured = module.standardize(expression)
            inputs = self._inputs(spots).rows(np.arange(spots.n_obs))
            fold = torch.as_tensor(folds.fold)
            with local_seed(seed):
                smooth, strange = fit_left_out(module.smooth, inputs, x, fold)
            if not goes_on:
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
            self.is_trained_ = self._stage2_begun = True
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
        early_stopping: bool | None = None,
        early_stopping_patience: int | None = None,
        *,
        key_added: str | None = None,
    ) -> tuple[int, int]:
        patience = self._patience(patience, early_stopping, early_stopping_patience)
        _validate.check_integer(batch_size, argument="batch_size")
        _validate.check_number(lr, argument="lr", low=0, open_low=True)
        _validate.check_number(weight_decay, argument="weight_decay", low=0)
        return self._check_training(max_epochs, seed, patience, clip_grad, key_added)

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
        earlier = {name: table for name, table in self.history_.items() if name.startswith(f"stage{number}_")}
        history = fit(plan, loader, max_epochs=max_epochs, history=earlier, **fit_kwargs)
        self.history_ = {**self.history_, **history}
        self.module.eval().to(plan.trained_on)

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
