"""The linear model from which stage 1 begins: components of the profile, and what each token reads of them."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.utils.extmath import randomized_svd

from stomics_tools.model.var_st._vqvae import GeneVQVAE

_TIE = 1e-3
_UNTOLD = 0.1  # share of a direction's variance that codes leave; more or less of it (.05, .2) denoises as well
_LEAST = 0.03


@torch.no_grad()
def start_linear(stage1: GeneVQVAE, standardized: np.ndarray, tree: np.ndarray) -> None:
    """Set the weights of `stage1` to those of a linear model.

    Components of the field are those of probabilistic principal component analysis (Tipping & Bishop 1999): the
    principal components of the profile, each shrunk by the share of noise in its variance. From the coarsest scale on,
    each token reads the directions that tell most of the variance of its genes beyond what the coarser tokens tell: the leading
    eigenvectors of ``C^(1/2) L' L C^(1/2)`` for loadings ``L`` of its genes and the covariance ``C`` of what is left
    (where these are fewer than the dimensions of a code, the rest tell most of all other genes). Codes round: a share
    of the variance of a direction is left to finer tokens, which so correct the strongest directions once more. The
    finest tokens read what the components leave of their own genes as well.

    Parameters
    ----------
    stage1
        Its weights are written.
    standardized
        ``(n_obs, n_genes)``, training data, values not measured are zero.
    tree
        Groups of the genes, see :func:`~stomics_tools.model.var_st._gene_tree.gene_tree`.
    """
    n_obs, n_genes = standardized.shape
    rank, width = stage1.n_components, stage1.output_weight.shape[1]
    found = min(rank, n_genes, n_obs)
    _, values, rows = randomized_svd(standardized, n_components=found, random_state=0)
    loadings = np.zeros((n_genes, rank))
    loadings[:, :found] = rows.T
    variance = np.zeros(rank)
    variance[:found] = values**2 / n_obs
    noise = (standardized.var(axis=0).sum() - variance.sum()) / max(n_genes - found, 1)
    signal = np.clip(1 - noise / np.maximum(variance, 1e-12), 0, 1)
    left = standardized - standardized @ (loadings * signal) @ loadings.T
    own = np.eye(width - rank)[_slots(tree[-1]) % (width - rank)]  # every gene a dimension of its group's own part

    stage1.components.copy_(torch.as_tensor(loadings * signal))
    stage1.own_weight.copy_(torch.as_tensor(own))
    stage1.output_weight.copy_(torch.as_tensor(np.hstack([loadings, own])))

    dim, token, rng = stage1.quantizer.dim, 0, np.random.default_rng(0)
    known: dict[int, np.ndarray] = {
        -1: np.diag(signal * np.sqrt(variance))
    }  # square root of the covariance that is left, by group
    for scale, groups in enumerate(tree):
        finest = scale == len(tree) - 1
        left_by_group = {}
        for group in range(groups.max() + 1):
            genes = np.flatnonzero(groups == group)
            root = known[tree[scale - 1, genes[0]] if scale else -1]
            weight = loadings[genes]
            if finest:
                root = _block_diagonal(root, np.sqrt((own[genes] * left[:, genes].var(axis=0)[:, None]).sum(axis=0)))
                weight = np.hstack([weight, own[genes]])
            every = np.pad(loadings, ((0, 0), (0, len(root) - rank)))  # breaks ties among directions of no use here
            directions = _leading(np.vstack([weight @ root, _TIE * every @ root]), dim)
            read, tell = _balanced(root, directions, rng)
            stage1.project[token] = torch.as_tensor(np.pad(read, ((0, width - len(root)), (0, 0))))
            stage1.unproject[token] = torch.as_tensor(np.pad(tell, ((0, 0), (0, width - len(root)))))
            left_by_group[group] = root @ (np.eye(len(root)) - (1 - _UNTOLD**0.5) * directions @ directions.T)
            token += 1
        known = left_by_group


def _balanced(root: np.ndarray, directions: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """What reads `directions` of a field with covariance ``root root'``, and what tells them.

    The first are unit vectors ``(width, dim)``, the second ``(dim, width)``. Training moves all weights by about as
    much, so none may be far from one: where next to nothing is left to be read, an arbitrary vector reads and nothing
    is told.
    """
    read = np.linalg.pinv(root, rcond=_LEAST).T @ directions
    tell = (root @ directions).T
    size = np.linalg.norm(read, axis=0)
    useless = (np.linalg.norm(tell, axis=1) < _LEAST * np.linalg.norm(root, 2)) | (size == 0)
    read[:, useless] = rng.normal(size=(len(root), int(useless.sum())))
    size = np.where(useless, np.linalg.norm(read, axis=0), size)
    tell[useless] = 0
    return read / size, tell * size[:, None]


def _slots(groups: np.ndarray) -> np.ndarray:
    """Place of each gene in its group."""
    order = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups)
    slots = np.empty_like(groups)
    slots[order] = np.arange(len(groups)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return slots


def _leading(matrix: np.ndarray, n: int) -> np.ndarray:
    """Leading right singular vectors, ``(n_columns, n)``."""
    n_rows, n_columns = matrix.shape
    # All right singular vectors are wanted, but never all left ones: they would fill a square of the genes.
    return np.linalg.svd(matrix, full_matrices=n_rows < n_columns)[2][:n].T


def _block_diagonal(root: np.ndarray, diagonal: np.ndarray) -> np.ndarray:
    size = len(root)
    whole = np.zeros((size + len(diagonal),) * 2)
    whole[:size, :size] = root
    whole[size:, size:] = np.diag(diagonal)
    return whole
