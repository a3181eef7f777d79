"""A forest of randomized trees as plain arrays: grown by scikit-learn, read and asked without it.

Geurts, Ernst & Wehenkel 2006, "Extremely randomized trees". The spread of a prediction is the law of total variance:
between the trees' means, plus within the leaves (Hutter et al. 2014, arXiv:1211.0906).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..activations import Array

if TYPE_CHECKING:  # loaded where a forest is grown only: it takes a second
    from sklearn.tree import ExtraTreeRegressor

Whole = NDArray[np.int64]
Narrow = NDArray[np.float16]


@dataclass(frozen=True)
class Forest:
    """Trees over a shared table of nodes; a node's left child stands right after it, its right one farther down.

    The numbers are as narrow as does no harm, since a fitted recommender ships with the package: means and variances
    are kept to three digits, of which trees of a few hundred tasks know one.

    Attributes:
        roots: [trees], where each tree begins.
        feature: [nodes], the column that a node asks for; −1 at a leaf.
        threshold: [nodes]; what is at most that goes left; 0 at a leaf.
        missing_left: [nodes], whether an unknown number goes left.
        right: [nodes], so much farther down is the right child; 0 at a leaf.
        mean: [nodes, targets], of the examples that came to a leaf; 0 elsewhere.
        variance: [nodes, targets], of the same.
    """

    roots: NDArray[np.int32]
    feature: NDArray[np.int16]
    threshold: NDArray[np.float32]
    missing_left: NDArray[np.bool_]
    right: NDArray[np.int32]
    mean: Narrow
    variance: Narrow

    def leaves(self, rows: NDArray[np.float32]) -> Whole:
        """Returns the leaf that each row comes to in each tree, [rows, trees]."""
        at = np.broadcast_to(self.roots.astype(np.int64), (len(rows), len(self.roots))).copy()
        row = np.arange(len(rows))[:, None]
        while True:
            column = self.feature[at]
            inner = column >= 0
            if not inner.any():
                return at
            values = rows[row, np.maximum(column, 0)]
            goes_left = np.where(np.isnan(values), self.missing_left[at], values <= self.threshold[at])
            at = np.where(inner, at + np.where(goes_left, 1, self.right[at]), at)

    def by_tree(self, rows: Array) -> Array:
        """Returns the mean that each tree has for each row, [rows, trees, targets]."""
        return self.mean[self.leaves(rows.astype(np.float32))].astype(np.float64)

    def predict(self, rows: Array) -> tuple[Array, Array]:
        """Returns mean and standard deviation of each target for each row, both [rows, targets]."""
        leaves = self.leaves(rows.astype(np.float32))
        means = self.mean[leaves].astype(np.float64)
        spread = means.var(axis=1) + self.variance[leaves].astype(np.float64).mean(axis=1)
        return means.mean(axis=1), np.sqrt(np.maximum(spread, 0.0))


def grown(rows: Array, targets: Array, weight: Array, *, trees: int, leaf: int, share: float, seed: int) -> Forest:
    """Returns a forest fitted to examples.

    Args:
        rows: [examples, features]; NaN for what is unknown.
        targets: [examples, targets].
        weight: [examples].
        trees: how many.
        leaf: fewest examples at a leaf.
        share: of the features that a split chooses from.
        seed: of the splits.
    """
    from sklearn.ensemble import ExtraTreesRegressor

    model = ExtraTreesRegressor(
        trees, min_samples_leaf=leaf, max_features=share, random_state=seed, n_jobs=-1, bootstrap=True
    )
    narrow = rows.astype(np.float32)  # what trees compare: asked with another width, a row could go elsewhere
    model.fit(narrow, targets.squeeze(1) if targets.shape[1] == 1 else targets, sample_weight=weight)
    return _joined([_tree(estimator, narrow, targets, weight) for estimator in model.estimators_])


def _tree(
    estimator: ExtraTreeRegressor, rows: NDArray[np.float32], targets: Array, weight: Array
) -> tuple[NDArray[Any], ...]:
    """Returns the columns of one tree, in the order of `Forest`; scikit-learn puts each left child right after."""
    tree = estimator.tree_
    inner = tree.children_left >= 0
    places = np.arange(tree.node_count)
    mean = tree.value[:, :, 0]
    return (
        np.where(inner, tree.feature, -1).astype(np.int16),
        np.where(inner, tree.threshold, 0.0).astype(np.float32),
        tree.missing_go_to_left.astype(bool) & inner,
        np.where(inner, tree.children_right - places, 0).astype(np.int32),
        np.where(inner[:, None], 0.0, mean).astype(np.float16),
        _variance(estimator.apply(rows), targets, weight, mean, tree.node_count).astype(np.float16),
    )


def _joined(trees: Sequence[tuple[NDArray[Any], ...]]) -> Forest:
    sizes = [len(tree[0]) for tree in trees]
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int32)
    return Forest(roots, *(np.concatenate(column) for column in zip(*trees, strict=True)))


def _variance(leaves: Whole, targets: Array, weight: Array, mean: Array, nodes: int) -> Array:
    """Returns the variance of the examples' targets at each leaf, about that tree's own mean there."""
    squares = weight[:, None] * (targets - mean[leaves]) ** 2
    total = np.zeros((nodes, targets.shape[1]))
    np.add.at(total, leaves, squares)
    held = np.bincount(leaves, weights=weight, minlength=nodes)
    return total / np.maximum(held, 1e-300)[:, None]
