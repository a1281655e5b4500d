"""What a trained spike-driven model offers beside its latent representation."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from stomics_tools import _validate
from stomics_tools.model.praga_spike._methods import MethodModel
from stomics_tools.model.praga_spike._published import Published
from stomics_tools.model.praga_spike._spiking import Spiking


class AfterTraining(MethodModel):
    """Prototypes, spike statistics, the share of the layers and the quantized form."""

    @property
    def layer_share(self) -> float:
        """How much the layers count, from 0 to 1: the share by which spots held out from training are predicted best.

        0 says that the layers have learned nothing that holds for other spots, and the latent representation is that
        of graphs and fusion alone.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If there are no layers: ``preset="praga"`` or ``n_layers=0``.
        """
        self._require_trained()
        self._spiking_method("layer_share")
        if not len(self.module.layers):  # type: ignore[arg-type]
            raise ValueError("`layer_share` is for a model with layers, and this one was made with `n_layers=0`.")
        return float(self.module.layer_share)  # type: ignore[arg-type]

    def quantize(self, *, n_repeats: int = 5) -> pd.DataFrame:
        """Bring the trained layers into their form for inference, with weights packed into as many bits as they have.

        Each linear map of the layers and its normalisations are folded into one and quantized again; learned widths
        become fixed. The model goes on as before, but cannot be trained any more. Results that were written stay as
        they are until :meth:`write_results`.

        Parameters
        ----------
        n_repeats
            Forward passes of the layers to be timed, for each form.

        Returns
        -------
        What this changes, as measured on this machine with the data of setup, one row a form of the layers:
        ``trained``; ``folded``; ``packed``, to which the model has changed, with the outputs of ``folded``; and
        ``bf16`` for comparison, folded into bfloat16 instead. Columns: ``bytes`` of all parameters and buffers of the
        layers, ``seconds`` of their forward pass (median), and ``max_abs_difference`` and ``relative_difference`` (2-norm)
        of the latent representation to that of the trained form, the layers counting in full (:attr:`layer_share` 1).

        Raises
        ------
        RuntimeError
            If the model is not trained, or was quantized before.
        ValueError
            If there are no weights to be packed: ``preset="praga"``, ``weight_bits="float"`` or ``n_layers=0``.
        """
        self._require_trained()
        _validate.check_integer(n_repeats, argument="n_repeats")
        method = self._spiking_method("quantize")
        inputs, known = self._inputs(None)
        table = method.quantize(self.module, inputs, known, n_repeats)  # type: ignore[arg-type]
        self._train_args = {**self._train_args, "quantized": True}
        return table

    def get_prototypes(self, adata: AnnData | MuData | None = None, *, n_prototypes: int | None = None) -> np.ndarray:
        """Prototypes of the latent space, found by splits and merges, and the spots that belong to each.

        Parameters
        ----------
        adata
            The object of setup by default, or another one, see :meth:`get_latent_representation`.
        n_prototypes
            Their number; by default that of the model, and if it has none, the number is found.

        Returns
        -------
        Prototype ``0 ... K-1`` of every spot, the largest first, int64 ``(n_obs,)``.
        """
        if n_prototypes is not None:
            _validate.check_integer(n_prototypes, argument="n_prototypes", minimum=2)
        method = self._spiking_method("get_prototypes")
        inputs, known = self._inputs(adata)
        return inputs.restore(method.prototypes(self.module, inputs, known, n_prototypes))  # type: ignore[arg-type]

    def spike_stats(self, adata: AnnData | MuData | None = None) -> pd.DataFrame:
        """How much the layers fire, and an estimate of the energy that it would take where spikes drive additions.

        Parameters
        ----------
        adata
            The object of setup by default, or another one, see :meth:`get_latent_representation`.

        Returns
        -------
        One row a spike function of the layers, one a map whose input is real-valued, and ``total``. Columns, the first
        five for each spot:

        ``firing_rate``, ``silent_share``, ``events``
            Mean count over the largest count, or share of the time steps in which a neuron fires; share of spots without
            any event; mean number of binary events.
        ``macs``
            Multiply-accumulates of the linear maps behind it, as folded, in floating point.
        ``synaptic_operations``
            Additions that its events set off there: firing rate x steps x ``macs``.
        ``energy_estimate_mj``
            0.9 pJ a synaptic operation and 4.6 pJ a multiply-accumulate of a map of real-valued input, in millijoule
            for the whole object; it is never a measurement.
        ``floating_energy_estimate_mj``
            The same if every map were of floating point.

        Counted is what leads to the membrane after the layers; normalisations, activations, softmax and the
        correction by a spot's own values are not. ``attrs["estimate"]`` names the source of the constants.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If there are no spikes: ``preset="praga"``, ``encoder="relu"`` or ``"linear"``, or ``n_layers=0``.

        Notes
        -----
        Source: Horowitz, Computing's energy problem, ISSCC 2014 (32-bit floating point at 45 nm), in the convention
        of spiking transformers.
        """
        self._require_trained()
        method = self._spiking_method("spike_stats")
        inputs, known = self._inputs(adata)
        return method.spike_stats(self.module, inputs, known)  # type: ignore[arg-type]

    def _spiking_method(self, name: str) -> Spiking:
        if isinstance(self._method, Published):
            raise ValueError(f"`{name}` is for the spike-driven model; `preset='praga'` has no spiking layers.")
        return self._method
