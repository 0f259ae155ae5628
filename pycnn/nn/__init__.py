"""Layers, blocks and losses; everything that a net is made of.

Names and arguments are PyTorch's where PyTorch has the layer. Images are (N, H, W, C).
"""

from pycnn import functional
from pycnn.nn import init
from pycnn.nn._running import features
from pycnn.nn._state import LoadReport, Mismatch
from pycnn.nn.activation import (
    LeakyReLU,
    LogSoftmax,
    ReLU,
    ReLU6,
    ScaledTanh,
    Sigmoid,
    Softmax,
    Tanh,
)
from pycnn.nn.auxiliary import Auxiliary, auxiliary, collect_auxiliary
from pycnn.nn.blocks import BasicBlock, Bottleneck, Inception
from pycnn.nn.containers import Concat, ModuleList, Parallel, Sequential
from pycnn.nn.conv import Conv2d
from pycnn.nn.dropout import Dropout
from pycnn.nn.files import GraphModule, load, save
from pycnn.nn.heads import head_names, replace_head
from pycnn.nn.linear import Linear
from pycnn.nn.loss import CrossEntropyLoss, MSELoss
from pycnn.nn.module import Module
from pycnn.nn.norm import BatchNorm2d, LocalResponseNorm, Normalize
from pycnn.nn.pool import AdaptiveAvgPool2d, AvgPool2d, GlobalAvgPool2d, GlobalMaxPool2d, MaxPool2d
from pycnn.nn.shape import Flatten, Identity, Pad
from pycnn.nn.weights import load_weights, read_weights
from pycnn.tensor import Parameter

__all__ = [
    "AdaptiveAvgPool2d",
    "Auxiliary",
    "AvgPool2d",
    "BasicBlock",
    "BatchNorm2d",
    "Bottleneck",
    "Concat",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2d",
    "GlobalMaxPool2d",
    "GraphModule",
    "Identity",
    "Inception",
    "LeakyReLU",
    "Linear",
    "LoadReport",
    "LocalResponseNorm",
    "LogSoftmax",
    "MSELoss",
    "MaxPool2d",
    "Mismatch",
    "Module",
    "ModuleList",
    "Normalize",
    "Pad",
    "Parallel",
    "Parameter",
    "ReLU",
    "ReLU6",
    "ScaledTanh",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "auxiliary",
    "collect_auxiliary",
    "features",
    "functional",
    "head_names",
    "init",
    "load",
    "load_weights",
    "read_weights",
    "replace_head",
    "save",
]
