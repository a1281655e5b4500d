"""The PRAGASpike model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anndata import AnnData
from mudata import MuData
from scipy import sparse
from torch import Tensor, nn

from stomics_tools.data import Spots, SpotsSpec, check_batch_sizes
from stomics_tools.data._tensors import to_csr
from stomics_tools.model._base import FullGraphModel
from stomics_tools.model.praga_spike._inputs import Inputs, prepare
from stomics_tools.model.praga_spike._module import PragaModule, learned_weights
from stomics_tools.model.praga_spike._settings import FeatureWeights, GraphMix, Optimizer, PrototypeUpdate, resolve
from stomics_tools.nn import Graph
from stomics_tools.train import Scheduler


class PRAGASpike(FullGraphModel):
    """Spatial domains from any number of modalities, by prototype-aware adaptive graph aggregation.

    Each modality is aggregated over a spatial graph and a graph of similar spots whose weights are learned; the
    modalities are joined to one latent representation, which reconstructs them from the neighbours in space and is
    drawn to prototypes. All arrays are sparse or linear in the number of spots.

    Parameters
    ----------
    adata
        AnnData or MuData after :meth:`setup_anndata` or :meth:`setup_mudata`.
    preset
        ``"praga"``: the published model with its published settings for `data_type`, exactly. By default the same
        model with its defects mended: feature neighbours weigh by similarity (not by distance), prototypes are
        carried over, split and merged, features are standardized, and both graphs begin with the same share.
    data_type
        Technology whose published settings ``preset="praga"`` takes: ``"10x"``, ``"spots"``, ``"stereo"``,
        ``"epigenome"`` or ``"simulation"``.
    n_latent
        Dimensions of the latent representation.
    n_spatial_neighbors
        Nearest spots of the spatial graph.
    n_feature_neighbors
        Nearest spots of each feature graph, by correlation.
    feature_weights
        Edge weights the feature graph starts from: ``"similarity"``, ``"distance"`` or ``"connectivity"``.
    standardize
        Center every feature and scale each modality as a whole to unit variance before anything else.
    graph_mix
        What spatial and learned graph start with: ``"even"`` shares, or ``"random"`` ones of either sign, as
        published, which at some seeds cancel each other.
    loss_weights
        Weight of the reconstruction of each modality: by name, or in the order of the modalities of setup.
    homogeneity_weight
        Weight of the distance between the learned graph and its running mean.
    ema_decay
        Decay of that running mean, an epoch.
    prototype_weight
        Weight of the prototype contrastive loss; 0 turns it off.
    prototypes
        ``"dynamic"`` (carried over, split and merged) or ``"fixed"`` (a new mixture each time, as published).
    n_prototypes
        Prototypes to begin with.
    prototype_start
        First epoch of the prototype loss.
    prototype_every
        Epochs between two estimations of the prototypes.
    temperature
        Of the contrastive loss.

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
    Source: PRAGA, arXiv 2409.12728, and the code published with it.
    """

    _key = "praga_spike"

    def __init__(
        self,
        adata: AnnData | MuData,
        *,
        preset: str | None = None,
        data_type: str = "10x",
        n_latent: int | None = None,
        n_spatial_neighbors: int | None = None,
        n_feature_neighbors: int | None = None,
        feature_weights: FeatureWeights | None = None,
        standardize: bool | None = None,
        graph_mix: GraphMix | None = None,
        loss_weights: Mapping[str, float] | Sequence[float] | None = None,
        homogeneity_weight: float | None = None,
        ema_decay: float | None = None,
        prototype_weight: float | None = None,
        prototypes: PrototypeUpdate | None = None,
        n_prototypes: int | None = None,
        prototype_start: int | None = None,
        prototype_every: int | None = None,
        temperature: float | None = None,
    ) -> None:
        arguments = {k: v for k, v in locals().items() if k not in ("self", "adata", "__class__")}
        super().__init__(adata)
        names = list(self._spec.modalities)
        if isinstance(loss_weights, Mapping):
            if set(loss_weights) != set(names):
                raise ValueError(f"`loss_weights` names {sorted(loss_weights)}, the modalities are {sorted(names)}.")
            arguments["loss_weights"] = tuple(float(loss_weights[name]) for name in names)
        elif loss_weights is not None:
            if len(loss_weights) != len(names):
                raise ValueError(f"`loss_weights` has {len(loss_weights)} values for {len(names)} modalities {names}.")
            arguments["loss_weights"] = tuple(float(w) for w in loss_weights)
        self._init_arguments = {k: v for k, v in arguments.items() if v is not None}
        self._settings = resolve(**arguments)
        weights = {name: self._settings.weight_of(i) for i, name in enumerate(names)}
        self._loss_weights = [weights[name] for name in sorted(names)]
        self._check_sizes(self._read(None))
        self._model_summary_string = (
            f"PRAGASpike with modalities {names}, n_latent: {self._settings.n_latent}, preset: {preset}"
        )
        self.init_params_ = self._get_init_params(locals())

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        modalities: Mapping[str, str],
        *,
        spatial_key: str = "spatial",
        batch_key: str | None = None,
        spatial_graph_key: str | None = None,
        feature_graph_keys: Mapping[str, str] | None = None,
    ) -> None:
        """Say where in an AnnData the data lie. Everything is checked; if that fails, nothing has changed.

        A row of an array that is NaN throughout marks a spot that lacks the modality. A view becomes an object of its
        own, so that its parent is not written.

        Parameters
        ----------
        adata
            Spots or cells, dense or sparse, in memory or backed.
        modalities
            Name of each modality to its ``obsm`` key, layer, or ``"X"``, for example
            ``{"rna": "X_pca", "protein": "X_protein"}``.
        spatial_key
            ``obsm`` key of the coordinates ``(n_obs, 2 or 3)``, in any unit of length.
        batch_key
            ``obs`` column of slices or patients; no graph joins two of them.
        spatial_graph_key
            ``obsp`` key of a ready spatial graph, instead of the nearest spots.
        feature_graph_keys
            Modality to the ``obsp`` key of a ready feature graph, instead of the most similar spots.

        Raises
        ------
        KeyError
            If a key is not there; the message lists those that are.
        TypeError
            If `adata` is not an AnnData.
        ValueError
            If the data cannot be used; the message names the key, what was found, and what to do.
        """
        if not isinstance(adata, AnnData):
            raise TypeError(f"`adata` must be an AnnData, found {type(adata).__name__}; see `setup_mudata`.")
        args = cls._get_setup_method_args(**locals())
        spec = SpotsSpec(dict(modalities), spatial_key, batch_key, spatial_graph_key, feature_graph_keys)
        cls._setup(adata, spec, args)

    @classmethod
    def setup_mudata(
        cls,
        mdata: MuData,
        modalities: Mapping[str, str],
        *,
        spatial_key: str = "spatial",
        batch_key: str | None = None,
        spatial_graph_key: str | None = None,
        feature_graph_keys: Mapping[str, str] | None = None,
    ) -> None:
        """Say where in a MuData the data lie, as :meth:`setup_anndata` does for an AnnData.

        Spots that are not in all modalities are welcome: each is trained on, and placed by, what it has.

        Parameters
        ----------
        mdata
            Spots or cells; observation names join the modalities.
        modalities
            Name of each modality of `mdata` to be used, to its ``obsm`` key, layer, or ``"X"``.
        spatial_key
            ``obsm`` key of the coordinates, in `mdata` or else in its modalities, which must then agree.
        batch_key
            ``obs`` column of slices or patients, looked up in the same way.
        spatial_graph_key
            ``mdata.obsp`` key of a ready spatial graph.
        feature_graph_keys
            Modality to the ``mdata.obsp`` key of a ready feature graph.
        """
        if not isinstance(mdata, MuData):
            raise TypeError(f"`mdata` must be a MuData, found {type(mdata).__name__}; see `setup_anndata`.")
        args = cls._get_setup_method_args(**locals())
        spec = SpotsSpec(dict(modalities), spatial_key, batch_key, spatial_graph_key, feature_graph_keys)
        cls._setup(mdata, spec, args)

    def train(
        self,
        max_epochs: int | None = None,
        *,
        lr: float | None = None,
        weight_decay: float | None = None,
        optimizer: Optimizer | None = None,
        patience: int | None = None,
        clip_grad: float | None = None,
        scheduler: Scheduler | None = None,
        seed: int = 0,
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
        with a new optimiser. No random state outside of the model is touched.

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
        clip_grad
            Largest norm of the gradient.
        scheduler
            ``"cosine"`` or ``"plateau"`` (on the training loss).
        seed
            Of weights and training: the same seed, machine and versions give the same bits on a CPU.
        accelerator
            ``"auto"`` (CUDA where there is one, else CPU), ``"cpu"``, ``"gpu"``, ``"mps"``.
        devices
            Passed to Lightning.
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
        """
        self._settings = self._settings.replaced(
            max_epochs=max_epochs, lr=lr, weight_decay=weight_decay, optimizer=optimizer
        )
        self._fit(
            max_epochs=self._settings.max_epochs,
            seed=seed,
            patience=patience,
            clip_grad=clip_grad,
            scheduler=scheduler,
            accelerator=accelerator,
            devices=devices,
            checkpoint_dir=checkpoint_dir,
            checkpoint_every=checkpoint_every,
            ckpt_path=ckpt_path,
            key_added=key_added,
            train_args={
                "lr": self._settings.lr,
                "weight_decay": self._settings.weight_decay,
                "optimizer": self._settings.optimizer,
            },
            **trainer_kwargs,
        )

    # ------------------------------------------------- what the base asks for

    def _arguments(self) -> dict[str, Any]:
        return dict(self._init_arguments)

    def _check_sizes(self, spots: Spots) -> None:
        """Every slice must have more spots than neighbours are asked for."""
        if spots.spatial_graph is None:
            n_neighbors = self._settings.n_spatial_neighbors
            check_batch_sizes(spots.n_obs, spots.batch, n_neighbors, argument="n_spatial_neighbors")
        for name, modality in spots.modalities.items():
            if name not in spots.feature_graphs:
                batch = spots.batch[modality.present]
                n_neighbors = self._settings.n_feature_neighbors
                check_batch_sizes(len(batch), batch, n_neighbors, argument="n_feature_neighbors")

    def _prepare(self, spots: Spots, *, trained_on: bool) -> Inputs:
        self._check_sizes(spots)
        moments = self._module.moments if self.is_trained_ else None
        features = None
        if trained_on:
            features = [(learned.graph, learned.value.detach()) for learned in self._module.learned]
        return prepare(spots, self._settings, features=features, moments=moments)

    def _make_module(self, inputs: Inputs) -> PragaModule:
        return PragaModule(inputs.moments, inputs.features, self._loss_weights, self._settings)

    def _module_of(self, tensors: Mapping[str, Tensor]) -> PragaModule:
        n_modalities = len(self._loss_weights)
        graphs = [
            (
                Graph(tensors[f"learned.{m}.graph.crow"], tensors[f"learned.{m}.graph.col"]),
                tensors[f"learned.{m}.value"],
            )
            for m in range(n_modalities)
        ]
        moments = [(tensors[f"center_{m}"], tensors[f"scale_{m}"]) for m in range(n_modalities)]
        return PragaModule(moments, graphs, self._loss_weights, self._settings)

    def _make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        settings = self._settings
        if settings.optimizer == "sgd":
            return torch.optim.SGD(parameters, lr=settings.lr, momentum=0.9, weight_decay=settings.weight_decay)
        return torch.optim.Adam(parameters, lr=settings.lr, weight_decay=settings.weight_decay)

    @property
    def _module(self) -> PragaModule:
        module = self.module
        if not isinstance(module, PragaModule):
            raise RuntimeError("The model has no module before training.")
        return module

    @torch.no_grad()
    def _weights(self, inputs: Inputs, trained_on: bool) -> list[Tensor]:
        if trained_on:
            return [learned() for learned in self._module.learned]
        return [learned_weights(graph, value) for graph, value in inputs.features]

    def _latent(
        self, inputs: Inputs, *, trained_on: bool, modality: str | None = None, batch_size: int = 8192
    ) -> np.ndarray:
        inputs = inputs.to(self.device)
        index = None if modality is None else sorted(self._spec.modalities).index(modality)
        weights = self._weights(inputs, trained_on)
        latent = self._module.latent(inputs, weights, modality=index, block_size=batch_size)
        return inputs.restore(latent.float().cpu().numpy())

    def _graphs(self, inputs: Inputs, *, trained_on: bool) -> dict[str, sparse.csr_matrix]:
        inputs = inputs.to(self.device)
        weights = self._weights(inputs, trained_on)
        return {
            name: inputs.restore_graph(to_csr(graph, weight))
            for name, (graph, _), weight in zip(sorted(self._spec.modalities), inputs.features, weights, strict=True)
        }
