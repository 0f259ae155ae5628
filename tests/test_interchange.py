"""Arrays in and out: DLPack with all its keywords, foreign memory layouts, files with awkward names."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest

import pycnn
from pycnn import _core, functional, nn, tracing


class OnlyDLPack:
    """An array of another library that speaks nothing but DLPack."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **arguments):
        return self.array.__dlpack__(**arguments)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class Named(np.ndarray):
    """As NumPy's own files in memory are: another class, the same meaning."""


@pytest.fixture
def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.GlobalAvgPool2d(), nn.Linear(4, 3)).build((7, 7, 2))


def test_tensor_exports_read_only_memory_to_consumers_that_know_it(net):
    tensor = next(iter(net.parameters())).tensor
    capsule_view = np.from_dlpack(tensor)
    np.testing.assert_array_equal(capsule_view, tensor.numpy())
    assert not capsule_view.flags.writeable
    assert np.shares_memory(capsule_view, tensor.numpy())


def test_tensor_exports_a_copy_to_older_consumers_and_refuses_the_impossible(net):
    tensor = next(iter(net.parameters())).tensor
    assert tensor.__dlpack_device__() == (1, 0)
    tensor.__dlpack__(stream=None, max_version=None, dl_device=(1, 0), copy=True)
    with pytest.raises(BufferError):
        tensor.__dlpack__(copy=False)
    with pytest.raises(BufferError):
        tensor.__dlpack__(dl_device=(2, 0))


def test_parameter_exports_a_copy_in_the_layout_of_files(net):
    weight = next(iter(net.parameters()))
    exported = np.from_dlpack(weight)
    assert exported.shape == (4, 2, 3, 3)
    np.testing.assert_array_equal(exported, weight.numpy())


def test_net_takes_an_object_that_speaks_only_dlpack(net):
    x = np.random.default_rng(0).random((3, 7, 7, 2), dtype=np.float32)
    np.testing.assert_array_equal(net(OnlyDLPack(x)), net(x))


@pytest.mark.parametrize(
    "form", ["fortran", "strided", "reversed", "byte_swapped", "unaligned", "read_only", "broadcast"]
)
def test_program_reads_every_memory_layout_as_the_same_numbers(net, form):
    base = np.random.default_rng(1).random((3, 7, 7, 2), dtype=np.float32)
    if form == "broadcast":
        base = np.ascontiguousarray(np.broadcast_to(base[:1], base.shape))
    raw = np.zeros(base.nbytes + 1, np.uint8)
    x = {
        "fortran": lambda: np.asfortranarray(base),
        "strided": lambda: np.repeat(base, 2, axis=1)[:, ::2],
        "reversed": lambda: base[::-1, ::-1].copy()[::-1, ::-1],
        "byte_swapped": lambda: base.astype(base.dtype.newbyteorder()),
        "unaligned": lambda: raw[1:].view(np.float32).reshape(base.shape),
        "read_only": lambda: base.copy(),
        "broadcast": lambda: np.broadcast_to(base[:1], base.shape),
    }[form]()
    if form == "unaligned":
        x[...] = base
    if form == "read_only":
        x.flags.writeable = False
    before = np.array(x, copy=True)
    program = pycnn.compile(net, shape=base.shape)
    expected = program(base)
    if form == "read_only":
        result = program(x)
    else:
        with pytest.warns(
            UserWarning, match=r"input 'x': copied because it is not .*; pass numpy\..* to avoid it"
        ) as caught:
            result = program(x)
        assert caught[0].filename == __file__
        advice = str(caught[0].message).partition("; pass ")[2].removesuffix(" to avoid it")
        followed = eval(advice, {"numpy": np, "x": x})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_array_equal(program(followed), expected)
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(x, before)


def test_program_converts_float64_and_integers_that_fit_and_nothing_else(net):
    x = np.random.default_rng(1).random((3, 7, 7, 2), dtype=np.float32)
    program = pycnn.compile(net, shape=x.shape)
    with pytest.warns(UserWarning, match="converted from float64 to float32"):
        result = program(x.astype(np.float64))
    np.testing.assert_array_equal(result, program(x))
    for other in (x.astype(np.float16), x.astype(np.longdouble), x.astype(np.int64), x > 0.5, x.astype(complex)):
        with pytest.raises(pycnn.DTypeError, match="input 'x'"):
            program(other)
    with pytest.raises(pycnn.DTypeError, match="masked"):
        program(np.ma.masked_array(x))
    with pytest.raises(pycnn.DTypeError, match="masked"):
        program.begin(np.ma.masked_array(x))
    # Other subclasses are read, without a copy.
    np.testing.assert_array_equal(program(x.view(Named)), program(x))
    traced = tracing.trace(lambda i: {"y": i}, {"i": ((2,), "int32")})
    integers = pycnn.program.compile_traced(traced)
    np.testing.assert_array_equal(integers.run(np.array([1, 2], np.uint8))["y"], [1, 2])
    np.testing.assert_array_equal(integers.run(np.array([-5, 7]))["y"], [-5, 7])
    with pytest.raises(pycnn.DTypeError, match="4294967297 do not fit int32"):
        integers.run(np.array([0, 2**32 + 1]))


def test_double_precision_program_follows_the_parameters(net):
    x = np.ones((1, 7, 7, 2))
    program = pycnn.compile(net, shape=x.shape, dtype="float64")
    gradient = pycnn.value_and_grad(lambda v: functional.sum(net(v)))
    assert np.abs(program(x)).max() > 0
    gradient(x)
    net.load_state_dict({name: np.zeros_like(value) for name, value in net.state_dict().items()})
    assert np.abs(program(x)).max() == 0
    value, by_input = gradient(x)
    assert value == 0
    assert np.abs(by_input).max() == 0


def test_eager_losses_refuse_labels_out_of_range():
    logits = np.zeros((2, 3), np.float32)
    for function in (functional.cross_entropy, functional.top_k_correct):
        with pytest.raises(pycnn.LabelError, match="label 7 at position 1.* 3 classes"):
            function(logits, np.array([0, 7]))
        with pytest.raises(pycnn.LabelError, match="label -1 at position 0"):
            function(logits, np.array([-1, 0]))


def test_block_takes_its_tensors_by_name_in_any_order():
    config = {"in_channels": 3, "channels": 3}
    tensors = dict(functional.residual_parameters(**config))
    x = np.random.default_rng(2).random((1, 5, 5, 3), dtype=np.float32)
    expected = functional.residual_block(x, list(tensors.values()), **config)
    shuffled = dict(reversed(tensors.items()))
    np.testing.assert_array_equal(functional.residual_block(x, shuffled, **config), expected)
    del shuffled["conv1.weight"]
    with pytest.raises(pycnn.ArgumentError, match=r"conv1\.weight"):
        functional.residual_block(x, shuffled, **config)


@pytest.mark.parametrize(
    "names",
    [["metadata"], ["input_shape"], ["_private"], ["save"], ["forward.w"], ["w..x"], ["normalization"], ["a", "a.b"]],
)
def test_file_with_names_that_cannot_be_attributes_is_refused(tmp_path, names):
    graph = _core.Graph()
    result = graph.input("x", (1, 3), "float32")
    tensors = {}
    for name in names:
        result = graph.add(_core.Add(), [result, graph.parameter(name, (3,), "float32")])
        tensors[name] = _core.Tensor((3,), "float32")
    graph.set_output("output", result)
    _core.save_model(str(tmp_path / "net.safetensors"), graph, tensors, {})
    with pytest.raises(pycnn.FormatError, match="tensor '"):
        pycnn.load(tmp_path / "net.safetensors")


def test_a_pickled_net_has_its_weights_whatever_the_seed_where_it_is_read():
    made = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GlobalAvgPool2d(), nn.Linear(4, 3)).build((7, 7, 2))
    x = np.random.default_rng(0).random((3, 7, 7, 2), dtype=np.float32)
    try:
        pycnn.manual_seed(5)
        data = pickle.dumps(made)  # before the first use, which would draw the weights
        pycnn.manual_seed(6)
        found = pickle.loads(data)(x)
    finally:
        pycnn.manual_seed(0)
    np.testing.assert_array_equal(found, made(x))
    pycnn.manual_seed(5)
    try:
        other = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GlobalAvgPool2d(), nn.Linear(4, 3)).build((7, 7, 2))
        np.testing.assert_array_equal(found, other(x))
    finally:
        pycnn.manual_seed(0)


def test_loaded_net_does_not_hold_its_weights_twice(net, tmp_path):
    net.save(tmp_path / "net.safetensors")
    loaded = pycnn.load(tmp_path / "net.safetensors")
    x = np.ones((1, 7, 7, 2), np.float32)
    before = len(pickle.dumps(loaded))
    expected = loaded(x)
    assert len(pickle.dumps(loaded)) < 1.2 * before
    np.testing.assert_array_equal(copy.deepcopy(loaded)(x), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(loaded))(x), expected)


@pytest.mark.parametrize("dilation", [(2**31 - 1, 2**31 - 33), (2**20, 2**20)])
def test_windows_that_span_more_than_any_image_are_refused(dilation):
    x = np.zeros((1, 1, 1, 1), np.float32)
    with pytest.raises(pycnn.ShapeError, match="window spans"):
        functional.conv2d(
            x, np.zeros((1, 2, 2, 1), np.float32), dilation=dilation, padding=(dilation[0], 0, dilation[1], 0)
        )


def test_gradients_of_more_than_64_parameters_come_out():
    layers = [nn.Linear(3, 3) for _ in range(40)]
    deep = nn.Sequential(*layers)
    call = pycnn.value_and_grad(lambda x: functional.sum(deep(x)), parameters=[])
    _, (_, by_name) = call(np.ones((1, 3), np.float32))
    assert len(by_name) == 80


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", "u4", "longdouble"])
def test_eager_ops_name_the_input_of_an_unknown_element_type(dtype):
    x = np.ones((1, 4, 4, 3)).astype(dtype)
    expected = f"conv2d: input 0: has element type {x.dtype}, expected one of .*float32"
    with pytest.raises(pycnn.DTypeError, match=expected):
        functional.conv2d(x, np.zeros((2, 3, 3, 3), np.float32))
    with pytest.raises(pycnn.DTypeError, match="block: input 0: has element type"):
        functional.residual_block(
            x, dict(functional.residual_parameters(in_channels=3, channels=3)), in_channels=3, channels=3
        )


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (np.array([0.0, 1.5]), r"labels must be integers, got float64 \(value 1.5 at position 1\)"),
        (np.array([np.nan, 1.0]), r"labels must be integers, got float64 \(value nan at position 0\)"),
        (np.array([0.0, 1.0]), r"labels must be integers, got float64\n  hint: try labels.astype"),
        (np.array([True, False]), "labels must be integers, got bool"),
    ],
)
def test_eager_losses_refuse_labels_that_are_no_integers(labels, text):
    for function in (functional.cross_entropy, functional.top_k_correct):
        with pytest.raises(pycnn.DTypeError, match=f"^{function.__name__}: {text}"):
            function(np.zeros((2, 3), np.float32), labels)


X4 = np.ones((1, 4, 4, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: functional.conv2d(X4, np.ones((2, 3, 3, 3), np.float32), stride="2"), "conv2d: stride: '2'"),
        (
            lambda: functional.conv2d(X4, np.ones((2, 3, 3, 3), np.float32), padding=(1, 2, 3)),
            r"conv2d: padding: \(1, 2, 3\)",
        ),
        (lambda: functional.conv2d(X4, np.ones((2, 3, 3, 3), np.float32), groups=1.5), "conv2d: groups: 1.5"),
        (lambda: functional.max_pool2d(X4, kernel_size=None), "max_pool2d: kernel_size: None"),
        (lambda: functional.reshape(X4, shape="ab"), "reshape: shape: 'a'"),
        (lambda: functional.reshape(X4, shape=7), "reshape: shape: 7"),
        (lambda: functional.mean(X4, axes=9), "mean: axes: 9 is out of range for 4 axes"),
        (lambda: functional.sum(X4, axes=(1, 1)), r"sum: axes: \(1, 1\) names an axis twice"),
        (lambda: functional.take(X4, indices=[0.5]), "take: indices: 0.5"),
        (lambda: functional.leaky_relu(X4, negative_slope="a"), "leaky_relu: negative_slope must be a number, got 'a'"),
        (lambda: functional.dropout(X4, p=None), "dropout: p must be a number, got None"),
        (lambda: pycnn.grad(3), "grad: fn is 3, expected a function"),
        (lambda: pycnn.optim.SGD(0.1, groups=3), "SGD: groups must be a sequence of optim.Group, got 3"),
        (lambda: pycnn.optim.SGD(10**400), r"SGD: lr must be finite and in .*, got inf"),
        (lambda: pycnn.optim.SGD(-(10**400)), r"SGD: lr must be finite and in .*, got -inf"),
    ],
)
def test_bad_arguments_name_function_argument_and_value(call, text):
    with pytest.raises(pycnn.ArgumentError, match=f"^{text}"):
        call()


def test_parameter_refuses_to_share_what_it_copies(net):
    weight = next(iter(net.parameters()))
    with pytest.raises(BufferError, match=r"\.tensor shares"):
        np.from_dlpack(weight, copy=False)
    assert not np.shares_memory(np.from_dlpack(weight), weight.tensor.numpy())


def test_torch_reads_parameters_and_results(net):
    torch = pytest.importorskip("torch")
    weight = next(iter(net.parameters()))
    x = np.random.default_rng(0).random((3, 7, 7, 2), dtype=np.float32)
    shared, copied, result = (torch.from_dlpack(value) for value in (weight.tensor, weight, net(x)))
    assert shared.data_ptr() == weight.tensor.numpy().ctypes.data
    np.testing.assert_array_equal(copied.numpy(), weight.numpy())
    np.testing.assert_array_equal(result.numpy(), net(x))


def test_torch_tensors_are_taken_wherever_arrays_are(net):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).random((4, 7, 7, 2), dtype=np.float32)
    tensor, labels = torch.from_numpy(x), torch.tensor([0, 1, 2, 0])
    # What lies channels last in torch is read where it is.
    channels_last = tensor.permute(0, 3, 1, 2).to(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for images in (tensor, channels_last):
            np.testing.assert_array_equal(net(images), net(x))
            np.testing.assert_array_equal(net.predict(images), net.predict(x))
            np.testing.assert_array_equal(pycnn.compile(net, x.shape)(images), net(x))
        np.testing.assert_array_equal(functional.relu(tensor - 0.5), functional.relu(x - np.float32(0.5)))
    with pytest.warns(UserWarning, match="copied because it is not C-contiguous"):
        np.testing.assert_array_equal(
            net(tensor.flip(1).permute(0, 2, 1, 3)), net(x[:, ::-1].transpose(0, 2, 1, 3).copy())
        )
    dataset = pycnn.data.ArrayDataset(tensor, labels)
    trainers = [pycnn.Trainer(copy.deepcopy(net), seed=0) for _ in range(3)]
    losses = [trainers[0].step(tensor, labels)["loss"], trainers[1].step(x, labels.numpy())["loss"]]
    history = trainers[2].fit(dataset, epochs=1, batch_size=4, progress=False)
    assert losses[0] == losses[1]
    assert len(history["loss"]) == 1
    weight = next(iter(net.parameters()))
    weight.copy_(torch.zeros(4, 2, 3, 3))
    assert not weight.numpy().any()


def test_torch_tensors_that_cannot_be_read_say_why(net):
    torch = pytest.importorskip("torch")
    tensor = torch.zeros(1, 7, 7, 2)
    for bad, text in (
        (tensor.clone().requires_grad_(), "requires grad.*detach"),
        (tensor.to("meta"), "meta device.*cpu"),
        (tensor.bfloat16(), "BFloat16"),
        (tensor.to_sparse(), "Sparse"),
        (tensor.half(), "float16, expected float32 or uint8"),
    ):
        with pytest.raises(pycnn.DTypeError, match=text):
            net(bad)


def test_tensors_pickle_and_copy_with_memory_of_their_own(net):
    tensor = next(iter(net.parameters())).tensor
    for other in (copy.deepcopy(tensor), pickle.loads(pickle.dumps(tensor))):
        np.testing.assert_array_equal(other.numpy(), tensor.numpy())
        assert not np.shares_memory(other.numpy(), tensor.numpy())


def test_what_is_compiled_refuses_to_be_pickled_and_says_what_to_do(net):
    program, trainer = pycnn.compile(net, (1, 7, 7, 2)), pycnn.Trainer(net)
    for value, text in ((program, "pickle or copy the module"), (trainer, "save_checkpoint")):
        for function in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(pycnn.UnsupportedError, match=text):
                function(value)


def test_notebooks_show_a_net_as_its_table_or_tree(net):
    assert "<table" in net._repr_html_()
    assert "Conv2d" in net._repr_html_()
    unknown = nn.Sequential(nn.Conv2d(None, 4, 3), nn.ReLU())
    assert unknown._repr_html_().startswith("<pre>Sequential(")
    copied = pickle.loads(pickle.dumps(net))
    assert copied._repr_html_() == net._repr_html_()


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int32", "int64", ">f4", ">i8"])
def test_variables_have_the_type_and_the_values_that_are_stored(dtype):
    array = np.arange(1, 4).astype(dtype)
    if array.dtype.isnative:
        assert _core.Tensor.from_array(array).dtype == dtype
    else:
        with pytest.raises(pycnn.DTypeError, match=dtype):
            _core.Tensor.from_array(array)
    variables = pycnn.program.Variables()
    variables["rate"] = np.zeros(3, array.dtype.newbyteorder("="))
    variables["rate"] = array
    np.testing.assert_array_equal(variables["rate"].numpy(), [1, 2, 3])
