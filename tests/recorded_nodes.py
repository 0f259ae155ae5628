"""What a net becomes when it is recorded: its nodes, and what those of one kind leave."""

from __future__ import annotations

from pycnn.tracing import trace


def nodes_of(net, shape=None):
    """All nodes for one image, of the net's own shape or another."""
    traced = trace(lambda x: net(x), {"x": ((1, *(shape or net.input_shape)), "float32")}, root=net)
    return traced.graph.nodes()


def maps(net, op, shape=None):
    """Height, width and channels that the ops of one kind leave, in order."""
    return [
        tuple(node["outputs"][0][0][1:]) for node in nodes_of(net, shape) if getattr(node.get("op"), "name", "") == op
    ]
