"""
The compiled core of pycnn. Use the package's own modules; this one is not a public interface.
"""
from __future__ import annotations
import collections.abc
import numpy
import typing
__all__: list[str] = ['Activation', 'ActivationGrad', 'AdamUpdate', 'AdaptiveAvgPool2d', 'AdaptiveAvgPool2dGrad', 'Add', 'Affine', 'AvgPool2d', 'AvgPool2dGrad', 'BatchNorm', 'BatchNormInference', 'BatchNormInferenceGrad', 'BatchNormTrain', 'BatchNormTrainGrad', 'BlockTensor', 'Broadcast', 'ClipFactor', 'Concat', 'Conv2d', 'Conv2dGradInput', 'Conv2dGradWeight', 'Dense', 'DenseGradInput', 'DenseGradWeight', 'Dropout', 'DropoutTrain', 'EmaUpdate', 'Fill', 'FoldBatchNorm', 'GlobalAvgPool2d', 'GlobalAvgPool2dGrad', 'GlobalMaxPool2d', 'GlobalMaxPool2dGrad', 'Graph', 'Inception', 'Increment', 'Initializer', 'LocalResponseNorm', 'LocalResponseNormGrad', 'LogSoftmax', 'LogSoftmaxGrad', 'MaxPool2d', 'MaxPool2dGrad', 'MeanSquaredError', 'MeanSquaredErrorGrad', 'Multiply', 'NormalizeImage', 'Optimizer', 'Pad', 'ParameterGroup', 'Program', 'Reduce', 'Reshape', 'Residual', 'SgdUpdate', 'Slice', 'Softmax', 'SoftmaxCrossEntropy', 'SoftmaxCrossEntropyGrad', 'SoftmaxGrad', 'Subtract', 'SymbolId', 'Take', 'TakeGrad', 'Tensor', 'TopKCorrect', 'Transpose', 'Variables', 'compile', 'load_model', 'machine', 'read_checkpoint', 'save_model', 'variants', 'version', 'write_checkpoint']
class Initializer:
    """
    How a fresh parameter gets its values.
    """
    def __init__(self, kind: str = 'constant', a: typing.SupportsFloat | typing.SupportsIndex = 0.0, b: typing.SupportsFloat | typing.SupportsIndex = 0.0) -> None:
        ...
    @property
    def a(self) -> float:
        ...
    @property
    def b(self) -> float:
        ...
    @property
    def kind(self) -> str:
        ...
class Tensor:
    """
    Shared array of the core.
    """
    @staticmethod
    def from_array(array: numpy.ndarray) -> Tensor:
        """
        Copies a contiguous array.
        """
    def __init__(self, shape: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], dtype: str = 'float32') -> None:
        """
        Zero-filled.
        """
    def assign(self, array: numpy.ndarray) -> None:
        """
        Overwrites the values in place.
        """
    def clone(self) -> Tensor:
        """
        A copy with its own storage.
        """
    def fill(self, init: Initializer, seed: typing.SupportsInt | typing.SupportsIndex, name: str) -> None:
        """
        Draws fresh values.
        """
    def shares_storage_with(self, other: Tensor) -> bool:
        ...
    def view(self) -> numpy.ndarray:
        """
        Read-only array over the same memory.
        """
    @property
    def bytes(self) -> int:
        ...
    @property
    def dtype(self) -> str:
        ...
    @property
    def shape(self) -> tuple:
        ...
    @property
    def version(self) -> int:
        ...
class Conv2d:
    name: typing.ClassVar[str] = 'conv2d'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class Conv2dGradInput:
    name: typing.ClassVar[str] = 'conv2d_grad_input'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class Conv2dGradWeight:
    name: typing.ClassVar[str] = 'conv2d_grad_weight'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class Dense:
    name: typing.ClassVar[str] = 'dense'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class DenseGradInput:
    name: typing.ClassVar[str] = 'dense_grad_input'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class DenseGradWeight:
    name: typing.ClassVar[str] = 'dense_grad_weight'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class MaxPool2d:
    name: typing.ClassVar[str] = 'max_pool2d'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class MaxPool2dGrad:
    name: typing.ClassVar[str] = 'max_pool2d_grad'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class AvgPool2d:
    name: typing.ClassVar[str] = 'avg_pool2d'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class AvgPool2dGrad:
    name: typing.ClassVar[str] = 'avg_pool2d_grad'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class AdaptiveAvgPool2d:
    name: typing.ClassVar[str] = 'adaptive_avg_pool2d'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class AdaptiveAvgPool2dGrad:
    name: typing.ClassVar[str] = 'adaptive_avg_pool2d_grad'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class GlobalAvgPool2d:
    name: typing.ClassVar[str] = 'global_avg_pool2d'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class GlobalAvgPool2dGrad:
    name: typing.ClassVar[str] = 'global_avg_pool2d_grad'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class GlobalMaxPool2d:
    name: typing.ClassVar[str] = 'global_max_pool2d'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class GlobalMaxPool2dGrad:
    name: typing.ClassVar[str] = 'global_max_pool2d_grad'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class BatchNorm:
    name: typing.ClassVar[str] = 'batch_norm'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class BatchNormTrain:
    name: typing.ClassVar[str] = 'batch_norm_train'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class BatchNormTrainGrad:
    name: typing.ClassVar[str] = 'batch_norm_train_grad'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class BatchNormInference:
    name: typing.ClassVar[str] = 'batch_norm_inference'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class BatchNormInferenceGrad:
    name: typing.ClassVar[str] = 'batch_norm_inference_grad'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class FoldBatchNorm:
    name: typing.ClassVar[str] = 'fold_batch_norm'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class LocalResponseNorm:
    name: typing.ClassVar[str] = 'local_response_norm'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class LocalResponseNormGrad:
    name: typing.ClassVar[str] = 'local_response_norm_grad'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class Activation:
    name: typing.ClassVar[str] = 'activation'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class ActivationGrad:
    name: typing.ClassVar[str] = 'activation_grad'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class Add:
    name: typing.ClassVar[str] = 'add'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class Subtract:
    name: typing.ClassVar[str] = 'subtract'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class Multiply:
    name: typing.ClassVar[str] = 'multiply'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class Affine:
    name: typing.ClassVar[str] = 'affine'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class Fill:
    name: typing.ClassVar[str] = 'fill'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class Dropout:
    name: typing.ClassVar[str] = 'dropout'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class DropoutTrain:
    name: typing.ClassVar[str] = 'dropout_train'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class NormalizeImage:
    name: typing.ClassVar[str] = 'normalize_image'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class Softmax:
    name: typing.ClassVar[str] = 'softmax'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class SoftmaxGrad:
    name: typing.ClassVar[str] = 'softmax_grad'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class LogSoftmax:
    name: typing.ClassVar[str] = 'log_softmax'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class LogSoftmaxGrad:
    name: typing.ClassVar[str] = 'log_softmax_grad'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class SoftmaxCrossEntropy:
    name: typing.ClassVar[str] = 'softmax_cross_entropy'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class SoftmaxCrossEntropyGrad:
    name: typing.ClassVar[str] = 'softmax_cross_entropy_grad'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class MeanSquaredError:
    name: typing.ClassVar[str] = 'mean_squared_error'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class MeanSquaredErrorGrad:
    name: typing.ClassVar[str] = 'mean_squared_error_grad'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class TopKCorrect:
    name: typing.ClassVar[str] = 'top_k_correct'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class Reduce:
    name: typing.ClassVar[str] = 'reduce'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class Broadcast:
    name: typing.ClassVar[str] = 'broadcast'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class Concat:
    name: typing.ClassVar[str] = 'concat'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class Slice:
    name: typing.ClassVar[str] = 'slice'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class Pad:
    name: typing.ClassVar[str] = 'pad'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class Reshape:
    name: typing.ClassVar[str] = 'reshape'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class Transpose:
    name: typing.ClassVar[str] = 'transpose'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class Take:
    name: typing.ClassVar[str] = 'take'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class TakeGrad:
    name: typing.ClassVar[str] = 'take_grad'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class Increment:
    name: typing.ClassVar[str] = 'increment'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class ClipFactor:
    name: typing.ClassVar[str] = 'clip_factor'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class SgdUpdate:
    name: typing.ClassVar[str] = 'sgd_update'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class AdamUpdate:
    name: typing.ClassVar[str] = 'adam_update'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class EmaUpdate:
    name: typing.ClassVar[str] = 'ema_update'
    def __init__(self, **kwargs) -> None:
        ...
    def attributes(self) -> dict:
        ...
class SymbolId:
    """
    A value within one graph.
    """
    def __init__(self, node: typing.SupportsInt | typing.SupportsIndex, output: typing.SupportsInt | typing.SupportsIndex, graph: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def result(self, index: typing.SupportsInt | typing.SupportsIndex) -> SymbolId:
        """
        Another output of the node.
        """
    @property
    def graph(self) -> int:
        ...
    @property
    def node(self) -> int:
        ...
    @property
    def output(self) -> int:
        ...
class Graph:
    """
    Recorded network.
    """
    @staticmethod
    def parse(text: str) -> Graph:
        ...
    def __init__(self) -> None:
        ...
    def add(self, op: typing.Any, inputs: collections.abc.Sequence[SymbolId], name: str = '', origin: str = '') -> SymbolId:
        ...
    def assign(self, variable: SymbolId, value: SymbolId) -> None:
        ...
    def buffer(self, name: str, shape: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], dtype: str) -> SymbolId:
        ...
    def clear_assignments(self) -> None:
        ...
    def clear_outputs(self) -> None:
        ...
    def contains(self, name: str) -> bool:
        ...
    def copy(self) -> Graph:
        ...
    def differentiate(self, loss: SymbolId, wrt: collections.abc.Sequence[SymbolId], relu_rule: str = 'exact') -> list[SymbolId]:
        ...
    def find(self, name: str) -> SymbolId:
        ...
    def input(self, name: str, shape: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], dtype: str) -> SymbolId:
        ...
    def nodes(self) -> list:
        """
        One dict a node, in order.
        """
    def outputs(self) -> list[tuple[str, SymbolId]]:
        ...
    def parameter(self, name: str, shape: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], dtype: str, layout: str = 'plain') -> SymbolId:
        ...
    def set_output(self, name: str, value: SymbolId) -> None:
        ...
    def spec(self, symbol: SymbolId) -> tuple:
        """
        (shape, dtype)
        """
    def specialize(self, mode: str) -> Graph:
        ...
    def text(self) -> str:
        ...
    def with_inputs(self, inputs: collections.abc.Mapping[str, tuple[collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], str]]) -> Graph:
        ...
class BlockTensor:
    """
    One tensor of a block.
    """
    @property
    def initializer(self) -> Initializer:
        ...
    @property
    def layout(self) -> str:
        ...
    @property
    def name(self) -> str:
        ...
    @property
    def shape(self) -> tuple:
        ...
    @property
    def trainable(self) -> bool:
        ...
class Residual:
    """
    Residual block.
    """
    def __init__(self, *, kind: str = 'basic', in_channels: typing.SupportsInt | typing.SupportsIndex = 64, channels: typing.SupportsInt | typing.SupportsIndex = 64, stride: typing.SupportsInt | typing.SupportsIndex = 1, groups: typing.SupportsInt | typing.SupportsIndex = 1, base_width: typing.SupportsInt | typing.SupportsIndex = 64, eps: typing.SupportsFloat | typing.SupportsIndex = 1e-05, momentum: typing.SupportsFloat | typing.SupportsIndex = 0.1, zero_init_residual: bool = False) -> None:
        ...
    def build(self, graph: Graph, input: SymbolId, tensors: collections.abc.Sequence[SymbolId], prefix: str = '', origin: str = '') -> SymbolId:
        ...
    def parameters(self) -> list[BlockTensor]:
        ...
    @property
    def out_channels(self) -> int:
        ...
class Inception:
    """
    Inception block.
    """
    def __init__(self, *, in_channels: typing.SupportsInt | typing.SupportsIndex = 192, branch1: typing.SupportsInt | typing.SupportsIndex = 64, reduce3: typing.SupportsInt | typing.SupportsIndex = 96, branch3: typing.SupportsInt | typing.SupportsIndex = 128, reduce5: typing.SupportsInt | typing.SupportsIndex = 16, branch5: typing.SupportsInt | typing.SupportsIndex = 32, pool: typing.SupportsInt | typing.SupportsIndex = 32, branch5_kernel: typing.SupportsInt | typing.SupportsIndex = 5, batch_norm: bool = False) -> None:
        ...
    def build(self, graph: Graph, input: SymbolId, tensors: collections.abc.Sequence[SymbolId], prefix: str = '', origin: str = '') -> SymbolId:
        ...
    def parameters(self) -> list[BlockTensor]:
        ...
    @property
    def out_channels(self) -> int:
        ...
class ParameterGroup:
    """
    Parameters that share hyper-parameters.
    """
    def __init__(self, names: collections.abc.Sequence[str], weight_decay: typing.SupportsFloat | typing.SupportsIndex, rate_scale: typing.SupportsFloat | typing.SupportsIndex, frozen: bool) -> None:
        ...
class Optimizer:
    """
    Update to append to a training program.
    """
    def __init__(self, *, kind: str, momentum: typing.SupportsFloat | typing.SupportsIndex, nesterov: bool, beta1: typing.SupportsFloat | typing.SupportsIndex, beta2: typing.SupportsFloat | typing.SupportsIndex, eps: typing.SupportsFloat | typing.SupportsIndex, weight_decay: typing.SupportsFloat | typing.SupportsIndex, groups: collections.abc.Sequence[ParameterGroup], clip_norm: typing.SupportsFloat | typing.SupportsIndex | None, ema_decay: typing.SupportsFloat | typing.SupportsIndex | None) -> None:
        ...
class Variables:
    """
    Named tensors that programs share.
    """
    def __contains__(self, arg0: str) -> bool:
        ...
    def __delitem__(self, arg0: str) -> None:
        ...
    def __getitem__(self, arg0: str) -> Tensor:
        ...
    def __init__(self) -> None:
        ...
    def __len__(self) -> int:
        ...
    def __setitem__(self, arg0: str, arg1: Tensor) -> None:
        ...
    def create(self, graph: Graph, seed: typing.SupportsInt | typing.SupportsIndex = 0) -> None:
        """
        Makes what the graph names and the map lacks.
        """
    def keys(self) -> list[str]:
        ...
class Program:
    """
    Compiled graph.
    """
    def explain(self) -> str:
        ...
    def graph_text(self) -> str:
        ...
    def memory(self) -> dict:
        ...
    def profile(self) -> list:
        ...
    def run(self, *args) -> typing.Any:
        """
        Arrays in, tuple of arrays out; None when an input does not match exactly.
        """
    def start_profile(self) -> None:
        ...
    @property
    def inputs(self) -> list:
        ...
    @property
    def isa(self) -> str:
        ...
    @property
    def outputs(self) -> list:
        ...
    @property
    def threads(self) -> int:
        ...
def compile(graph: Graph, variables: Variables, *, mode: str, device: str, isa: str, threads: typing.SupportsInt | typing.SupportsIndex, variants: collections.abc.Mapping[str, str], fuse: bool, reuse_memory: bool, memory_limit_bytes: typing.SupportsInt | typing.SupportsIndex, loss: str, optimizer: Optimizer | None) -> Program:
    ...
def load_model(path: str) -> tuple[Graph, dict[str, Tensor], dict[str, str]]:
    """
    (graph, tensors by name in memory layout, metadata)
    """
def machine() -> dict:
    """
    What this machine offers.
    """
def read_checkpoint(path: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """
    (tensors by name, metadata)
    """
def save_model(path: str, graph: Graph, tensors: collections.abc.Mapping[str, Tensor], metadata: collections.abc.Mapping[str, str]) -> None:
    ...
def variants(op_name: str, device: str = 'cpu') -> list[str]:
    """
    Kernel variants of an op, best first.
    """
def write_checkpoint(path: str, tensors: collections.abc.Mapping[str, Tensor], metadata: collections.abc.Mapping[str, str]) -> None:
    ...
version: str = '0.1.0'
