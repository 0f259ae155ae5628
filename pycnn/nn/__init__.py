"""Layers, blocks and losses; everything that a net is made of.

Names and arguments are PyTorch's where PyTorch has the layer. Images are (N, H, W, C).
"""

from pycnn import functional
from pycnn.nn import init
from pycnn.nn._running import features
from pycnn.nn._state import LoadReport, Mismatch
from pycnn.nn.activation import (
    CELU,
    ELU,
    GELU,
    SELU,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    LeakyReLU,
    LogSoftmax,
    Mish,
    PReLU,
    ReLU,
    ReLU6,
    ScaledTanh,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Softsign,
    Tanh,
    Threshold,
)
from pycnn.nn.auxiliary import Auxiliary, auxiliary, collect_auxiliary
from pycnn.nn.blocks import BasicBlock, Bottleneck, Inception
from pycnn.nn.containers import Concat, ModuleList, Parallel, Sequential
from pycnn.nn.conv import Conv2d, ConvTranspose2d
from pycnn.nn.dropout import Dropout
from pycnn.nn.files import GraphModule, load, save
from pycnn.nn.heads import head_names, replace_head
from pycnn.nn.linear import Linear
from pycnn.nn.loss import CrossEntropyLoss, MSELoss
from pycnn.nn.module import Module
from pycnn.nn.norm import BatchNorm2d, GroupNorm, InstanceNorm2d, LayerNorm, LocalResponseNorm, Normalize
from pycnn.nn.pool import AdaptiveAvgPool2d, AvgPool2d, GlobalAvgPool2d, GlobalMaxPool2d, LPPool2d, MaxPool2d
from pycnn.nn.shape import Flatten, Identity, Pad, Upsample
from pycnn.nn.weights import load_weights, read_weights
from pycnn.tensor import Parameter

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "SELU",
    "AdaptiveAvgPool2d",
    "Auxiliary",
    "AvgPool2d",
    "BasicBlock",
    "BatchNorm2d",
    "Bottleneck",
    "Concat",
    "Conv2d",
    "ConvTranspose2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2d",
    "GlobalMaxPool2d",
    "GraphModule",
    "GroupNorm",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "Identity",
    "Inception",
    "InstanceNorm2d",
    "LPPool2d",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LoadReport",
    "LocalResponseNorm",
    "LogSoftmax",
    "MSELoss",
    "MaxPool2d",
    "Mish",
    "Mismatch",
    "Module",
    "ModuleList",
    "Normalize",
    "PReLU",
    "Pad",
    "Parallel",
    "Parameter",
    "ReLU",
    "ReLU6",
    "ScaledTanh",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Softsign",
    "Tanh",
    "Threshold",
    "Upsample",
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
