"""The table of ATen operators: which nodes each one becomes.

Most are operators of ONNX too, and become nodes of those. `OWN` holds what ONNX has not, or has with other limits.
"""

from pycnn.pytorch._operators import (
    comparison,
    convolution,
    elementwise,
    normalization,
    pooling,
    products,
    reduction,
    resizing,
    shape,
)
from pycnn.pytorch._operators._table import OWN, TRANSLATIONS

__all__ = [
    "OWN", "TRANSLATIONS", "comparison", "convolution", "elementwise", "normalization", "pooling", "products",
    "reduction", "resizing", "shape",
]  # fmt: skip
