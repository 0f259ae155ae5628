"""A net that is converted from a `torch.nn.Module`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from pycnn.errors import ArgumentError, DTypeError, GraphError, UnsupportedError
from pycnn.onnx._fold import fold_network
from pycnn.onnx._module import OnnxModule
from pycnn.onnx._network import Network
from pycnn.optional import optional
from pycnn.pytorch._batch import follow_images, recorded_batch
from pycnn.pytorch._graph import Reader

__all__ = ["TorchModule", "from_torch"]


def from_torch(module: Any, example_input: Any, *, input_layout: str = "NCHW") -> TorchModule:
    """Make a net of a `torch.nn.Module`: the same architecture, a copy of its weights under the same names.

    The module is recorded once by `torch.export`, in evaluation mode; it stays as it is. Dropout and batch norm act
    here as in any other net: when a program is compiled for training. What the module does only while its own
    ``training`` is set (heads for training) is not seen. Parameters whose ``requires_grad`` is False are frozen
    (`Module.freeze`); batch norms that are in evaluation mode while the module is in training mode have their
    statistics frozen. float64 weights become float32. Weights that are computed from others (``weight_norm``) become
    plain weights.

    Args:
        module: What to convert: a `torch.nn.Sequential`, a network of torchvision, one of your own.
        example_input: What it is called with: a tensor (N, C, H, W), an array, or the shape alone, for example
            ``(1, 3, 224, 224)``; a tuple or list of tensors for several inputs. Only shape and element type count. The
            net takes any number of images, of this size.
        input_layout: How inputs of four axes are given: "NCHW" as the module takes them, or "NHWC" as `pycnn.data` and
            all other nets here, which saves one transposition.

    Returns:
        A net that gives what the module gives: one array, or a tuple, list or dict of them.

    Raises:
        UnsupportedError: The module uses an operator that is not supported, or computes with the number of images; the
            message names the node, the operator and the line that calls it. Or torch is not installed.
        GraphError: torch.export cannot record the module, for example because a branch depends on the images.
        ArgumentError: `module` is no `torch.nn.Module`, or `input_layout` is unknown.
        DTypeError: `example_input` is no array of float32, float64 or uint8.

    Example:
        >>> import torch  # doctest: +SKIP
        >>> module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())  # doctest: +SKIP
        >>> net = pycnn.from_torch(module, (1, 3, 16, 16), input_layout="NHWC")  # doctest: +SKIP
        >>> net(np.zeros((5, 16, 16, 3), np.float32)).shape  # doctest: +SKIP
        (5, 8, 14, 14)
    """
    torch = optional("torch", extra="torch", who="from_torch")
    optional("torch.export", extra="torch", who="from_torch")
    if not isinstance(module, torch.nn.Module):
        raise ArgumentError(f"from_torch: module is {type(module).__name__}, expected a torch.nn.Module")
    if input_layout not in ("NCHW", "NHWC"):
        raise ArgumentError(f"from_torch: input_layout {input_layout!r} is not one of NCHW, NHWC")
    _check_norms(torch, module)
    batches = recorded_batch(sum(each.nbytes for each in _examples(torch, module, example_input, 1)))
    program = _record(torch, module, _examples(torch, module, example_input, batches[0]))
    tensors: dict[int, str] = {}
    for name, tensor in (*_all(module, "parameters"), *_all(module, "buffers")):
        tensors.setdefault(id(tensor), name)
    names = {name: tensors[id(t)] for name, t in (*_all(module, "parameters"), *_all(module, "buffers"))}
    parameters = dict(module.named_parameters())
    images = follow_images(
        program.graph,
        lambda count: _record(torch, module, _examples(torch, module, example_input, count)).graph,
        batches,
        type(module).__name__,
    )
    reader = Reader(torch, program, names, frozenset(parameters), images)
    reader.module_names = frozenset(name for name, _ in module.named_modules())
    network, form = reader.read()
    _check_form(form)
    # Keeps what the outputs need.
    sources = fold_network(network)
    result = TorchModule(network, sources, input_layout=input_layout, form=form, name=type(module).__name__)
    _freeze(result, {name for name, p in parameters.items() if not p.requires_grad}, _settled(module))
    return result


def _record(torch: Any, module: Any, examples: list[Any]) -> Any:
    with _evaluating(module), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.export.export(module, tuple(examples), strict=False)
        except Exception as error:
            text = str(error).strip().partition("\n")[0] or type(error).__name__
            raise GraphError(f"from_torch: torch.export cannot record {type(module).__name__}: {text}") from error


def _all(module: Any, kind: str) -> Iterator[tuple[str, Any]]:
    found: Iterator[tuple[str, Any]] = getattr(module, f"named_{kind}")(remove_duplicate=False)
    return found


def _check_norms(torch: Any, module: Any) -> None:
    for name, part in module.named_modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm) and part.momentum is None:
            raise UnsupportedError(
                f"from_torch: node '{name}' ({type(part).__name__}): a cumulative average of statistics "
                "(momentum=None) is not supported\n  hint: set momentum, 0.1 for example"
            )


def _settled(module: Any) -> set[str]:
    """Layers that are in evaluation mode while the whole is in training mode."""
    return {name for name, part in module.named_modules() if module.training and not part.training}


def _freeze(net: OnnxModule, frozen: set[str], settled: set[str]) -> None:
    for name, parameter in net.named_tensors():
        if not parameter.is_buffer and name in frozen:
            parameter.trainable = False
        if parameter.is_buffer and name.rpartition(".")[0] in settled:
            parameter.frozen = True


@contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """Within it, a module is in evaluation mode."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _examples(torch: Any, module: Any, example: Any, batch: int) -> list[Any]:
    """One tensor for each input, with this many images."""
    is_shape = isinstance(example, tuple | list) and all(isinstance(n, int) for n in example)
    several = isinstance(example, tuple | list) and not is_shape
    given = list(example) if several else [torch.zeros(tuple(example)) if is_shape else example]
    first = next(iter((*module.parameters(), *module.buffers())), None)
    wanted = first.dtype if first is not None and first.is_floating_point() else torch.float32
    results = []
    for tensor in given:
        tensor = tensor if isinstance(tensor, torch.Tensor) else torch.as_tensor(np.asarray(tensor))
        if not tensor.is_floating_point() and tensor.dtype != torch.uint8:
            raise DTypeError(f"from_torch: example_input is {tensor.dtype}, expected float32, float64 or uint8")
        if not tensor.ndim:
            raise DTypeError("from_torch: example_input is a single number, expected a batch (N, C, H, W)")
        dtype, device = wanted if tensor.is_floating_point() else tensor.dtype, None if first is None else first.device
        results.append(torch.empty((batch, *tensor.shape[1:]), dtype=dtype, device=device))
    return results


def _check_form(form: Any) -> None:
    parts = form.values() if isinstance(form, Mapping) else form if isinstance(form, Sequence) else [form]
    if not parts or any(not isinstance(part, int) for part in parts):
        raise UnsupportedError(
            "from_torch: the module returns nested results; expected a tensor, or a tuple or dict of them"
        )


class TorchModule(OnnxModule):
    """A network that is converted from PyTorch; what `pycnn.from_torch` returns.

    Args:
        network: The checked graph.
        sources: For constants that were computed, what they come from; gives their names.
        input_layout: "NCHW" or "NHWC".
        form: The result as the module gives it, with the number of each output in its place.
        name: Of the module's class.
    """

    _reader, _origin = "from_torch", "the module"

    def __init__(
        self, network: Network, sources: Mapping[str, str], *, input_layout: str, form: Any = 0, name: str = ""
    ) -> None:
        self._form, self._class = form, name
        super().__init__(network, sources, input_layout=input_layout)

    def forward(self, *inputs: Any) -> Any:
        """Record the nodes of the module.

        Args:
            inputs: In the module's order and shapes; with ``input_layout="NHWC"``, those of four axes channels last.

        Returns:
            What the module returns, with symbols in the place of tensors.
        """
        found = super().forward(*inputs)
        outputs = self._recorded[0].outputs
        results = [found[name] if isinstance(found, dict) else found for name in outputs]
        if isinstance(self._form, int):
            return results[0]
        if isinstance(self._form, Mapping):
            return {str(name): results[index] for name, index in self._form.items()}
        return tuple(results[index] for index in self._form)

    def extra_repr(self) -> str:
        """Class, inputs and number of operators of the module."""
        network, _, layout, _ = self._recorded
        inputs = ", ".join(f"{given.name} (N, {', '.join(map(str, given.shape[1:]))})" for given in network.inputs)
        return f"{self._class}: {inputs}; {len(network.nodes)} nodes, {layout}"
