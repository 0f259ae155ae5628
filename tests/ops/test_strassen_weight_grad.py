"""Gradients of the weights of convolutions by Strassen's algorithm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import reference
import tolerances
from kernel_paths import ISAS, Path, gradients, integers, reals

from pycnn import _core, functional
from pycnn.errors import UnsupportedError
from pycnn.program import compile_traced
from pycnn.tracing import emit, trace

# There are kernels for AVX-512 alone.
with_avx512 = pytest.mark.parametrize("path", [pytest.param(Path("avx512"), id="avx512")])
pytestmark = pytest.mark.skipif("avx512" not in ISAS, reason="needs AVX-512")


@dataclass(frozen=True)
class Case:
    """Image (N, H, W, IC), output channels and the window."""

    image: tuple[int, int, int, int]
    out: int
    stride: tuple[int, int] = (1, 1)
    padding: int = 0
    kernel: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)

    @property
    def output(self):
        n, *sides, _ = self.image
        windows = zip(sides, self.stride, self.kernel, self.dilation, strict=True)
        height, width = ((s + 2 * self.padding - (k - 1) * d - 1) // step + 1 for s, step, k, d in windows)
        return (n, height, width, self.out)

    @property
    def pixels(self):
        return int(np.prod(self.output[:3]))

    def arrays(self, make, seed=0):
        rng = np.random.default_rng(seed)
        return make(rng, self.image), make(rng, self.output)

    def program(self, *, path=None, **options):
        """For the gradient of the weight, of image and gradient of the output."""
        op = _core.Conv2dGradWeight(
            kernel_size=self.kernel, stride=self.stride, padding=(self.padding,) * 4, dilation=self.dilation
        )
        specs = {"x": (self.image, "float32"), "grad": (self.output, "float32")}
        traced = trace(lambda x, grad: emit(op, [x, grad]), specs)
        return compile_traced(traced, **(path.options if path else {}), **options)

    def expected(self, x, grad):
        return reference.conv2d_grad_weight(
            x, grad, self.kernel, stride=self.stride, padding=self.padding, dilation=self.dilation
        )

    def magnitude(self, x, grad):
        """What the sums of the algorithm reach, each tap by itself."""
        sides = [(0, 0), (self.padding,) * 2, (self.padding,) * 2, (0, 0)]
        padded = np.pad(x, sides)
        whole = np.empty((self.out, *self.kernel, x.shape[-1]))
        for i, j in np.ndindex(self.kernel):
            rows, columns = (
                slice(k * d, k * d + (count - 1) * step + 1, step)
                for k, d, count, step in zip((i, j), self.dilation, self.output[1:3], self.stride, strict=True)
            )
            seen = padded[:, rows, columns]
            whole[:, i, j] = reference.strassen_grad_weight(seen, grad, magnitude=True)[:, 0, 0]
        return whole


CASES = {
    "even": Case((2, 12, 12, 128), 64),
    "odd_pixels": Case((3, 11, 13, 192), 128),  # the last pixel has no partner
    "odd_half": Case((2, 12, 12, 128), 70),
    "one_row": Case((1, 1, 261, 128), 158),
    "strided": Case((3, 21, 19, 128), 96, (2, 2)),
    "strided_columns": Case((5, 12, 9, 128), 64, (1, 2)),
    "split": Case((2, 13, 12, 128), 526),  # output channels are shared out
    "split_inputs": Case((2, 13, 11, 576), 70),  # input channels are
    "split_all": Case((1, 17, 17, 576), 522, kernel=(1, 2)),
    "parts": Case((2, 61, 59, 128), 66),  # pixels are shared out
    "window": Case((5, 13, 21, 128), 70, (2, 2), padding=1, kernel=(3, 3)),
    "padded": Case((2, 12, 12, 128), 64, padding=1),
    "dilated": Case((2, 15, 14, 128), 66, padding=1, kernel=(3, 2), dilation=(2, 1)),
    "window_parts": Case((3, 58, 51, 128), 64, (2, 1), padding=2, kernel=(5, 3)),
}
cases = pytest.mark.parametrize("case", [pytest.param(c, id=name) for name, c in CASES.items()])


def test_the_reference_is_a_weight_gradient():
    rng = np.random.default_rng(0)
    x, grad = rng.standard_normal((3, 3, 5, 6)), rng.standard_normal((3, 3, 5, 4))
    expected = reference.conv2d_grad_weight(x, grad, (1, 1))
    np.testing.assert_allclose(reference.strassen_grad_weight(x, grad), expected, rtol=0, atol=1e-12)


@cases
@with_avx512
def test_the_gradient_is_exact_on_whole_numbers(case, path):
    arrays = case.arrays(integers)
    program = case.program(path=path)
    assert f"conv2d_grad_weight.strassen.{path.isa}  " in program.explain()
    tolerances.assert_exact(program(*arrays), case.expected(*arrays))


@cases
@with_avx512
def test_the_gradient_is_within_the_bound(case, path):
    x, grad = case.arrays(reals, seed=1)
    bound = tolerances.strassen_grad_bound(case.magnitude(x, grad), case.pixels)
    tolerances.assert_within(case.program(path=path)(x, grad), case.expected(x, grad), bound)


@pytest.mark.parametrize("case", [Case((4, 14, 14, 256), 256), Case((1, 56, 56, 128), 128)])
@with_avx512
def test_errors_on_usual_data_are_of_the_documented_size(case, path):
    x, grad = case.arrays(reals, seed=2)
    x = np.maximum(x, 0)
    expected = case.expected(x, grad)
    largest = np.abs(expected).max()
    for winograd, bound in tolerances.POINTWISE_GRADIENT.items():
        found = case.program(path=path, winograd=winograd)(x, grad)
        tolerances.assert_within(found, expected, bound * largest, f"winograd={winograd}")


@pytest.mark.parametrize("name", ["odd_pixels", "strided", "split", "parts", "window"])
@with_avx512
def test_any_number_of_threads_gives_the_same_bits(name, path):
    case = CASES[name]
    arrays = case.arrays(reals, seed=6)
    first = case.program(path=path, threads=1)(*arrays)
    for threads in (2, 3, 7):
        found = case.program(path=path, threads=threads)(*arrays)
        tolerances.assert_bits(found, first, f"{threads} threads")


@pytest.mark.parametrize("name", ["odd_pixels", "strided", "split", "parts", "window"])
@with_avx512
def test_gradients_of_weight_and_bias_come_together(name, path):
    case = CASES[name]
    x, grad = case.arrays(integers)
    weight = np.zeros((case.out, *case.kernel, case.image[3]), np.float32)
    bias = np.zeros(case.out, np.float32)

    def conv(*tensors):
        return functional.conv2d(*tensors, stride=case.stride, padding=case.padding)

    found, found_bias = gradients(conv, x, weight, bias, grad=grad, path=path, wrt=(1, 2))
    tolerances.assert_exact(found, case.expected(x, grad))
    tolerances.assert_exact(found_bias, grad.sum((0, 1, 2), np.float64))


@with_avx512
def test_slices_of_a_concatenation_are_read_in_place(path):
    rng = np.random.default_rng(0)
    x, weight = integers(rng, (2, 13, 11, 128)), np.zeros((64, 1, 1, 128), np.float32)
    grad = integers(rng, (2, 13, 11, 128))

    def net(x, weight):
        return functional.concat([functional.conv2d(x, weight), functional.conv2d(x, weight)], axis=-1)

    (found,) = gradients(net, x, weight, grad=grad, path=path, wrt=(1,))
    tolerances.assert_exact(found, reference.conv2d_grad_weight(x, grad[..., :64] + grad[..., 64:], (1, 1)))


@with_avx512
def test_winograd_false_gives_plain_sums_and_says_so(path):
    case = CASES["even"]
    explained = case.program(isa=path.isa, winograd=False).explain()
    assert f"conv2d_grad_weight.implicit_gemm.{path.isa}  " in explained
    assert f"conv2d_grad_weight.strassen.{path.isa}: winograd is off" in explained
    pins = {"conv2d_grad_weight": "conv2d_grad_weight.strassen.avx512"}
    assert pins["conv2d_grad_weight"] in case.program(variants=pins).explain()
    with pytest.raises(UnsupportedError, match=r"conv2d_grad_weight\.strassen\.avx512: winograd is off"):
        case.program(variants=pins, winograd=False)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (Case((2, 12, 12, 64), 128), "fewer than 128 input channels"),
        (Case((2, 12, 12, 128), 62), "fewer than 64 output channels"),
        (Case((2, 12, 12, 160), 128), "input channels are not a multiple of 64"),
        (Case((2, 12, 12, 128), 129), "output channels cannot be halved"),
        (Case((1, 15, 17, 128), 128), "fewer than 256 pixels"),
    ],
)
def test_explain_says_why_not(case, reason):
    explained = case.program(isa="avx512").explain()
    assert f"conv2d_grad_weight.strassen.avx512: {reason}" in explained
