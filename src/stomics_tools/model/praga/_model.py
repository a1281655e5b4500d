"""The PRAGA model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from anndata import AnnData
from mudata import MuData
from torch import Tensor

from stomics_tools import _keys
from stomics_tools._params import plain_arguments
from stomics_tools.data import Spots
from stomics_tools.model._full_graph import optimizer_arguments
from stomics_tools.model._modalities import ModalitiesModel, check_ready_graphs, weights_by_name
from stomics_tools.model._outputs import Outputs
from stomics_tools.model.praga._inputs import Inputs, check_sizes, prepare
from stomics_tools.model.praga._module import PragaModule, restored_module
from stomics_tools.model.praga._settings import FeatureWeights, Optimizer, resolve
from stomics_tools.train import Scheduler


class PRAGA(ModalitiesModel):
    """Spatial domains from any number of modalities, by the published PRAGA.

    A linear encoder averages features over a graph of neighbours in space and, for each modality, over a graph of
    similar spots, of which it learns one weight an edge. The latent representation must reconstruct all modalities, and
    spots are drawn to prototypes of it. The model is that of the published code to rounding, on edges instead of n x n
    arrays, see :doc:`/methods/praga`.

    Parameters
    ----------
    adata
        AnnData or MuData after :meth:`setup_anndata` or :meth:`setup_mudata`.
    data_type
        Technology whose published settings are taken: ``"10x"``, ``"spots"``, ``"stereo"``, ``"epigenome"`` or
        ``"simulation"``. Arguments that are None, also those of :meth:`train`, take their values from there.
    n_latent
        Dimensions of the latent representation.
    n_spatial_neighbors
        Nearest spots of the spatial graph.
    n_feature_neighbors
        Most similar spots of each feature graph.
    feature_weights
        Edge weights that the feature graphs start from: ``"distance"`` (published, so that the least similar spots weigh
        most), ``"similarity"`` or ``"connectivity"``.
    standardize
        Center every feature and scale each modality as a whole to unit variance; not so in the published code.
    loss_weights
        Weight of the reconstruction of each modality: by name, or in the order of the modalities of setup.
    homogeneity_weight
        Weight of the distance between the learned graphs and their running means.
    ema_decay
        Decay of that running mean, an epoch.
    prototype_weight
        Weight of the prototype contrastive loss; 0 turns it off.
    n_prototypes
        Number of prototypes.
    prototype_start
        First epoch of the prototype loss.
    prototype_every
        Epochs between two estimations of the prototypes.
    temperature
        Temperature of the prototype loss.
    registry
        Record of setup of a saved model, see :meth:`load`.

    Examples
    --------
    >>> import stomics_tools as st
    >>> mdata = st.datasets.simulate_multiomics(n_obs=1000, n_domains=5)
    >>> st.pp.rna(mdata["rna"])
    >>> st.pp.protein(mdata["protein"])
    >>> st.model.PRAGA.setup_mudata(mdata, modalities={"rna": "X_pca", "protein": "X_protein"})
    >>> model = st.model.PRAGA(mdata, data_type="10x")
    >>> model.train()
    >>> st.tl.spatial_domains(mdata, 5, use_rep="X_praga")

    Notes
    -----
    Source: PRAGA, arXiv 2409.12728, and the code published with it.
    """

    _key = _keys.PRAGA
    module: PragaModule

    def __init__(
        self,
        adata: AnnData | MuData | None,
        *,
        data_type: str = "10x",
        n_latent: int | None = None,
        n_spatial_neighbors: int | None = None,
        n_feature_neighbors: int | None = None,
        feature_weights: FeatureWeights | None = None,
        standardize: bool | None = None,
        loss_weights: Mapping[str, float] | Sequence[float] | None = None,
        homogeneity_weight: float | None = None,
        ema_decay: float | None = None,
        prototype_weight: float | None = None,
        n_prototypes: int | None = None,
        prototype_start: int | None = None,
        prototype_every: int | None = None,
        temperature: float | None = None,
        registry: dict[str, Any] | None = None,
    ) -> None:
        arguments = {name: value for name, value in plain_arguments(locals()).items() if value is not None}
        super().__init__(adata, registry)
        names = list(self._spec.modalities)
        if loss_weights is not None:
            arguments["loss_weights"] = tuple(weights_by_name(arguments["loss_weights"], names).values())
        check_ready_graphs(arguments, self._spec)
        self._init_arguments, self._settings = arguments, resolve(**arguments)
        weights = dict(zip(names, self._settings.loss_weights_of(len(names)), strict=True))
        self._loss_weights = [weights[name] for name in sorted(names)]
        if self.adata is not None:
            check_sizes(self._state["sizes"], self._spec, self._settings)
        self._model_summary_string = (
            f"PRAGA with modalities {names}, n_latent: {self._settings.n_latent}, data_type: {data_type}"
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
        seed: int | None = None,
        accelerator: str = "auto",
        devices: int | str | list[int] = "auto",
        checkpoint_dir: str | Path | None = None,
        checkpoint_every: int = 10,
        ckpt_path: str | Path | None = None,
        key_added: str | None = _keys.PRAGA,
        **trainer_kwargs: Any,
    ) -> None:
        """Train on all spots at once, then write the results into the object of setup.

        The weights of an untrained model are drawn from `seed`; a second call goes on from the weights there are, with a
        new optimiser and the published settings for what it does not name. No random state outside of the model is
        touched.

        Parameters
        ----------
        max_epochs
            Steps of the optimiser; by default, as for the three that follow, the published value of `data_type`.
        lr
            Learning rate.
        weight_decay
            L2 penalty.
        optimizer
            ``"sgd"`` (momentum 0.9, published) or ``"adam"``.
        patience
            Stop when the training loss has not fallen for so many epochs.
        early_stopping, early_stopping_patience
            The same in the words of scvi-tools: True is a `patience` of 45 epochs, or of `early_stopping_patience`.
        clip_grad
            Largest norm of the gradient.
        scheduler
            ``"cosine"`` or ``"plateau"`` (on the training loss).
        seed
            Seed of weights and training, by default that of ``scvi.settings`` or 0: the same seed, machine and versions
            give the same bits on a CPU.
        accelerator
            ``"auto"`` (CUDA where there is one, else CPU), ``"cpu"``, ``"gpu"``, ``"mps"``.
        devices
            Which device, see Lightning; several are refused, since each would do the same work.
        checkpoint_dir, checkpoint_every
            Folder for ``last.ckpt``, and the epochs from one to the next.
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
        """
        settings = self._settings
        made = optimizer_arguments(
            lr=settings.lr if lr is None else lr,
            weight_decay=settings.weight_decay if weight_decay is None else weight_decay,
            optimizer=settings.optimizer if optimizer is None else optimizer,
        )
        self._fit(
            max_epochs=settings.max_epochs if max_epochs is None else max_epochs,
            seed=seed,
            patience=self._patience(patience, early_stopping, early_stopping_patience),
            clip_grad=clip_grad,
            scheduler=scheduler,
            accelerator=accelerator,
            devices=devices,
            checkpoint_dir=checkpoint_dir,
            checkpoint_every=checkpoint_every,
            ckpt_path=ckpt_path,
            key_added=key_added,
            train_args=made,
            attributes={"_optimizer": made},
            **trainer_kwargs,
        )

    # ------------------------------------------------- what the base asks for

    def _arguments(self) -> dict[str, Any]:
        return dict(self._init_arguments)

    @classmethod
    def _upgraded(cls, dir_path: str | Path, meta: Mapping[str, Any]) -> Mapping[str, Any]:
        arguments = dict(meta["arguments"])
        if meta["model"] == "PRAGASpike" and arguments.pop("preset", None) == "praga":  # its name in earlier versions
            return {**meta, "model": cls.__name__, "arguments": arguments}
        return meta

    def _prepare(self, spots: Spots, *, trained_on: bool) -> Inputs:
        check_sizes(spots.sizes(), self._spec, self._settings)
        if not self.is_trained_:
            return prepare(spots, self._settings)
        learned = [(graph.graph, graph.value.detach()) for graph in self.module.learned] if trained_on else None
        moments, center_slices = self.module.moments, bool(self.module.center_slices)
        return prepare(spots, self._settings, features=learned, moments=moments, center_slices=center_slices)

    def _make_module(self, inputs: Inputs) -> PragaModule:
        return PragaModule(
            inputs.moments, inputs.features, self._loss_weights, self._settings, center_slices=inputs.center_slices
        )

    def _module_of(self, tensors: Mapping[str, Tensor]) -> PragaModule:
        return restored_module(tensors, self._loss_weights, self._settings)

    @torch.no_grad()
    def _latent(self, inputs: Inputs, *, trained_on: bool, modality: str | None, batch_size: int) -> Tensor:
        index = None if modality is None else sorted(self._spec.modalities).index(modality)
        weights = self.module.edge_weights(inputs, trained_on=trained_on)
        return self.module.latent(inputs, weights, modality=index, block_size=batch_size)

    @torch.no_grad()
    def _outputs(self, inputs: Inputs, *, trained_on: bool, batch_size: int = 8192) -> Outputs:
        weights = self.module.edge_weights(inputs, trained_on=trained_on)
        names, graphs = sorted(self._spec.modalities), [graph for graph, _ in inputs.features]
        return Outputs(
            latent=self.module.latent(inputs, weights, block_size=batch_size),
            graphs={name: [(g, w)] for name, g, w in zip(names, graphs, weights, strict=True)},
        )

    @torch.no_grad()
    def _denoised(self, inputs: Inputs, *, trained_on: bool) -> dict[str, Tensor]:
        latent, _ = self.module(inputs, self.module.edge_weights(inputs, trained_on=trained_on))
        return dict(zip(sorted(self._spec.modalities), self.module.decode(inputs, latent), strict=True))
