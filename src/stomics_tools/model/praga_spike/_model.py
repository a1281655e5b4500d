"""The PRAGASpike model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from lightning.pytorch import Callback
from mudata import MuData
from torch import Tensor

from stomics_tools import _keys, _validate
from stomics_tools._params import given_arguments, plain_arguments
from stomics_tools.data import Spots
from stomics_tools.model._full_graph import optimizer_arguments
from stomics_tools.model._modalities import ModalitiesModel, check_ready_graphs, weights_by_name
from stomics_tools.model._outputs import Outputs
from stomics_tools.model.praga_spike import _results as results
from stomics_tools.model.praga_spike._closed_form import new_module, restored_module, set_self_weights
from stomics_tools.model.praga_spike._inputs import Inputs, check_sizes, prepare
from stomics_tools.model.praga_spike._module import SpikeModule
from stomics_tools.model.praga_spike._quantize import compare_forms, is_packed, packed
from stomics_tools.model.praga_spike._settings import (
    EFFECTS,
    Edges,
    Encoder,
    GraphFusion,
    Optimizer,
    Residual,
    SpikeSettings,
    WeightBits,
    early_stopping_arguments,
)
from stomics_tools.model.praga_spike._spike_stats import spike_stats
from stomics_tools.train import KeepBest, Scheduler, yielding


class PRAGASpike(ModalitiesModel):
    """Spatial domains from any number of modalities, by adaptive graphs and a quantized network of spikes.

    Every spot is predicted from the spikes of its neighbors in space and of spots with similar neighborhoods elsewhere,
    never from itself; in the end the prediction is corrected by the spot's own spikes, to the degree that these are
    signal. Features reach the latent representation as spikes alone: maps with quantized weights drive neurons, whose
    counts are summed over learned graphs; attention between spikes and a perceptron of spikes follow. Weights begin with
    the closed form of :func:`~stomics_tools.tl.spatial_components` and are trained until spots kept aside are predicted
    no better. All arrays are sparse or linear in the number of spots.

    Parameters
    ----------
    adata
        AnnData or MuData after :meth:`setup_anndata` or :meth:`setup_mudata`.
    n_latent
        Dimensions of the latent representation, ordered by spatial signal; those beyond the number of directions with
        signal are zero.
    n_spatial_neighbors
        Nearest spots of the spatial graph.
    n_feature_neighbors
        Spots of each feature graph: those with the most similar neighborhoods, 0 for none.
    n_hops
        Steps in the spatial graph over which a spot is predicted.
    edges
        ``"inductive"``: scored by the neighborhoods of both ends, for unseen tissue too; ``"free"``: one value an
        edge; ``"uniform"``: all the same.
    encoder
        Attention between the spots of a slice: ``"spike"``, that of QSD-Transformer; ``"ssa"`` (Spikformer), ``"sdt1"``,
        ``"sdt2"``, ``"sdt3"`` (Spike-driven Transformer), ``"qk_token"``, ``"qk_channel"`` (QKFormer) or ``"dssa"``
        (SpikingResformer), see :class:`~stomics_tools.nn.SpikingRowAttention`. ``"relu"`` is for comparison: ReLU in the
        place of all spikes. Others are added by :func:`~stomics_tools.model.praga_spike.register_encoder`.
    residual
        What the perceptron of a block reads: spikes of the ``"membrane"``, or the sum of spikes (``"sew"``).
    graph_fusion
        How the two graphs of a modality are fused: ``"attention"``, with weights for every spot, or ``"conv"``, a
        quantized 1 x 1 convolution with one weight a graph.
    n_layers
        Blocks of graph aggregation, attention and perceptron.
    n_heads
        Heads of the attention.
    n_levels, n_copies, n_steps
        Levels of a spike count; neurons of either sign that code a number, their thresholds staggered; time steps of the
        attentions whose neurons leak and fire.
    use_attention, attention_windows
        Whether there is attention; spatial scales among which its heads are divided (``encoder="spike"``): None for the
        slice, or a number of spots.
    weight_bits, bit_budget
        Bits of a weight: 2 to 8, ``"float"``, or ``"learned"`` for each map, within a mean budget. Maps from features to
        the first spikes and from the last spikes to features have 8.
    reparameterize
        Two linear maps a layer in training, which :meth:`quantize` folds into one.
    use_fusion
        Fusion of graphs and of modalities; without it there are no feature graphs, and modalities weigh the same.
    signal_threshold
        Least correlation of a spot and its neighbors along a direction that is kept.
    blind_fraction
        Fraction of the spots that are blind spots in each epoch: their spikes reach nobody, and they are predicted.
    layer_scale
        Factor of what a block adds to the membrane, at the beginning.
    loss_weights
        Weight of the prediction of each modality, by name or in the order of setup; by default 1 each.
    homogeneity_weight, ema_decay
        Weight of the distance between the learned graphs and their running means, and decay of these in an epoch.
    prototype_weight, temperature
        Weight of the prototype contrastive loss, 0 turns it off; and its temperature.
    n_prototypes, prototype_start, prototype_every
        Number of prototypes (by default it is found), first epoch of their loss, and epochs between two estimations.
    distill_weight
        Weight of the difference to the model of ``train(distill_from=)``.
    registry
        Record of setup of a saved model, see :meth:`load`.

    Examples
    --------
    >>> import stomics_tools as st
    >>> mdata = st.datasets.simulate_multiomics(n_obs=1000, n_domains=5)
    >>> st.pp.rna(mdata["rna"])
    >>> st.pp.protein(mdata["protein"])
    >>> st.model.PRAGASpike.setup_mudata(mdata, modalities={"rna": "X_pca", "protein": "X_protein"})
    >>> model = st.model.PRAGASpike(mdata)
    >>> model.train()
    >>> st.tl.spatial_domains(mdata, 5, use_rep="X_praga_spike")

    Notes
    -----
    Sources: :class:`~stomics_tools.model.PRAGA`; QSD-Transformer (Qiu et al., 2025) for spikes, weights and blocks;
    blind-spot prediction after Noise2Void (Krull et al., 2019).
    """

    _key = _keys.PRAGA_SPIKE
    module: SpikeModule
    _teacher: dict[str, np.ndarray] | None = None
    _stopping: dict[str, Any]

    def __init__(
        self,
        adata: AnnData | MuData | None,
        *,
        n_latent: int = 64,
        n_spatial_neighbors: int = 6,
        n_feature_neighbors: int = 20,
        n_hops: int = 3,
        edges: Edges = "inductive",
        encoder: Encoder | str = "spike",
        residual: Residual = "membrane",
        graph_fusion: GraphFusion = "attention",
        n_layers: int = 1,
        n_heads: int = 8,
        n_levels: int = 5,
        n_copies: int = 4,
        n_steps: int = 4,
        use_attention: bool = True,
        attention_windows: Sequence[int | None] = (None,),
        weight_bits: WeightBits = 4,
        bit_budget: float = 4.0,
        reparameterize: bool = False,
        use_fusion: bool = True,
        signal_threshold: float = 0.1,
        blind_fraction: float = 0.25,
        layer_scale: float = 0.01,
        loss_weights: Mapping[str, float] | Sequence[float] | None = None,
        homogeneity_weight: float = 0.1,
        ema_decay: float = 0.9,
        prototype_weight: float = 0.0,
        n_prototypes: int | None = None,
        prototype_start: int = 0,
        prototype_every: int = 10,
        temperature: float = 2.0,
        distill_weight: float = 1.0,
        registry: dict[str, Any] | None = None,
    ) -> None:
        arguments = plain_arguments(locals())
        super().__init__(adata, registry)
        self._init_arguments, self._given = arguments, given_arguments(PRAGASpike.__init__, arguments)
        settings = {field.name: arguments[field.name] for field in fields(SpikeSettings)}
        self._settings = SpikeSettings(**{**settings, "attention_windows": tuple(attention_windows)})
        weights = weights_by_name(arguments["loss_weights"], list(self._spec.modalities))
        self._loss_weights = [weight for _, weight in sorted(weights.items())]
        _validate.check_effects(self._given, self._settings, EFFECTS)
        check_ready_graphs(self._given, self._spec, feature_graphs=self._settings.has_feature_graphs)
        if self.adata is not None:
            check_sizes(self._state["sizes"], self._spec, self._settings)
        self._model_summary_string = f"PRAGASpike with modalities {list(weights)}, n_latent: {n_latent}"
        self.init_params_ = self._get_init_params(locals())

    def train(
        self,
        max_epochs: int = 100,
        *,
        lr: float = 2e-3,
        weight_decay: float = 0.0,
        optimizer: Optimizer = "adam",
        early_stopping: bool = True,
        early_stopping_patience: int = 5,
        validation_size: float = 0.1,
        clip_grad: float | None = None,
        scheduler: Scheduler | None = None,
        distill_from: PRAGASpike | None = None,
        seed: int | None = None,
        accelerator: str = "auto",
        devices: int | str | list[int] = "auto",
        checkpoint_dir: str | Path | None = None,
        checkpoint_every: int = 10,
        ckpt_path: str | Path | None = None,
        key_added: str | None = _keys.PRAGA_SPIKE,
        **trainer_kwargs: Any,
    ) -> None:
        """Train on all spots at once, then write the results into the object of setup.

        The weights of an untrained model are drawn from `seed`; a second call goes on from the weights there are, with a
        new optimiser and the defaults for what it does not name. No random state outside of the model is touched.

        Parameters
        ----------
        max_epochs, lr, weight_decay
            Steps of the optimiser, learning rate and L2 penalty.
        optimizer
            ``"adam"`` or ``"sgd"`` (momentum 0.9).
        early_stopping, early_stopping_patience, validation_size
            Keep a fraction of the spots out of the training loss, stop when their error of prediction
            (``history["validation_loss"]``) has not fallen by 0.1 % for so many epochs, and keep the weights of the best epoch; those
            that training begins with, of the closed form, count as one. The spots stay visible as neighbors. With False,
            training is on all spots and ends with the last epoch.
        clip_grad, scheduler
            Largest norm of the gradient; ``"cosine"`` or ``"plateau"`` (on the training loss).
        distill_from
            A trained model of the same data, for example a wide one in floating point, whose denoised modalities this
            one learns to predict as well.
        seed
            By default that of ``scvi.settings`` or 0: the same seed, machine and versions give the same bits on a CPU.
        accelerator, devices
            ``"auto"`` (CUDA where there is one, else CPU), ``"cpu"``, ``"gpu"``, ``"mps"``; and which device, see Lightning.
            Several are refused, since each would do the same work.
        checkpoint_dir, checkpoint_every, ckpt_path
            Folder for ``last.ckpt``, and the epochs from one to the next; checkpoint (or its folder) to go on from, to the
            result of an uninterrupted run.
        key_added
            Name of the results, see :meth:`write_results`; None writes none.
        trainer_kwargs
            ``strategy``, ``logger``, ``callbacks``, ``enable_progress_bar`` and all else of
            :class:`lightning.pytorch.Trainer`.

        Raises
        ------
        FloatingPointError, RuntimeError
            If the loss is not finite any more; if the model was quantized.
        """
        if self.is_trained_ and is_packed(self.module):
            raise RuntimeError(
                "This model was quantized for inference and cannot be trained. Make a new one, or load one that was "
                "saved before `quantize()`."
            )
        if distill_from is None and self._given.get("distill_weight") and not self.is_trained_:
            raise ValueError("`distill_weight` has no effect without a teacher. Give `distill_from=`, or leave it out.")
        if distill_from is not None and not (isinstance(distill_from, PRAGASpike) and distill_from.is_trained_):
            raise ValueError("`distill_from` must be a trained PRAGASpike.")
        made = optimizer_arguments(lr=lr, weight_decay=weight_decay, optimizer=optimizer)
        stopping = early_stopping_arguments(early_stopping, early_stopping_patience, validation_size)
        targets = None if distill_from is None else distill_from.get_denoised(self.adata)
        self._fit(
            max_epochs=max_epochs,
            seed=seed,
            patience=None,
            clip_grad=clip_grad,
            scheduler=scheduler,
            accelerator=accelerator,
            devices=devices,
            checkpoint_dir=checkpoint_dir,
            checkpoint_every=checkpoint_every,
            ckpt_path=ckpt_path,
            key_added=key_added,
            train_args={**made, **stopping},
            attributes={"_optimizer": made, "_teacher": targets, "_stopping": stopping},
            **trainer_kwargs,
        )

    def quantize(self, *, n_repeats: int = 5) -> pd.DataFrame:
        """Bring the trained network into its form for inference, with weights packed into as many bits as they have.

        Each map and its normalisation are folded into one and quantized again. The model goes on as before, but cannot be
        trained any more. Results that were written stay as they are until :meth:`write_results`.

        Parameters
        ----------
        n_repeats
            Passes of each form that are timed.

        Returns
        -------
        What this changes on this machine with the data of setup, one row a form: ``trained``; ``folded``; ``packed``, to
        which the model has changed, with the outputs of ``folded``. Columns: ``bytes`` of maps and normalisations as
        saved, ``seconds`` to the latent (median), ``max_abs_difference`` and ``relative_difference`` (2-norm) of the latent
        to that of the trained form.

        Raises
        ------
        RuntimeError, ValueError
            If the model is not trained, or was quantized before; if it has no weights to be packed.
        """
        self._require_trained()
        _validate.check_integer(n_repeats, argument="n_repeats")
        folded, result = packed(self.module)
        inputs, known = self._inputs(None)
        table = compare_forms(
            {"trained": self.module, "folded": folded, "packed": result},
            lambda module: results.latent_of(module, inputs, trained_on=known),
            n_repeats,
        )
        self.module = result
        self._train_args = {**self._train_args, "quantized": True}
        return table

    def get_prototypes(self, adata: AnnData | MuData | None = None, *, n_prototypes: int | None = None) -> np.ndarray:
        """Prototypes of the latent space, found by splits and merges, and the spots that belong to each.

        Parameters
        ----------
        adata
            The object of setup by default, or another one, see :meth:`get_latent_representation`.
        n_prototypes
            Their number; by default that of the model, else it is found.

        Returns
        -------
        Prototype ``0 ... K-1`` of every spot, the largest first, int64 ``(n_obs,)``.
        """
        self._require_trained()
        if n_prototypes is not None:
            _validate.check_integer(n_prototypes, argument="n_prototypes", minimum=2)
        inputs, known = self._inputs(adata)
        return inputs.restore(results.prototypes(self.module, inputs, trained_on=known, n_prototypes=n_prototypes))

    @yielding()
    def get_attention(
        self, indices: Sequence[int] | np.ndarray, adata: AnnData | MuData | None = None, *, layer: int = 0
    ) -> pd.DataFrame:
        """How much chosen spots read from every spot by the attention of a layer; nothing is written.

        Parameters
        ----------
        indices, layer
            Rows of the object, or a mask of them; which of the ``n_layers`` layers, from 0.
        adata
            The object of setup by default, or another one, see :meth:`get_latent_representation`.

        Returns
        -------
        float32 ``(n_query, n_obs)``, both by ``obs_names``: means over heads and time steps. Each row sums to 1, or to 0
        where no neuron fires that would read; spots of other slices and beyond a window of `attention_windows` have 0.

        Raises
        ------
        RuntimeError, ValueError
            If the model is not trained; if it has no attention, or no such layer.
        """
        self._require_trained()
        if indices is None:
            raise TypeError("`indices`: choose rows. Of all spots this would be an array of all spots by all spots.")
        names = self._data(adata).obs_names
        rows = _validate.check_indices(indices, names)
        results.check_attention(self.module, layer)
        inputs, known = self._inputs(adata)
        weights = results.attention_weights(self.module, inputs, rows, layer=layer, trained_on=known)
        return pd.DataFrame(weights, index=names[rows], columns=names)

    def spike_stats(self, adata: AnnData | MuData | None = None) -> pd.DataFrame:
        """How much the layers fire, and an estimate of the energy that it would take where spikes drive additions.

        Parameters
        ----------
        adata
            The object of setup by default, or another one, see :meth:`get_latent_representation`.

        Returns
        -------
        One row a map, sum over graphs or product of the attention that the latent passes through, and ``total``. Columns,
        the first five for each spot:

        ``firing_rate``, ``silent_fraction``, ``events``
            Of the spikes that the map reads: mean count over the largest, fraction of spots without any, mean number of
            binary events. NaN where the input is no spikes.
        ``macs``, ``synaptic_operations``
            Multiply-accumulates of the map; additions that the events set off in it.
        ``energy_estimate_mj``, ``floating_energy_estimate_mj``
            0.9 pJ a synaptic operation and 4.6 pJ a multiply-accumulate of real-valued input, in millijoule for the whole
            object; the same if every input were real-valued. Never a measurement: constants of Horowitz, Computing's energy
            problem, ISSCC 2014 (45 nm; ``attrs["estimate"]``). Normalisations, neurons and softmax are not counted.

        Raises
        ------
        RuntimeError, ValueError
            If the model is not trained; if there are no spikes (``encoder="relu"``).
        """
        self._require_trained()
        inputs, known = self._inputs(adata)
        return spike_stats(self.module, inputs, lambda: results.latent_of(self.module, inputs, trained_on=known))

    def _arguments(self) -> dict[str, Any]:
        return dict(self._init_arguments)

    @classmethod
    def _upgraded(cls, dir_path: str | Path, meta: Mapping[str, Any]) -> Mapping[str, Any]:
        arguments = dict(meta["arguments"])
        if meta["model"] == cls.__name__ and arguments.pop("preset", None) == "praga":
            raise ValueError(
                f"`dir_path`: {str(dir_path)!r} holds the published model, which an earlier version saved as PRAGASpike. "
                "Load it by `stomics_tools.model.PRAGA.load`."
            )
        if meta["model"] == cls.__name__ and "blind_fraction" not in arguments:
            raise ValueError(
                f"`dir_path`: {str(dir_path)!r} was saved by an earlier version, whose layers stood beside a closed form "
                "and not between features and results. Train a new model, or load it with the version that saved it."
            )
        return {**meta, "arguments": arguments}

    def _prepare(self, spots: Spots, *, trained_on: bool) -> Inputs:
        check_sizes(spots.sizes(), self._spec, self._settings)
        if not self.is_trained_:
            return prepare(spots, self._settings)
        moments, center_slices = self.module.moments, bool(self.module.center_slices)
        return prepare(spots, self._settings, moments=moments, center_slices=center_slices)

    def _make_module(self, inputs: Inputs) -> SpikeModule:
        return new_module(inputs, self._loss_weights, self._settings)

    def _module_of(self, tensors: Mapping[str, Tensor]) -> SpikeModule:
        return restored_module(tensors, self._loss_weights, self._settings)

    def _begin(self, module: SpikeModule, inputs: Inputs) -> list[Callback]:  # type: ignore[override]
        module.set_targets(inputs, self._teacher)
        module.validation_size = self._stopping.get("validation_size", 0.0)
        return [KeepBest(inputs, self._stopping["early_stopping_patience"])] if self._stopping["early_stopping"] else []

    def _finish(self, module: SpikeModule, inputs: Inputs) -> None:  # type: ignore[override]
        set_self_weights(module, inputs)

    def _latent(self, inputs: Inputs, *, trained_on: bool, modality: str | None, batch_size: int) -> Tensor:
        index = None if modality is None else sorted(self._spec.modalities).index(modality)
        return results.latent_of(self.module, inputs, trained_on=trained_on, modality=index, batch_size=batch_size)

    def _outputs(self, inputs: Inputs, *, trained_on: bool, batch_size: int = 8192) -> Outputs:
        names = sorted(self._spec.modalities)
        return results.outputs(self.module, inputs, names, trained_on=trained_on, batch_size=batch_size)

    def _denoised(self, inputs: Inputs, *, trained_on: bool) -> dict[str, Tensor]:
        values = self.module.decode(inputs, results.latent_of(self.module, inputs, trained_on=trained_on))
        return dict(zip(sorted(self._spec.modalities), values, strict=True))
