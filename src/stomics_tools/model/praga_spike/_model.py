"""The PRAGASpike model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData
from mudata import MuData

from stomics_tools import _validate
from stomics_tools._params import plain_arguments
from stomics_tools.model.praga_spike._after_training import AfterTraining
from stomics_tools.model.praga_spike._compress import is_packed
from stomics_tools.model.praga_spike._presets import resolve
from stomics_tools.model.praga_spike._published import Published
from stomics_tools.model.praga_spike._settings import FeatureWeights, Optimizer, PragaSettings
from stomics_tools.model.praga_spike._spike_settings import Edges, Encoder, SpikeSettings, WeightBits
from stomics_tools.model.praga_spike._spiking import Spiking
from stomics_tools.train import Scheduler


class PRAGASpike(AfterTraining):
    """Spatial domains from any number of modalities, by an adaptive graph and a quantized spike-driven encoder.

    The model predicts every spot from its neighbours in space and from spots with like neighbourhoods elsewhere, never
    from itself, and so learns which neighbours and modalities tell of the tissue. Directions in feature space are those
    of a closed-form solution (canonical correlation of spots and neighbours); graphs, fusion and layers begin there and
    are trained, and the layers count as far as they help on spots held out (:attr:`layer_share`). In the end each spot's prediction is corrected by its own values, to the degree that these
    are signal. All arrays are sparse or linear in the number of spots.

    Parameters
    ----------
    adata
        AnnData or MuData after :meth:`setup_anndata` or :meth:`setup_mudata`.
    preset
        None; ``"enhanced"``, the same with the published settings of training (1,000 epochs of learning rate 1e-4,
        plateau schedule, patience 50, gradient clipping); or ``"praga"``, the published PRAGA with its settings for
        `data_type`, exactly.
    data_type
        Technology whose published settings ``preset="praga"`` takes: ``"10x"``, ``"spots"``, ``"stereo"``,
        ``"epigenome"`` or ``"simulation"``.
    n_latent
        Dimensions of the latent representation. The default model orders them by spatial signal; those beyond the
        number of directions with signal are zero.
    n_spatial_neighbors
        Nearest spots of the spatial graph.
    n_feature_neighbors
        Spots of each feature graph: those with the most similar neighbourhoods, 0 for none; of ``preset="praga"`` the
        most similar spots themselves.
    n_hops
        Steps in the spatial graph over which a spot is predicted.
    edges
        ``"inductive"``: scored by the neighbourhoods of both ends, for unseen tissue too; ``"free"``: one value an
        edge; ``"uniform"``: all alike.
    encoder
        ``"spike"``, ``"relu"`` or ``"linear"``: what stands between the linear maps of a layer. ``"spikformer"``: layers
        of a spiking transformer in their place, with neurons that leak and fire over `n_steps` time steps and the
        attention of Spikformer, linear in the number of spots; the graph aggregation stays beside it. Others can be
        added by :func:`~stomics_tools.model.praga_spike.register_encoder`.
    n_layers
        Layers of graph aggregation and attention; 0 leaves the graphs and the fusion. On single slices of some
        thousand spots they earn next to nothing, see :attr:`layer_share`.
    n_heads
        Heads of the attention.
    n_levels
        Levels of a spike; not of ``encoder="spikformer"``, where a neuron fires or does not.
    n_steps
        Time steps of ``encoder="spikformer"``, 4 by default.
    use_attention
        Attention over all spots of a slice beside the graph aggregation; a linear encoder has none.
    attention_windows
        Spatial scales among which the heads are divided: None for the slice, or a number of spots. Not of
        ``encoder="spikformer"``, whose heads attend to the slice.
    weight_bits
        Bits of a weight of the layers: 2 to 8, ``"learned"`` for each layer, or ``"float"``.
    bit_budget
        Mean bits of a weight that ``weight_bits="learned"`` may spend.
    reparameterize
        Two linear maps a layer in training, which :meth:`quantize` folds into one. Not of ``encoder="spikformer"``.
    use_fusion
        Attention over graphs and modalities; without it there are no feature graphs, and modalities weigh the same.
    signal_threshold
        Least correlation of a spot and its neighbours along a direction that is kept.
    hidden_share
        Share of the spots that is hidden and predicted in each epoch.
    layer_scale
        Share of a layer's outcome that is added to the membrane, at the beginning.
    loss_weights
        Weight of the reconstruction of each modality: by name, or in the order of the modalities of setup.
    homogeneity_weight
        Weight of the distance between the learned graphs and their running means.
    ema_decay
        Decay of that running mean, an epoch.
    prototype_weight
        Weight of the prototype contrastive loss; 0 turns it off.
    n_prototypes
        Number of prototypes; by default it is found, and of ``preset="praga"`` the published one.
    prototype_start
        First epoch of the prototype loss.
    prototype_every
        Epochs between two estimations of the prototypes.
    temperature
        Of the contrastive loss.
    distill_weight
        Weight of the difference to the model of ``train(distill_from=)``.
    feature_weights
        Of ``preset="praga"``: edge weights that the feature graphs start from, ``"similarity"``, ``"distance"`` or
        ``"connectivity"``.
    standardize
        Of ``preset="praga"``: center every feature and scale each modality as a whole to unit variance, as the default
        model always does.
    registry
        Record of setup of a saved model, see :meth:`load`.

    Arguments that are None take the value of the preset.

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
    Sources: PRAGA, arXiv 2409.12728, and the code published with it; QSD-Transformer (Qiu et al., 2025) for the
    spike-driven layers; Spikformer (Zhou et al., 2023) for ``encoder="spikformer"``; blind-spot prediction after
    Noise2Void (Krull et al., 2019).
    """

    _key = "praga_spike"

    def __init__(
        self,
        adata: AnnData | MuData | None,
        *,
        preset: str | None = None,
        data_type: str = "10x",
        n_latent: int | None = None,
        n_spatial_neighbors: int | None = None,
        n_feature_neighbors: int | None = None,
        n_hops: int | None = None,
        edges: Edges | None = None,
        encoder: Encoder | None = None,
        n_layers: int | None = None,
        n_heads: int | None = None,
        n_levels: int | None = None,
        n_steps: int | None = None,
        use_attention: bool | None = None,
        attention_windows: Sequence[int | None] | None = None,
        weight_bits: WeightBits | None = None,
        bit_budget: float | None = None,
        reparameterize: bool | None = None,
        use_fusion: bool | None = None,
        signal_threshold: float | None = None,
        hidden_share: float | None = None,
        layer_scale: float | None = None,
        loss_weights: Mapping[str, float] | Sequence[float] | None = None,
        homogeneity_weight: float | None = None,
        ema_decay: float | None = None,
        prototype_weight: float | None = None,
        n_prototypes: int | None = None,
        prototype_start: int | None = None,
        prototype_every: int | None = None,
        temperature: float | None = None,
        distill_weight: float | None = None,
        feature_weights: FeatureWeights | None = None,
        standardize: bool | None = None,
        registry: dict[str, Any] | None = None,
    ) -> None:
        arguments = plain_arguments(locals())
        super().__init__(adata, registry)
        names = list(self._spec.modalities)
        if loss_weights is not None:
            arguments["loss_weights"] = _in_order(arguments["loss_weights"], names)
        if attention_windows is not None:
            arguments["attention_windows"] = tuple(arguments["attention_windows"])
        self._init_arguments = {k: v for k, v in arguments.items() if v is not None}
        self._settings = resolve(**arguments)
        _validate.check_effects(
            {**arguments, "feature_graph_keys": self._spec.feature_graph_keys},
            (self._spec, self._settings),
            _GRAPH_EFFECTS,
        )
        weights = {name: self._settings.weight_of(i) for i, name in enumerate(names)}
        kind = Published if isinstance(self._settings, PragaSettings) else Spiking
        self._method = kind(self._settings, sorted(names), [weights[n] for n in sorted(names)])  # type: ignore[arg-type]
        if self.adata is not None:
            self._method.check_sizes(self._read(None))
        self._model_summary_string = (
            f"PRAGASpike with modalities {names}, n_latent: {self._settings.n_latent}, preset: {preset}"
        )
        self.init_params_ = self._get_init_params(locals())

    def train(
        self,
        max_epochs: int | None = None,
        *,
        lr: float | None = None,
        weight_decay: float | None = None,
        optimizer: Optimizer | None = None,
        patience: int | None = None,
        early_stopping: bool | None = None,
        early_stopping_patience: int | None = None,
        clip_grad: float | None = None,
        scheduler: Scheduler | None = None,
        distill_from: PRAGASpike | None = None,
        seed: int | None = None,
        accelerator: str = "auto",
        devices: int | str | list[int] = "auto",
        checkpoint_dir: str | Path | None = None,
        checkpoint_every: int = 10,
        ckpt_path: str | Path | None = None,
        key_added: str | None = "praga_spike",
        **trainer_kwargs: Any,
    ) -> None:
        """Train on all spots at once, then write the results into the object of setup.

        The weights of an untrained model are drawn from `seed`; a second call goes on from the weights there are,
        with a new optimiser and, for what it does not name, the settings of the preset: not those of the first. No random state outside of the model is touched.

        Parameters
        ----------
        max_epochs
            Steps of the optimiser; by default, as for the three that follow, the value of the preset.
        lr
            Learning rate.
        weight_decay
            L2 penalty.
        optimizer
            ``"sgd"`` (momentum 0.9) or ``"adam"``.
        patience
            Stop when the training loss has not fallen for so many epochs.
        early_stopping, early_stopping_patience
            The same in the words of scvi-tools: True is a `patience` of 45 epochs, or of `early_stopping_patience`; False
            turns the one of a preset off.
        clip_grad
            Largest norm of the gradient.
        scheduler
            ``"cosine"`` or ``"plateau"`` (on the training loss).
        distill_from
            A trained model of the same data, for example a wide one in floating point, whose denoised modalities this
            one learns to predict as well (not with ``preset="praga"``).
        seed
            Of weights and training, by default that of ``scvi.settings`` or 0: the same seed, machine and versions give the same bits on a CPU.
        accelerator
            ``"auto"`` (CUDA where there is one, else CPU), ``"cpu"``, ``"gpu"``, ``"mps"``.
        devices
            Which device, see Lightning; several are refused, since each would do the same work.
        checkpoint_dir
            Folder for ``last.ckpt``, written every `checkpoint_every` epochs.
        checkpoint_every
            Epochs between two checkpoints.
        ckpt_path
            Checkpoint (or its folder) to go on from, to the result of an uninterrupted run.
        key_added
            Name of the results, see :meth:`write_results`; None writes none.
        trainer_kwargs
            ``strategy``, ``logger``, ``callbacks``, ``enable_progress_bar`` and all else of
            :class:`lightning.pytorch.Trainer`.

        Raises
        ------
        FloatingPointError
            If the loss is not finite any more.
        RuntimeError
            If the model was quantized.
        """
        if self.is_trained_ and is_packed(self.module):
            raise RuntimeError(
                "This model was quantized for inference and cannot be trained. Make a new one, or load one that was "
                "saved before `quantize()`."
            )
        if distill_from is None and self._init_arguments.get("distill_weight") and not self.is_trained_:
            raise ValueError(
                "`distill_weight` has no effect without a teacher. Give `train(distill_from=)`, or leave it out."
            )
        patience = self._patience(patience, early_stopping, early_stopping_patience)
        settings = self._settings.replaced(
            max_epochs=None if max_epochs is None else _validate.check_whole(max_epochs, argument="max_epochs"),
            lr=lr,
            weight_decay=weight_decay,
            optimizer=optimizer,
            patience=patience,
            clip_grad=clip_grad,
            scheduler=scheduler,
        )
        if early_stopping is False:
            settings = replace(settings, patience=None)
        how = {name: getattr(settings, name) for name in ("lr", "weight_decay", "optimizer")}
        self._fit(
            max_epochs=settings.max_epochs,
            seed=seed,
            patience=settings.patience,
            clip_grad=settings.clip_grad,
            scheduler=settings.scheduler,
            accelerator=accelerator,
            devices=devices,
            checkpoint_dir=checkpoint_dir,
            checkpoint_every=checkpoint_every,
            ckpt_path=ckpt_path,
            key_added=key_added,
            train_args=how,
            attributes={"_optimizer": how, "_teacher": self._targets_of(distill_from)},
            **trainer_kwargs,
        )

    # ------------------------------------------------- what the base asks for

    def _arguments(self) -> dict[str, Any]:
        return dict(self._init_arguments)

    def _targets_of(self, teacher: PRAGASpike | None) -> dict[str, np.ndarray] | None:
        if teacher is None:
            return None
        if not isinstance(self._settings, SpikeSettings):
            raise ValueError("`distill_from` is not for `preset='praga'`. Leave it out.")
        if not isinstance(teacher, PRAGASpike) or not teacher.is_trained_:
            raise ValueError("`distill_from` must be a trained PRAGASpike.")
        return teacher.get_denoised(self.adata)


_GRAPH_EFFECTS: tuple[_validate.Effect, ...] = (  # of the spec and the settings
    (("n_spatial_neighbors",), lambda s: s[0].spatial_graph_key is None, "there is no `spatial_graph_key` in setup"),
    (
        ("n_feature_neighbors",),
        lambda s: len(s[0].feature_graph_keys or {}) < len(s[0].modalities),
        "a modality has no graph among the `feature_graph_keys` of setup",
    ),
    (
        ("feature_graph_keys",),
        lambda s: getattr(s[1], "use_fusion", True) and s[1].n_feature_neighbors > 0,
        "`use_fusion=True` and `n_feature_neighbors` is above 0",
    ),
)


def _in_order(loss_weights: Mapping[str, float] | Sequence[float], names: list[str]) -> tuple[float, ...]:
    """One weight a modality, in the order of setup."""
    if isinstance(loss_weights, Mapping):
        if set(loss_weights) != set(names):
            raise ValueError(f"`loss_weights` names {sorted(loss_weights)}, the modalities are {sorted(names)}.")
        return tuple(float(loss_weights[name]) for name in names)
    if len(loss_weights) != len(names):
        raise ValueError(f"`loss_weights` has {len(loss_weights)} values for {len(names)} modalities {names}.")
    return tuple(float(w) for w in loss_weights)
