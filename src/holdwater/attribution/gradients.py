"""Gradients that carry a graph: each keeps its step and its weights, in a cycle that is not collected."""

from collections.abc import Container, Iterator
from typing import Any

from holdwater.attribution.gain import Gain
from holdwater.attribution.kinds import class_of
from holdwater.attribution.links import PathPart
from holdwater.attribution.named import MOST_NAMED_NODES
from holdwater.attribution.weights import NODE_BYTES, Weight, follow_graphs, graph_of, note_storage

GRADIENT = PathPart("attribute", "grad", "torch.nn.parameter.Parameter")
"""How a weight holds its gradient."""


def gradients_gained(tensors: list[Any], known: Container[int]) -> Iterator[Gain]:
    """Gradients that carry a graph, and so keep the step that made them, including its weights.

    Args:
        tensors: Live tensors.
        known: Addresses of storages that existed at the previous count.
    """
    base = class_of("torch", "Tensor")
    graphs, fresh = [], 0
    storages: dict[int, int] = {}
    for item in tensors:
        if base.is_leaf.__get__(item) and base.requires_grad.__get__(item):
            gradient = base.grad.__get__(item)
            graph = None if gradient is None else graph_of(gradient)
            if graph is not None:
                graphs.append(graph)
                own: dict[int, int] = {}
                note_storage(item, own)
                note_storage(gradient, own)
                storages |= own
                fresh += not all(address in known for address in own)
    if graphs:
        nodes = follow_graphs(graphs, storages, most=MOST_NAMED_NODES)
        size = sum(size for address, size in storages.items() if address not in known)
        weight = Weight(tensors=size, native=NODE_BYTES * nodes)
        yield Gain("gradients", "Tensor", fresh or len(graphs), weight, nodes=nodes)
