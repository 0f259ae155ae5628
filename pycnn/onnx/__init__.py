"""ONNX files: `load` makes a net of one, `export` writes one.

The package onnx, which reads and writes the format's protocol buffers, is needed for both: `pip install 'pycnn[onnx]'`.

Example:
    >>> import pycnn
    >>> net = pycnn.onnx.load("resnet50.onnx")  # doctest: +SKIP
    >>> net(images_nchw)  # doctest: +SKIP
"""

from pycnn.onnx._export import export
from pycnn.onnx._module import OnnxModule, load

__all__ = ["OnnxModule", "export", "load"]
