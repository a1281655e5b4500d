"""A model whose work is done by one of two methods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stomics_tools.data import Spots
from stomics_tools.model._modalities import ModalitiesModel
from stomics_tools.model._outputs import Outputs
from stomics_tools.model.praga_spike._published import Published
from stomics_tools.model.praga_spike._settings import PragaSettings
from stomics_tools.model.praga_spike._spike_module import SpikeModule
from stomics_tools.model.praga_spike._spike_settings import SpikeSettings
from stomics_tools.model.praga_spike._spiking import Spiking


class MethodModel(ModalitiesModel):
    """What the base class asks of a model, answered by its method: the published or the spike-driven one."""

    _method: Published | Spiking
    _settings: PragaSettings | SpikeSettings
    _optimizer: dict[str, Any]
    _teacher: dict[str, np.ndarray] | None = None

    def _prepare(self, spots: Spots, *, trained_on: bool) -> Any:
        self._method.check_sizes(spots)
        return self._method.prepare(spots, self.module if self.is_trained_ else None, trained_on)  # type: ignore[arg-type]

    def _make_module(self, inputs: Any) -> nn.Module:
        return self._method.make_module(inputs)

    def _module_of(self, tensors: Mapping[str, Tensor]) -> nn.Module:
        return self._method.module_of(tensors)

    def _begin(self, module: nn.Module, inputs: Any) -> None:
        if isinstance(module, SpikeModule):
            module.set_targets(inputs, self._teacher)

    def _finish(self, module: nn.Module, inputs: Any) -> None:
        self._method.finish(module, inputs)  # type: ignore[arg-type]

    def _make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        given = dict(self._optimizer)
        if given.pop("optimizer") == "sgd":
            return torch.optim.SGD(parameters, momentum=0.9, **given)
        return torch.optim.Adam(parameters, **given)

    def _latent(self, inputs: Any, *, trained_on: bool, modality: str | None, batch_size: int) -> Tensor:
        index = None if modality is None else sorted(self._spec.modalities).index(modality)
        return self._method.latent(self.module, inputs, trained_on, index, batch_size)  # type: ignore[arg-type]

    def _outputs(self, inputs: Any, *, trained_on: bool, batch_size: int = 8192) -> Outputs:
        return self._method.outputs(self.module, inputs, trained_on, batch_size)  # type: ignore[arg-type]

    def _denoised(self, inputs: Any, *, trained_on: bool) -> dict[str, Tensor]:
        values = self._method.denoised(self.module, inputs, trained_on)  # type: ignore[arg-type]
        return dict(zip(sorted(self._spec.modalities), values, strict=True))
