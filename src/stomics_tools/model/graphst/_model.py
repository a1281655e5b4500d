"""The GraphST model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from torch import Tensor

from stomics_tools import _validate
from stomics_tools._params import plain_arguments
from stomics_tools.data import Spots, SpotsSpec, expression_matrix
from stomics_tools.model._full_graph import FullGraphModel, optimizer_arguments, restored
from stomics_tools.model._outputs import Outputs, chosen_features
from stomics_tools.model.graphst._genes import N_TOP_GENES, choose
from stomics_tools.model.graphst._inputs import Inputs, check_sizes, prepare
from stomics_tools.model.graphst._module import GraphSTModule
from stomics_tools.model.graphst._settings import Contrast, Corruption, SelfLoop, resolve
from stomics_tools.train import Scheduler, yielding

_MODALITY = "expression"


class GraphST(FullGraphModel):
    """Spatial domains from one modality, by a graph auto-encoder and contrast with a corrupted view.

    The expression of every spot is reconstructed from its neighbourhood, ``H = A Z W2`` with ``Z = A^h X W1``, while
    spots are told apart from those of a corrupted slice by whether they fit their neighbourhood. In the end the noise of
    single spots is taken out of the distances of ``Z`` (`orient`). All arrays are sparse or linear in the
    number of spots, see :class:`~stomics_tools.model.graphst._module.GraphSTModule`.

    Parameters
    ----------
    adata
        AnnData after :meth:`setup_anndata`.
    preset
        None; ``"dense"``, what the published code makes of Visium, or ``"sparse"``, what it makes of Stereo-seq and
        Slide-seq: two different models, both computed here on sparse edges. In the former self-loops are added to the
        normalised graph, in the latter before it is normalised, and its reconstruction is brought to length one in the
        end. With genes scaled as published (see Notes) both are that code's models exactly.
    n_latent
        Dimensions of the latent representation.
    n_spatial_neighbors
        Nearest spots of the graph.
    n_hops
        Steps on the graph, h, over which the latent representation reaches; one in the published models.
    self_loop
        ``"before"`` the normalisation, ``D^-1/2 (A + I) D^-1/2``, or ``"after"`` it, ``D^-1/2 A D^-1/2 + I``.
    normalize_output
        Reconstructions of length one.
    standardize
        Subtract the mean of each gene within each slice and scale the data as a whole to unit variance. The published
        code takes the values as they are.
    orient
        After training, distances of ``Z`` become those of what it tells of expression, less the noise of single spots, and
        its columns principal components, see :doc:`/methods/graphst`. The published code leaves ``Z`` as it is.
    dropout
        Share of the expression that is dropped in training.
    tie_weights
        ``W2 = W1^T``.
    corruption
        The corrupted view: ``"permutation"`` of the spots of a slice, ``"masking"`` of a share of the spots, or normal
        ``"noise"``.
    corruption_rate
        That share, or the standard deviation of the noise in units of the data as they enter.
    contrast
        ``"bce"``, as published; ``"pairwise"``, ``-log sigmoid(s_pos - s_neg)``; or ``"infonce"``.
    temperature
        Of ``"infonce"``.
    n_negatives
        Of ``"infonce"``: sampled spots beside the corrupted one.
    reconstruction_weight, contrast_weight
        Weights of both losses.
    registry
        Record of setup of a saved model, see :meth:`load`.

    Arguments that are None take the value of the preset.

    Examples
    --------
    >>> import stomics_tools as st
    >>> adata = st.datasets.simulate_multiomics(n_obs=1000, n_domains=5)["rna"]
    >>> st.model.GraphST.setup_anndata(adata)
    >>> model = st.model.GraphST(adata)
    >>> model.train()
    >>> st.tl.spatial_domains(adata, 5, use_rep="X_graphst")

    Notes
    -----
    Source: GraphST (Long et al., Nature Communications 2023) and the code published with it. Its expression is that of
    the 3,000 most variable genes (``flavor="seurat_v3"``), ``normalize_total(target_sum=1e4)``, ``log1p`` and
    ``scale(zero_center=False, max_value=10)`` of scanpy, its domains are clusters of the reconstruction
    (:meth:`get_reconstruction`), and it trains for 600 epochs of learning rate 0.001.
    """

    _key = "graphst"
    module: GraphSTModule

    def __init__(
        self,
        adata: AnnData | None,
        *,
        preset: str | None = None,
        n_latent: int | None = None,
        n_spatial_neighbors: int | None = None,
        n_hops: int | None = None,
        self_loop: SelfLoop | None = None,
        normalize_output: bool | None = None,
        standardize: bool | None = None,
        orient: bool | None = None,
        dropout: float | None = None,
        tie_weights: bool | None = None,
        corruption: Corruption | None = None,
        corruption_rate: float | None = None,
        contrast: Contrast | None = None,
        temperature: float | None = None,
        n_negatives: int | None = None,
        reconstruction_weight: float | None = None,
        contrast_weight: float | None = None,
        registry: dict[str, Any] | None = None,
    ) -> None:
        arguments = plain_arguments(locals())
        super().__init__(adata, registry)
        self._init_arguments = {k: v for k, v in arguments.items() if v is not None}
        self._settings = resolve(**arguments)
        if n_spatial_neighbors is not None and self._spec.spatial_graph_key is not None:
            said = f"`n_spatial_neighbors={n_spatial_neighbors}`"
            raise ValueError(f"{said} has no effect unless there is no `spatial_graph_key` in setup. Leave it out.")
        if self.adata is not None:
            check_sizes(self._state["sizes"], self._spec, self._settings)
        self._model_summary_string = f"GraphST with n_latent: {self._settings.n_latent}, preset: {preset}"
        self.init_params_ = self._get_init_params(locals())

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        layer: str | None = None,
        *,
        spatial_key: str = "spatial",
        batch_key: str | None = None,
        spatial_graph_key: str | None = None,
        genes: str | Sequence[str] | None = None,
        n_top_genes: int | None = N_TOP_GENES,
        counts: bool | None = None,
        total_key: str | None = None,
    ) -> None:
        """Say where in an AnnData the data lie. Everything is checked; if that fails, nothing has changed.

        Counts (whole numbers, none negative) are brought to four times the median total over all genes, then ``log1p``;
        other values are taken as they are. Totals of other data are over the genes of these, whatever genes there are
        beside them; where genes with more than 5 % of the counts are missing, the data are refused. A view becomes an
        object of its own.

        Parameters
        ----------
        adata
            Spots or cells, dense or sparse, in memory or backed.
        layer
            Layer of the expression, ``X`` by default.
        spatial_key
            ``obsm`` key of the coordinates ``(n_obs, 2 or 3)``, in any unit of length.
        batch_key
            ``obs`` column of slices or patients; no edge joins two of them.
        spatial_graph_key
            ``obsp`` key of a ready spatial graph, instead of the nearest spots.
        genes
            Column of ``var`` (True and False, or 1 and 0), or names. By default ``var["highly_variable"]`` where there
            is such a column that can be used, and else the most variable genes.
        n_top_genes
            How many these are; None for all.
        counts
            True: the values are counts, whole or corrected. False: they are taken as they are. By default whole,
            non-negative values are counts, and what was decided is logged.
        total_key
            ``obs`` column of the total counts of each spot over the whole transcriptome, such as ``"total_counts"`` of
            :func:`scanpy.pp.calculate_qc_metrics`, for an object that holds a part of the genes. Other data must have it
            as well. Default: sums over the genes of the object.

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
            raise TypeError(f"`adata` must be an AnnData, found {type(adata).__name__}.")
        args = cls._get_setup_method_args(**locals())
        values, where = expression_matrix(adata, layer)
        names, total, shares = choose(adata, values, where, genes, n_top_genes, counts, total_key)
        spec = SpotsSpec(
            {_MODALITY: layer or "X"},
            spatial_key,
            batch_key,
            spatial_graph_key,
            features={_MODALITY: names},
            totals=None if total is None else {_MODALITY: total},
            total_genes=None if shares is None else {_MODALITY: shares},
            total_key=total_key,
        )
        cls._setup(adata, spec, args, opened={_MODALITY: values})

    def train(
        self,
        max_epochs: int | None = None,
        *,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
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
        key_added: str | None = "graphst",
        **trainer_kwargs: Any,
    ) -> None:
        """Train on all spots at once, then write the results into the object of setup.

        The weights of an untrained model are drawn from `seed`; a second call goes on from the weights there are, with a
        new optimiser and the defaults below for what it does not name. No random state outside of the model is touched.

        Parameters
        ----------
        max_epochs
            Steps of the optimiser, by default 200, and 600 for the published models.
        lr, weight_decay
            Of Adam.
        patience
            Stop when the training loss has not fallen for so many epochs.
        early_stopping, early_stopping_patience
            The same in the words of scvi-tools: True is a `patience` of 45 epochs, or of `early_stopping_patience`.
        clip_grad
            Largest norm of the gradient.
        scheduler
            ``"cosine"`` or ``"plateau"`` (on the training loss).
        seed
            Of weights and corruption, by default that of ``scvi.settings`` or 0: the same seed, machine and versions give the same bits on a CPU.
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
        optimizer = optimizer_arguments(lr=lr, weight_decay=weight_decay)
        self._fit(
            max_epochs=self._settings.max_epochs if max_epochs is None else max_epochs,
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
            train_args=optimizer,
            attributes={"_optimizer": optimizer},
            **trainer_kwargs,
        )

    @yielding()
    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Latent representation of every spot; nothing is written.

        Parameters
        ----------
        adata
            The object of setup by default, or another one with the genes of setup: a slice that the model has not seen
            gets a graph of its own.
        indices
            Rows of the object that are wanted, by default all. The others are read all the same, as neighbours of these.
        batch_size
            Spots whose expression is encoded at a time, by default all; the result does not depend on it.

        Returns
        -------
        float32 ``(n_obs, n_latent)``: ``Z``, with ``orient`` in its coordinates.

        Raises
        ------
        RuntimeError, ValueError
            If the model is not trained; if genes of setup are not there.
        """
        self._require_trained()
        if batch_size is not None:
            _validate.check_integer(batch_size, argument="batch_size")
        rows = _validate.check_indices(indices, self._data(adata).obs_names)
        inputs, _ = self._inputs(adata)
        return restored(inputs, self.module.latent(inputs, batch_size))[rows]

    @yielding()
    def get_reconstruction(self, adata: AnnData | None = None) -> np.ndarray:
        """Reconstruction ``H`` of every spot from its neighbourhood, what the paper clusters; nothing is written.

        Parameters
        ----------
        adata
            As for :meth:`get_latent_representation`.

        Returns
        -------
        float32 ``(n_obs, n_genes)``, columns as :attr:`genes`; in the units of the expression (the logarithm, if it was
        of counts), about the means of the genes in each slice; with ``normalize_output`` rows of length one instead.
        """
        self._require_trained()
        inputs, _ = self._inputs(adata)
        return restored(inputs, self.module.reconstruction(inputs))

    def get_expression(self, adata: AnnData | None = None, *, features: Sequence[str] | None = None) -> pd.DataFrame:
        """Expression as the model sees it, to be compared with a reconstruction; nothing is written.

        Parameters
        ----------
        adata
            As for :meth:`get_latent_representation`.
        features
            Genes to be returned, in this order; by default all of :attr:`genes`.

        Returns
        -------
        float32 ``(n_obs, n_features)``, rows by ``obs_names`` and columns by gene: the values of setup, or the logarithm
        of counts.

        Raises
        ------
        KeyError
            If the model has no such gene.
        """
        (modality,) = self._read(adata).modalities.values()
        columns = chosen_features(self.genes, features, where="`model.genes`")
        index = self._data(adata).obs_names
        return pd.DataFrame(modality.values[:, columns], index=index, columns=[self.genes[i] for i in columns])

    @property
    def genes(self) -> list[str]:
        """Names of the genes that the model learns from."""
        return list(self._state["modalities"][_MODALITY]["feature_names"])

    # ------------------------------------------------- what the base asks for

    def _arguments(self) -> dict[str, Any]:
        return dict(self._init_arguments)

    def _prepare(self, spots: Spots, *, trained_on: bool) -> Inputs:
        check_sizes(spots.sizes(), self._spec, self._settings)
        moments = (self.module.center, self.module.scale) if self.is_trained_ else None
        return prepare(spots, self._settings, moments=moments)

    def _make_module(self, inputs: Inputs) -> GraphSTModule:
        return GraphSTModule(inputs.center, inputs.scale, self._settings)

    def _module_of(self, tensors: Mapping[str, Tensor]) -> GraphSTModule:
        return GraphSTModule(tensors["center"], tensors["scale"], self._settings)

    def _finish(self, module: GraphSTModule, inputs: Inputs) -> None:  # type: ignore[override]
        if self._settings.orient:
            module.orient(inputs)

    def _outputs(self, inputs: Inputs, *, trained_on: bool, batch_size: int = 8192) -> Outputs:
        return Outputs(latent=self.module.latent(inputs), graphs={"spatial": [inputs.spatial]})
