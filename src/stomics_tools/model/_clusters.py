"""How many domains a latent space holds, and which spots they are: mixtures that are split and merged."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import sparse
from scipy.special import softmax

from stomics_tools._mixture import TiedMixture, expectation_maximisation

_SEARCHED = 4000  # spots on which the numbers of clusters compete
_FEW = 10  # spots a cluster holds at least
_REFERENCE = 24  # clusters from which the noise within is learned
_BOUNDARY = 1.25  # a spot is at a boundary if it differs from its neighbours by so many times the median
_TRIED = 10  # steps of EM after which moves compete
_POLISHED = 2  # moves that go on after these
_ROUNDS = 3  # of splits and merges
_APART = 4.0  # standard deviations between clusters


def find_prototypes(
    z: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    n_prototypes: int | None = None,
    graph: sparse.csr_matrix | None = None,
    max_prototypes: int = 20,
    seed: int = 0,
) -> np.ndarray:
    """Clusters of a smooth latent space: a Gaussian mixture of one covariance, whose components are split and merged.

    Parameters
    ----------
    z
        ``(n_obs, n_latent)``, finite; columns of no variance are ignored.
    labels
        Clusters ``(n_obs,)`` from which the search begins, beside a single one.
    n_prototypes
        Number of clusters; of few spots there are fewer, each having ten. Default: it is found, see the notes.
    graph
        Neighbours in space ``(n_obs, n_obs)``. With it, spots at a boundary, whose latent is a blend of two domains,
        take no part until the end.
    max_prototypes
        Most clusters that are tried. A number is found if about four more than it can be tried.
    seed
        Of the starts of the splits, and of the spots drawn if there are many.

    Returns
    -------
    Labels ``0 ... K-1``, the largest cluster first, int64 ``(n_obs,)``.

    Notes
    -----
    For each number of clusters the most likely mixture is sought by splits of one fewer and merges of one more. With
    the number of domains the gain in likelihood by one more cluster drops; as neighbouring spots are not independent
    it does not drop to what an information criterion would take for chance. So the number is where two levels describe
    the logarithms of the gains best, one before and one after it. A gain is multiplied by the cube root of the number
    of clusters, as those of mere chance shrink with the clusters. Clusters less than four standard deviations apart
    are not told from the halves of a gradient, which are 3.5 apart; then there are fewer.

    Source: split and merge EM (Ueda et al., Neural Computation 2000).
    """
    x = _whitened(z)
    if x.shape[1] == 0:
        return np.zeros(len(z), dtype=np.int64)
    rng = np.random.default_rng(seed)
    most = max(1, min(max_prototypes if n_prototypes is None else n_prototypes, len(x) // _FEW))
    rows = np.arange(len(x)) if graph is None else np.flatnonzero(_inside(x, graph, rng))
    if len(rows) > _SEARCHED:
        rows = np.sort(rng.choice(rows, _SEARCHED, replace=False))
    search = _Search(x[rows], rng)
    if labels is not None:
        search.start(labels[rows])
    # A few more than asked for: merging them leads to other clusters than splitting.
    search.run(most if n_prototypes is None else most + 2)
    found = search.found
    best = _number(found) if n_prototypes is None else min(found, key=lambda k: abs(k - most))
    return _by_size(found[best].predict(x))


def _number(found: dict[int, TiedMixture]) -> int:
    """Number of clusters at which the gain in likelihood breaks, or the next smaller one of clusters that lie apart."""
    numbers = np.array(sorted(found))
    gains = np.diff([found[k].log_likelihood for k in numbers]) / np.diff(numbers)
    levels = np.log(np.maximum(gains, 1e-3) * np.cbrt(numbers[:-1]))
    breaks = range(1, min(len(levels), max(2, len(levels) - 2)))  # three gains after it, where there are as many
    misfit = [levels[:b].var() * b + levels[b:].var() * (len(levels) - b) for b in breaks]
    chosen = int(numbers[1 + np.argmin(misfit)]) if misfit else int(numbers[-1])
    while chosen > 1 and (chosen not in found or _separation(found[chosen]).min() < _APART):
        chosen -= 1
    return chosen


class _Search:
    """The most likely mixture of each number of components met so far, of rows ``(n, d)``."""

    def __init__(self, x: np.ndarray, rng: np.random.Generator) -> None:
        self.x, self.rng = x, rng
        self.found: dict[int, TiedMixture] = {}
        self.start(np.zeros(len(x), dtype=np.int64))

    def start(self, labels: np.ndarray) -> None:
        """Begin with those clusters that have enough rows."""
        codes = np.unique(labels, return_inverse=True)[1]
        own = np.eye(codes.max() + 1)[codes]
        own = own[:, own.sum(axis=0) >= min(_FEW, len(own))] + 1e-9
        if own.shape[1]:
            self._offer([own / own.sum(axis=1, keepdims=True)])

    def run(self, most: int) -> None:
        """Up to `most` components by splits and down by merges, until neither finds anything better."""
        split: dict[int, TiedMixture] = {}
        merged: dict[int, TiedMixture] = {}
        for _ in range(_ROUNDS):
            better = False
            for k in range(1, most):
                if k in self.found and split.get(k) is not self.found[k]:
                    split[k] = self.found[k]
                    better |= self._offer(self._splits(self.found[k]))
            for k in range(max(self.found), 2, -1):
                if k in self.found and merged.get(k) is not self.found[k]:
                    merged[k] = self.found[k]
                    better |= self._offer(self._merges(self.found[k]))
            if not better:
                break

    def _offer(self, starts: list[np.ndarray]) -> bool:
        """Keep what the most promising of `starts` (responsibilities of as many components) leads to, if it is better."""
        tried = [expectation_maximisation(self.x, start, tol=1e-4, max_iter=_TRIED) for start in starts]
        better = False
        for fit in sorted(tried, key=lambda fit: -fit.log_likelihood)[:_POLISHED]:
            fit = expectation_maximisation(self.x, _responsibilities(fit, self.x), tol=1e-4, max_iter=100)
            k = len(fit.weights)
            known = self.found.get(k)
            if k == 1 or (fit.n_populated == k and (known is None or fit.log_likelihood > known.log_likelihood + 1e-3)):
                self.found[k] = fit
                better = True
        return better

    def _splits(self, fit: TiedMixture) -> list[np.ndarray]:
        """Each component cut in two, along its longest axis or between two of its rows, whichever fits better."""
        responsibilities = _responsibilities(fit, self.x)
        x = self.x @ np.linalg.cholesky(np.linalg.inv(fit.covariance))
        nearest = responsibilities.argmax(axis=1)
        starts = []
        for k in range(len(fit.weights)):
            rows = np.flatnonzero(nearest == k)
            if len(rows) < 2 * _FEW:
                continue
            part = x[rows] - x[rows].mean(axis=0)
            cuts = [expectation_maximisation(part, half, tol=1e-3, max_iter=_TRIED) for half in self._halves(part)]
            cuts = [cut for cut in cuts if cut.n_populated == 2]
            if cuts:
                share = _responsibilities(max(cuts, key=lambda cut: cut.log_likelihood), part)
                start = np.column_stack([responsibilities, np.zeros(len(x))])
                start[rows, -1] = start[rows, k] * share[:, 1]
                start[rows, k] *= share[:, 0]
                starts.append(start)
        return starts

    def _halves(self, part: np.ndarray) -> Iterator[np.ndarray]:
        longest = np.linalg.eigh(part.T @ part)[1][:, -1]
        yield np.eye(2)[(part @ longest > 0).astype(int)]
        for _ in range(2):
            first, second = part[self.rng.choice(len(part), 2, replace=False)]
            middle = (first + second) / 2
            yield np.eye(2)[((part - middle) @ (first - second) > 0).astype(int)]

    def _merges(self, fit: TiedMixture) -> list[np.ndarray]:
        """The six pairs joined that lose least by it."""
        responsibilities = _responsibilities(fit, self.x)
        a, b = np.triu_indices(len(fit.weights), 1)
        w = fit.weights
        loss = _separation(fit) ** 2 * w[a] * w[b] / (w[a] + w[b])
        starts = []
        for pair in np.argsort(loss)[:6]:
            start = responsibilities.copy()
            start[:, a[pair]] += start[:, b[pair]]
            starts.append(np.delete(start, b[pair], axis=1))
        return starts


def _responsibilities(fit: TiedMixture, x: np.ndarray) -> np.ndarray:
    return np.asarray(softmax(fit.log_odds(x), axis=1))


def _separation(fit: TiedMixture) -> np.ndarray:
    """Mahalanobis distance of each pair of components, in the order of ``np.triu_indices(K, 1)``."""
    means = fit.means @ np.linalg.cholesky(np.linalg.inv(fit.covariance))
    a, b = np.triu_indices(len(means), 1)
    return np.asarray(np.linalg.norm(means[a] - means[b], axis=1))


def _whitened(z: np.ndarray) -> np.ndarray:
    """Uncorrelated columns of variance 1, ``(n_obs, rank)``."""
    x = np.asarray(z, dtype=np.float64)
    x = x - x.mean(axis=0)
    size, axes = np.linalg.eigh(x.T @ x / len(x))
    kept = size > max(1e-10 * size[-1], np.finfo(np.float64).tiny)
    return np.asarray(x @ (axes[:, kept] / np.sqrt(size[kept])))


def _inside(x: np.ndarray, graph: sparse.csr_matrix, rng: np.random.Generator) -> np.ndarray:
    """Spots that differ from their neighbours no more than usual, in units of the covariance within small clusters."""
    n_parts = max(1, min(_REFERENCE, len(x) // (2 * x.shape[1])))
    sample = rng.choice(len(x), min(_SEARCHED, len(x)), replace=False)
    seeds = x[sample[:n_parts]]
    start = np.eye(n_parts)[np.argmin((seeds**2).sum(axis=1) - 2 * x[sample] @ seeds.T, axis=1)]
    within = expectation_maximisation(x[sample], start, tol=1e-3, max_iter=50).covariance
    y = x @ np.linalg.cholesky(np.linalg.inv(within))
    i, j = sparse.csr_matrix(graph).nonzero()
    differs = np.bincount(i, ((y[i] - y[j]) ** 2).sum(axis=1), len(x)) / np.maximum(np.bincount(i, minlength=len(x)), 1)
    return np.asarray(differs <= _BOUNDARY * np.median(differs))


def _by_size(labels: np.ndarray) -> np.ndarray:
    codes = np.unique(labels, return_inverse=True)[1]
    order = np.argsort(-np.bincount(codes), kind="stable")
    return np.argsort(order)[codes]
