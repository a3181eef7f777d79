"""A forest of randomized trees as plain arrays: grown by scikit-learn, read and asked without it.

Geurts, Ernst & Wehenkel 2006, "Extremely randomized trees". The spread of a prediction is the law of total variance:
between the trees' means, plus within the leaves (Hutter et al. 2014, arXiv:1211.0906).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..activations import Array

Whole = NDArray[np.int64]


@dataclass(frozen=True)
class Forest:
    """Trees over a shared table of nodes; a node's children are places in the same table.

    Attributes:
        roots: [trees], where each tree begins.
        feature: [nodes], the column that a node asks for; −1 at a leaf.
        threshold: [nodes]; what is at most that goes left.
        missing_left: [nodes], whether an unknown number goes left.
        left, right: [nodes].
        mean: [nodes, targets], of the examples that came there.
        variance: [nodes, targets], of the same.
    """

    roots: Whole
    feature: Whole
    threshold: Array
    missing_left: NDArray[np.bool_]
    left: Whole
    right: Whole
    mean: Array
    variance: Array

    def leaves(self, rows: NDArray[np.float32]) -> Whole:
        """Returns the leaf that each row comes to in each tree, [rows, trees]."""
        at = np.broadcast_to(self.roots, (len(rows), len(self.roots))).copy()
        row = np.arange(len(rows))[:, None]
        while True:
            column = self.feature[at]
            inner = column >= 0
            if not inner.any():
                return at
            values = rows[row, np.maximum(column, 0)]
            goes_left = np.where(np.isnan(values), self.missing_left[at], values <= self.threshold[at])
            at = np.where(inner, np.where(goes_left, self.left[at], self.right[at]), at)

    def by_tree(self, rows: Array) -> Array:
        """Returns the mean that each tree has for each row, [rows, trees, targets]."""
        return np.asarray(self.mean[self.leaves(rows.astype(np.float32))])

    def predict(self, rows: Array) -> tuple[Array, Array]:
        """Returns mean and standard deviation of each target for each row, both [rows, targets]."""
        leaves = self.leaves(rows.astype(np.float32))
        means = self.mean[leaves]
        spread = means.var(axis=1) + self.variance[leaves].mean(axis=1)
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
    parts: list[tuple[NDArray[np.generic], ...]] = []
    roots, first = [], 0
    for estimator in model.estimators_:
        tree = estimator.tree_
        inner = tree.children_left >= 0
        mean = tree.value[:, :, 0]
        parts.append(
            (
                np.where(inner, tree.feature, -1),
                tree.threshold.astype(np.float64),
                tree.missing_go_to_left.astype(bool),
                np.where(inner, tree.children_left + first, -1),
                np.where(inner, tree.children_right + first, -1),
                mean,
                _variance(estimator.apply(narrow), targets, weight, mean, tree.node_count),
            )
        )
        roots.append(first)
        first += tree.node_count
    joined = [np.concatenate(column) for column in zip(*parts, strict=True)]
    feature, threshold, missing, left, right, means, variances = joined
    return Forest(
        np.array(roots, dtype=np.int64),
        feature.astype(np.int64),
        threshold.astype(np.float64),
        missing.astype(bool),
        left.astype(np.int64),
        right.astype(np.int64),
        means.astype(np.float64),
        variances.astype(np.float64),
    )


def _variance(leaves: Whole, targets: Array, weight: Array, mean: Array, nodes: int) -> Array:
    """Returns the variance of the examples' targets at each leaf, about that tree's own mean there."""
    squares = weight[:, None] * (targets - mean[leaves]) ** 2
    total = np.zeros((nodes, targets.shape[1]))
    np.add.at(total, leaves, squares)
    held = np.bincount(leaves, weights=weight, minlength=nodes)
    return total / np.maximum(held, 1e-300)[:, None]
