"""Resizing."""

from __future__ import annotations

from typing import Any

from pycnn import functional
from pycnn.onnx._network import Node
from pycnn.onnx._operators._windows import as_images, from_images
from pycnn.onnx._registry import Values
from pycnn.onnx._view import IMAGE, View
from pycnn.pytorch._graph import Reader
from pycnn.pytorch._operators._table import own, translates

__all__: list[str] = []


@translates(
    "upsample_nearest1d.vec", "upsample_nearest2d.vec",
    "_upsample_nearest_exact1d.vec", "_upsample_nearest_exact2d.vec",
    "upsample_linear1d.vec", "upsample_bilinear2d.vec", "upsample_bicubic2d.vec",
    "_upsample_bilinear2d_aa.vec", "_upsample_bicubic2d_aa.vec",
)  # fmt: skip
def _upsample(r: Reader, a: Any) -> str:
    name = r.operator_name()
    modes = {"bicubic": "bicubic", "linear": "bilinear", "exact": "nearest-exact", "nearest": "nearest"}
    options: dict[str, Any] = {"mode": next(mode for word, mode in modes.items() if word in name)}
    if "_aa." in name:
        # With it PyTorch has Pillow's weights.
        options |= {"antialias": True, "cubic": -0.5}
    options["grid"] = "align_corners" if getattr(a, "align_corners", False) else ""
    sizes = [] if a.output_size is None else [int(n) for n in a.output_size]
    scales = [] if a.scale_factors is None else [float(s) for s in a.scale_factors]
    if len(r.shapes[a.input]) == 3:
        sizes, scales = sizes and [1, *sizes], scales and [1.0, *scales]
    return r.emit("aten.resize", [a.input], sizes=sizes, scales=scales, **options)


@own("aten.resize")
def _own_resize(values: Values, node: Node) -> View:
    view, how = values.view(node, 0), dict(node.attributes)
    sizes, scales, grid = how.pop("sizes"), how.pop("scales"), how.pop("grid")
    where: dict[str, Any] = {"size": sizes} if sizes else {"scale_factor": scales}
    result = functional.resize(as_images(node, view).in_order(IMAGE), grid=grid or None, **where, **how)
    return from_images(result, view.rank)
