"""Running an op on every way through the kernels that this machine has."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest

import pycnn
from pycnn import _core, functional
from pycnn.errors import UnsupportedError
from pycnn.program import compile_traced
from pycnn.tracing import trace

ISAS = tuple(pycnn.config.machine()["isas"])


@dataclass(frozen=True)
class Path:
    """An instruction set, and the variants pinned for some ops."""

    isa: str
    pins: dict[str, str] = field(default_factory=dict)

    @property
    def options(self):
        return {"isa": self.isa, "variants": dict(self.pins)}

    def __str__(self):
        return "+".join(self.pins.values()) or self.isa


_LADDER = ("baseline", "avx2", "avx512")
LATER = tuple(isa for isa in _LADDER if isa not in ISAS)  # than this machine


def _is_best(op, variant, isa):
    return next(v for v in _core.variants(op) if v.endswith(isa)) == variant


UNITS = {"amx": "amx_bf16", "avx512_bf16": "avx512_bf16"}  # that multiply bfloat16, as `machine` calls them


def is_for_bfloat16(variant):
    return ".bfloat16." in variant


def paths(*ops):
    """Each instruction set with its best variants, then the other variants ("overlapping.avx2", "reference") pinned.

    Variants of several ops are pinned together when they have the same name after the op's own.
    """
    result = [pytest.param(Path(isa), id=isa) for isa in ISAS]
    names = {}
    for op in ops:
        for variant in _core.variants(op):
            if not is_for_bfloat16(variant):
                names.setdefault(variant.removeprefix(op + "."), {})[op] = variant
    for name, pins in names.items():
        needs = name.rpartition(".")[2]
        if needs in _LADDER and (needs not in ISAS or all(_is_best(op, pin, needs) for op, pin in pins.items())):
            continue
        result.append(pytest.param(Path(ISAS[-1], pins), id=name))
    return result


def bfloat16_paths(*ops):
    """The variants for bfloat16 that this machine can run, pinned; those of several ops together."""
    names = {}
    for variant in filter(is_for_bfloat16, itertools.chain(*map(_core.variants, ops))):
        op, _, name = variant.partition(".")
        names.setdefault(name, {})[op] = variant
    there = {"portable", *(unit for unit, name in UNITS.items() if name in pycnn.config.machine()["bfloat16_units"])}
    if "avx512" not in ISAS:
        there = {"portable"}
    result = [pytest.param(Path(ISAS[-1], pins), id=n) for n, pins in names.items() if n.rpartition(".")[2] in there]
    assert result
    return result


def in_bfloat16(fn):
    """`fn` of images in bfloat16, for float32 in and out: its first argument is the image, the rest are parameters."""

    def wrapped(image, *parameters):
        output = fn(functional.cast(image, dtype="bfloat16"), *parameters)
        return functional.cast(output, dtype="float32")

    return wrapped


def isas():
    """Only the instruction sets, for what does not depend on single variants."""
    return [pytest.param(Path(isa), id=isa) for isa in ISAS]


def without_refused(path, attempt):
    """Call attempt(options); a pin that refuses the problem is dropped, and the test skipped when none is left."""
    options = path.options if path else {}
    while True:
        try:
            return attempt(options)
        except UnsupportedError as error:
            refused = [op for op in options.get("variants", ()) if f"{op}: no variant accepts" in str(error)]
            pins = {op: pin for op, pin in options.get("variants", {}).items() if op not in refused}
            if not refused or not pins:
                pytest.skip(str(error).splitlines()[0])
            options = {**options, "variants": pins}


def build(fn, *arrays, path=None, **options):
    """Compile a function of symbols for arrays like these."""
    double = any(a.dtype == np.float64 for a in arrays)
    specs = {f"input_{i}": (a.shape, a.dtype.name) for i, a in enumerate(arrays)}
    traced = trace(lambda **s: fn(*s.values()), specs, parameter_dtype="float64" if double else None)
    return without_refused(path, lambda kernels: compile_traced(traced, **kernels, **options))


def run(fn, *arrays, path=None, **options):
    """Compile and run: the result, or a dict of results."""
    return build(fn, *arrays, path=path, **options)(*arrays)


def gradients(fn, *arrays, grad, path=None, wrt=None, **options):
    """Gradients of sum(fn(*arrays) * grad): one for each array, or for those whose positions are in `wrt`."""
    positions = tuple(range(len(arrays))) if wrt is None else tuple(wrt)

    def weighted(*symbols):
        return functional.sum(functional.multiply(fn(*symbols[:-1]), symbols[-1]))

    def attempt(kernels):
        return pycnn.value_and_grad(weighted, positions, **kernels, **options)(*arrays, grad)[1]

    return without_refused(path, attempt)


def integers(rng, shape, low=-4, high=5, dtype=np.float32):
    """Small whole numbers: their sums of products are exact in any order."""
    return rng.integers(low, high, shape).astype(dtype)


def reals(rng, shape, dtype=np.float32):
    return rng.standard_normal(shape).astype(dtype)


def distinct(rng, shape, step=0.01, dtype=np.float64):
    """Numbers at least `step` apart from each other and from zero: a largest one stays the largest nearby."""
    count = int(np.prod(shape))
    return ((rng.permutation(count) - count // 2 + 0.5) * step).reshape(shape).astype(dtype)
