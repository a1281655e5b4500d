"""The MaskedDiffusion model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, ClassVar

from anndata import AnnData
from torch import Tensor

from stomics_tools import _keys, _validate
from stomics_tools._params import plain_arguments, plain_params
from stomics_tools.data import CellsSpec, decide_counts, read_cells
from stomics_tools.data._cells_field import CellsField
from stomics_tools.data._feature_types import warn_of_kinds
from stomics_tools.model._objects import own_data
from stomics_tools.model.masked_diffusion._module import MaskedDiffusionModule
from stomics_tools.model.masked_diffusion._parameters import parameter_table
from stomics_tools.model.masked_diffusion._predictions import MaskedDiffusionPredictions
from stomics_tools.model.masked_diffusion._schedule import Objective, Target
from stomics_tools.model.masked_diffusion._settings import DiffusionSettings, ExpertWidth, GateType, Mode

logger = logging.getLogger("stomics_tools")


class MaskedDiffusion(MaskedDiffusionPredictions):
    """Positions of cells from their expression, expression from positions, and both, by one diffusion over a slice.

    A transformer over the set of the cells of a slice denoises two modalities, positions and a latent expression, each
    with a time of its own in every cell: what is known has time 0. One trained model so serves all tasks: it places
    cells, also among landmarks whose positions are known; it predicts the expression of cells and genes that were not
    measured; and it draws new tissue.

    Parameters
    ----------
    adata
        AnnData after :meth:`setup_anndata`.
    width, n_heads, n_layers, n_hidden, dropout
        Of the transformer; `n_hidden` is the width of its perceptrons.
    n_frequencies
        Waves by which a position is told to it.
    n_latent
        Principal components of the expression, 64 at most.
    n_read
        Leading ones of these that are read of cells whose expression is known.
    qk_norm
        Whether queries and keys are normalised.
    use_gated_attention, gate_type
        A sigmoid gate after attention, ``"elementwise"`` or ``"headwise"``.
    use_moe, num_experts, moe_top_k, expert_width, balance_weight, router_z_weight
        A mixture of experts in place of the perceptrons; ``expert_width="same_active"``: a cell passes through as much as
        without experts; ``"same_total"``: all experts together are as wide as the perceptron.
    training_mode
        ``"joint"`` for all tasks, or one of them: ``"expr_to_pos"``, ``"pos_to_expr"``.
    enable_masking, expression_mask_ratio, position_mask_ratio
        Whether genes are hidden, and positions known, in a part of the sets of training; the mean share of genes that is
        hidden, and the least share of cells whose position is.
    objective
        ``"diffusion"`` (variance-preserving, cosine) or ``"flow"`` (straight lines).
    target
        What the network predicts: ``"residual"``, the clean value less what independent cells would be expected to have,
        in standard deviations; ``"x0"``, ``"v"`` or ``"eps"``.
    min_snr
        Largest weight of a signal-to-noise ratio for the last three; None: all errors weigh the same.
    self_conditioning
        Whether the network reads what it found a step before (Chen et al. 2023), as it does in half of the sets of training.
    diffusion_steps
        Times of the grid.
    augment_pose
        Whether sets are turned and reflected at random in training. Slices lie in a common frame, found from what
        expression says of position, so that there is no need to.
    n_window
        Cells of a set in training; up to twice as many are drawn together.
    n_neighbors
        Neighbours whose mean expression is read; a third and twice as many as well.
    n_members, n_regression_hidden, regression_dropout, mixup
        Of the regression of places on genes: perceptrons, width, dropout, and Beta parameter of mixtures of cells.
    registry
        Record of setup of a saved model, see :meth:`load`.

    Examples
    --------
    >>> import stomics_tools as st
    >>> adata = st.datasets.simulate_sections()
    >>> train, test = adata[adata.obs["section"] != "section3"].copy(), adata[adata.obs["section"] == "section3"].copy()
    >>> st.model.MaskedDiffusion.setup_anndata(train, batch_key="section")
    >>> model = st.model.MaskedDiffusion(train, width=128, n_layers=4, n_hidden=512)
    >>> model.train()
    >>> draws = model.sample(test, mode="expr_to_pos", n_samples=8)
    >>> position, dispersion = model.consensus(test)
    """

    _key: ClassVar[str] = "masked_diffusion"
    _field_key: ClassVar[str] = CellsField.registry_key
    parameter_table = staticmethod(parameter_table)

    def __init__(
        self,
        adata: AnnData | None,
        *,
        width: int = 256,
        n_heads: int = 8,
        n_layers: int = 6,
        n_hidden: int = 2048,
        dropout: float = 0.1,
        n_frequencies: int = 4,
        n_latent: int = 64,
        n_read: int = 10,
        qk_norm: bool = True,
        use_gated_attention: bool = False,
        gate_type: GateType = "elementwise",
        use_moe: bool = False,
        num_experts: int = 8,
        moe_top_k: int = 2,
        expert_width: ExpertWidth = "same_active",
        balance_weight: float = 0.01,
        router_z_weight: float = 0.001,
        training_mode: Mode = "joint",
        enable_masking: bool = True,
        expression_mask_ratio: float = 0.3,
        position_mask_ratio: float = 0.33,
        objective: Objective = "diffusion",
        target: Target = "residual",
        min_snr: float | None = None,
        self_conditioning: bool = False,
        diffusion_steps: int = 1000,
        augment_pose: bool = False,
        n_window: int = 1024,
        n_neighbors: int = 30,
        n_members: int = 4,
        n_regression_hidden: int = 512,
        regression_dropout: float = 0.5,
        mixup: float = 0.3,
        registry: dict[str, Any] | None = None,
    ) -> None:
        given = plain_arguments(locals())
        settings = DiffusionSettings(**given)
        settings.check_effects()
        super().__init__(adata, registry)
        self._settings = settings
        self._spec = CellsSpec(**self.registry["setup_args"])
        n_genes, n_slices = len(self._state["gene_names"]), len(self._state["batches"])
        self._model_summary_string = (
            f"MaskedDiffusion with {n_genes} genes and {n_slices} slices, width: {width}, n_layers: {n_layers}, "
            f"training_mode: {training_mode}"
        )

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        layer: str | None = None,
        *,
        spatial_key: str = _keys.SPATIAL,
        batch_key: str | None = None,
        counts: bool | None = None,
    ) -> None:
        """Say where in an AnnData the data lie. Everything is checked; if that fails, nothing has changed.

        A view becomes an object of its own, so that its parent is not written.

        Parameters
        ----------
        adata
            Cells of one or more slices. A gene that is NaN in all cells of a slice was not measured there.
        layer
            Layer of the expression. Default: ``X``. Counts become log(1 + counts scaled to the mean total); other values
            are taken as they are.
        spatial_key
            ``obsm`` key of the coordinates, 2-D or 3-D, in any unit of length.
        batch_key
            ``obs`` column of the slices. Slices need no common frame.
        counts
            True: the expression is counts, whole or corrected (for background, say). False: values are taken as they are.
            By default whole, non-negative values are counts, and what was decided is logged.

        Raises
        ------
        KeyError
            If a key is not there; the message lists those that are.
        TypeError
            If `adata` is not an AnnData.
        ValueError
            If the data cannot be used; the message names the key, what was found, and what to do.
        """
        args = cls._get_setup_method_args(**locals())
        spec = CellsSpec(layer, spatial_key, batch_key, counts)
        where = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
        expression = read_cells(adata, spec).expression
        warn_of_kinds(adata.var)
        decide_counts(expression, counts, argument="layer", where=where)
        own_data(adata)
        cls._register(adata, CellsField(spec), args)

    def _setup_arguments(self) -> dict[str, Any]:
        return dict(vars(self._spec))

    def _arguments(self) -> dict[str, Any]:
        return self._settings.plain()

    def write_results(self, adata: AnnData | None = None, *, key_added: str | None = None) -> None:
        """Write the latent representation into an object.

        Parameters
        ----------
        adata
            The object of setup by default, or another one with positions.
        key_added
            Name of the outputs. Default: ``"masked_diffusion"``.

        Sets the following fields:

        ``adata.obsm["X_<key>"]``
            Embedding of the cells, float32 ``(n_obs, width)``.
        ``adata.uns["<key>"]["params"]``
            Settings, seed and versions.
        """
        self._require_trained()
        data = self._data(adata)
        key = self._key if key_added is None else _validate.check_new_key(key_added, argument="key_added")
        latent = self.get_latent_representation(data)
        own_data(data)
        data.obsm[_keys.latent(key)] = latent
        description = {"model": type(self).__name__, **self._setup_arguments(), **self._arguments(), **self._train_args}
        data.uns[key] = {"params": plain_params(description)}
        logger.info("Wrote `obsm[%r]` and `uns[%r]`.", _keys.latent(key), key)

    @classmethod
    def _register_like(cls, data: AnnData, registry: dict[str, Any]) -> None:
        spec = CellsSpec(**registry["setup_args"])
        state = registry["field_registries"][cls._field_key]["state_registry"]
        read_cells(data, spec, training=False, genes=state["gene_names"])
        own_data(data)
        setup = {name: registry[name] for name in ("model_name", "setup_method_name", "setup_args")}
        cls._register(data, CellsField(spec), setup, source=registry)

    def _module_of(self, tensors: Mapping[str, Tensor]) -> MaskedDiffusionModule:
        n_places, n_references = (len(tensors[f"{of}.position"]) for of in ("places", "references"))
        return self._make_module(n_places, n_references)
