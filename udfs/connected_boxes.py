"""Connected components of sparse graphs over boxes."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from udfs.boxes import IntArray


def component_heads(first: IntArray, second: IntArray, n_nodes: int) -> IntArray:
    """Connected components of a sparse graph over n nodes.

    Args:
        first: (e,), one end of every edge.
        second: (e,), the other end.
        n_nodes: Number of nodes.

    Returns:
        (n,), the smallest node of the component of every node; itself where it is alone.
    """
    smallest = np.arange(n_nodes)
    if len(first) == 0:
        return smallest
    nodes, position = np.unique(np.concatenate((first, second)), return_inverse=True)
    rows, columns = np.split(position, 2)
    graph = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(len(nodes), len(nodes)))
    component = connected_components(graph, directed=False)[1]
    head = np.full(component.max() + 1, n_nodes, np.int64)
    np.minimum.at(head, component, nodes)
    smallest[nodes] = head[component]
    return smallest
