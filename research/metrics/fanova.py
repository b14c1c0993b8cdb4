"""fANOVA: what share of a metric's variance each parameter explains alone, by a random forest over runs of any design.

The numbers are those of Optuna's FanovaImportanceEvaluator on the same forest (tests/parity/test_optuna_fanova.py). It walks
every tree in Python, once for each threshold of a parameter: 15.4 s for a forest of 64 trees on 1,000 runs of three parameters
(one core), where whole arrays of leaves take .37 s; a report grows several forests.
"""

import numpy as np

from research.errors import UserError


def main_effects(columns: np.ndarray, bounds: np.ndarray, values: np.ndarray, trees: int, seed: int) -> np.ndarray:
    """Compute each parameter's main effect as a share of the forest's variance over the space, uniform within the bounds.

    A tree is constant on its leaves, which are boxes: f = Σ_l v_l · 1[x ∈ box_l]. Its marginal over all but parameter j is
    a_j(x_j) = Σ_l v_l · vol_{−j}(box_l) · 1[x_j ∈ box_l], and the share is Var a_j / Var f; the mean over trees.

    Args:
        columns: (n, d), a run a row; levels as numbers.
        bounds: (d, 2), lowest and highest of each column; strictly apart.
        values: (n,), the metric.
        trees: of the forest, ≥ 1.
        seed: of its draws.

    Returns:
        (d,) shares in [0, 1]; their sum is at most 1, the rest are interactions.

    Raises:
        UserError: the forest is constant: all values are equal, or all rows are.

    Source: Hutter, Hoos & Leyton-Brown 2014, Algorithm 1; the forest grown as Optuna grows it.
    """
    from sklearn.ensemble import RandomForestRegressor  # here: an extra of the package, and a second for these forests alone

    forest = RandomForestRegressor(n_estimators=trees, max_depth=64, random_state=seed).fit(columns, values)
    shares_of_trees = [_tree(tree.tree_, np.asarray(bounds, dtype=np.float64)) for tree in forest.estimators_]
    shares_of_trees = [shares for shares in shares_of_trees if shares is not None]
    if not shares_of_trees:
        raise UserError(f"{len(values)} runs whose values do not depend on their parameters; expected some that differ.")
    return np.mean(shares_of_trees, axis=0)


def _tree(tree, bounds: np.ndarray) -> np.ndarray | None:
    """Compute the (d,) shares of one tree; None if the tree is constant."""
    low, high = (np.repeat(bounds[None, :, i], tree.node_count, axis=0) for i in (0, 1))  # (nodes, d): boxes
    for node in range(tree.node_count):  # a parent stands before its children
        left, right, axis = tree.children_left[node], tree.children_right[node], tree.feature[node]
        if left < 0:
            continue
        low[[left, right]], high[[left, right]] = low[node], high[node]
        high[left, axis] = low[right, axis] = tree.threshold[node]
    leaves = tree.children_left < 0
    low, high, value = low[leaves], high[leaves], tree.value[leaves, 0, 0]
    sides = (high - low) / (bounds[:, 1] - bounds[:, 0])  # (leaves, d), of the whole space
    volume = sides.prod(axis=1)
    value = value - volume @ value
    variance = volume @ value**2
    if variance <= 0:
        return None
    shares = np.empty(len(bounds))
    for axis in range(len(bounds)):
        edges = np.unique(np.concatenate([low[:, axis], high[:, axis]]))
        middles, widths = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / (bounds[axis, 1] - bounds[axis, 0])
        others = np.delete(sides, axis, axis=1).prod(axis=1)
        inside = (low[:, axis, None] <= middles) & (middles < high[:, axis, None])  # (leaves, intervals)
        marginal = (others * value) @ inside
        shares[axis] = widths @ marginal**2 / variance  # its mean is 0, as the tree's
    return shares
