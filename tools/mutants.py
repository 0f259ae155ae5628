"""Breaks the core on purpose, one small change at a time, and tells which changes no test notices.

Each mutant is a replacement in one source file. It is put in, the C++ tests are built in an existing build folder,
those of the given files are run, and the source is put back. Not part of CI: a run takes as long as some dozen partial
builds.

  cmake -S . -B build -G Ninja -DPYCNN_BUILD_TESTS=ON && ninja -C build pycnn_tests
  python tools/mutants.py build
  python tools/mutants.py build --only pool

The working tree must be clean where a mutant changes it. Exit code 1 when a mutant survives or no longer fits.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CPU = "csrc/backends/cpu/"


@dataclass(frozen=True)
class Mutant:
    """One wrong change.

    Attributes:
        name: What is wrong then.
        file: Source, from the root.
        old: Text that stands there exactly once.
        new: What takes its place.
        tests: Test sources that should notice, as patterns of doctest's --source-file.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str


MUTANTS = (
    Mutant(
        "conv2d: pads swapped",
        CPU + "conv2d_reference.cpp",
        "const Index row = y * stride[0] - padding.top + i",
        "const Index row = y * stride[0] - padding.left + i",
        "*/backends/test_conv2d.cpp",
    ),
    Mutant(
        "conv2d: last tap missing",
        CPU + "conv2d_reference.cpp",
        "for (Index j = 0; j < kw; ++j) {",
        "for (Index j = 0; j + (kw > 2) < kw; ++j) {",
        "*/backends/test_conv2d.cpp",
    ),
    Mutant(
        "conv2d: dilation ignored",
        CPU + "conv2d_reference.cpp",
        "+ j * dilation[1];",
        "+ j;",
        "*/backends/test_conv2d.cpp",
    ),
    Mutant(
        "conv2d: channels of the first group for all",
        CPU + "conv2d_reference.cpp",
        "* ic + group * group_in + c",
        "* ic + 0 * group * group_in + c",
        "*/backends/test_conv2d.cpp",
    ),
    Mutant(
        "winograd: a difference the other way round",
        CPU + "winograd_axes.isa.h",
        "y[2 * step] = x[2] - x[1];",
        "y[2 * step] = x[1] - x[2];",
        "*/backends/test_winograd.cpp",
    ),
    Mutant(
        "winograd: weights not flipped for the gradient",
        CPU + "winograd.isa.cpp",
        "(job.flipped ? taps - 1 - tap : tap)",
        "tap",
        "*/backends/test_winograd.cpp",
    ),
    Mutant(
        "winograd: a pixel beyond the last column is written",
        CPU + "winograd.isa.cpp",
        "if (j >= columns) break;\n        if constexpr",
        "if (j > columns) break;\n        if constexpr",
        "*/backends/test_winograd.cpp",
    ),
    Mutant(
        "winograd: each share of the channels takes the first bias",
        CPU + "conv2d_winograd.cpp",
        "tensors.bias ? tensors.bias + channel : nullptr",
        "tensors.bias ? tensors.bias : nullptr",
        "*/backends/test_winograd.cpp",
    ),
    Mutant(
        "winograd: a strip reads the row below the image",
        CPU + "winograd_groups.isa.cpp",
        "job.row + i >= job.rows",
        "job.row + i > job.rows",
        "*/backends/test_winograd.cpp",
    ),
    Mutant(
        "winograd: a gradient within groups forgets its mask",
        CPU + "conv2d_winograd_groups.cpp",
        "tensors.mask ? tensors.mask + at : nullptr",
        "nullptr",
        "*/backends/test_conv2d.cpp",
    ),
    Mutant(
        "winograd: all parts of a weight gradient but the first are lost",
        CPU + "conv2d_winograd_group_grad.cpp",
        "Index part = 1; part < plan.parts; ++part)\n    kernels.add(sums",
        "Index part = 1; part < 1; ++part)\n    kernels.add(sums",
        "*/backends/test_winograd_weight_grad.cpp",
    ),
    Mutant(
        "strassen: a pixel without a partner takes the next image's",
        CPU + "conv2d_strassen.cpp",
        "if (row == plan.rows) {\n",
        "if (row == plan.rows + 1) {\n",
        "*/backends/test_strassen.cpp",
    ),
    Mutant(
        "strassen: each share of the channels starts with the first weights",
        CPU + "strassen.isa.cpp",
        "tile.weights = job.weights + tile.channel * products * job.part;",
        "tile.weights = job.weights;",
        "*/backends/test_strassen.cpp",
    ),
    Mutant(
        "strassen: the second level forgets a sum of the outer one",
        CPU + "strassen.isa.cpp",
        "if (product == 2 || product == 3 || product == 5) add(u2, sum);",
        "if (product == 2 || product == 3) add(u2, sum);",
        "*/backends/test_strassen.cpp",
    ),
    Mutant(
        "strassen: later parts of a weight gradient go on from the sums of others",
        CPU + "conv2d_strassen_weight_grad.cpp",
        "job.accumulate = u != chunk.first;",
        "job.accumulate = u != 0;",
        "*/backends/test_strassen_weight_grad.cpp",
    ),
    Mutant(
        "strassen: every part of a weight gradient adds the odd pixel",
        CPU + "conv2d_strassen_weight_grad.cpp",
        "if (plan.pixels() % 2 == 0 || chunk.part + 1 < plan.parts) return;",
        "if (plan.pixels() % 2 == 0) return;",
        "*/backends/test_strassen_weight_grad.cpp",
    ),
    Mutant(
        "bfloat16: ties rounded up",
        CPU + "simd.isa.h",
        "bits + 0x7FFFu + ((bits >> 16) & 1u)",
        "bits + 0x8000u",
        "*/backends/test_bfloat16.cpp",
    ),
    Mutant(
        "bfloat16: weights not rounded where it is emulated",
        CPU + "widened.cpp",
        "functions.round(source.as<const float>() + begin, target + begin, n);",
        "std::copy_n(source.as<const float>() + begin, n, target + begin);",
        "*/backends/test_bfloat16.cpp",
    ),
    Mutant(
        "bfloat16: slices of an image less are none",
        CPU + "widened.cpp",
        "larger == 0 || index < larger ? widened.inner : widened.smaller",
        "index >= 0 ? widened.inner : widened.smaller",
        "*/backends/test_bfloat16.cpp",
    ),
    Mutant(
        "bfloat16: of the last pixel one input widened",
        CPU + "conv2d_weight_grad.cpp",
        "(columns - 1) * column + plan.reach",
        "(columns - 1) * column + 1",
        "*/backends/test_bfloat16.cpp",
    ),
    Mutant(
        "bfloat16: a parameter's gradient summed in it",
        "csrc/compile/lower_precision.cpp",
        "if (is_elementwise_pair(node.op) && !varies_[at(input)]) return false;",
        "",
        "*/compile/test_lower_precision.cpp",
    ),
    Mutant(
        "batch norm: variance in one pass",
        CPU + "batch_norm.isa.cpp",
        "(p, row, lanes);\n    for (int v = 0; v < kVectors; ++v) {\n      const Vec d = row[v] - center[v];",
        "(p, row, lanes);\n    for (int v = 0; v < kVectors; ++v) {\n      const Vec d = row[v];",
        "*/backends/test_batch_norm.cpp",
    ),
    Mutant(
        "batch norm: measured pixels forget those before",
        CPU + "batch_norm.isa.cpp",
        "more.before + begin, pivot + c",
        "begin, pivot + c",
        "*/backends/test_conv2d_measure.cpp",
    ),
    Mutant(
        "batch norm: running variance biased",
        CPU + "batch_norm_matrix.h",
        "static_cast<T>((1.0 - momentum) * old_var + momentum * unbiased)",
        "static_cast<T>((1.0 - momentum) * old_var + momentum * (unbiased * 0.99))",
        "*/backends/test_batch_norm.cpp",
    ),
    Mutant(
        "softmax: largest not subtracted",
        CPU + "softmax.isa.cpp",
        "store_exp(x, y, n, max_of_numbers(x, n))",
        "store_exp(x, y, n, 0.0f)",
        "*/backends/test_softmax.cpp",
    ),
    Mutant(
        "relu: gradient open at zero",
        CPU + "activation.isa.cpp",
        "return select(out <= zero(), zero(), grad);",
        "return select(out < zero(), zero(), grad);",
        "*/backends/test_activation.cpp",
    ),
    Mutant(
        "leaky relu: slope on the wrong side",
        CPU + "activation.isa.cpp",
        "select(out > zero(), grad, s * grad)",
        "select(out > zero(), s * grad, grad)",
        "*/backends/test_activation.cpp",
    ),
    Mutant(
        "sgd: Nesterov as plain momentum",
        CPU + "optimizer.isa.cpp",
        "kNesterov ? fma(momentum, v, g) : v",
        "kNesterov ? v : v",
        "*/backends/test_optimizer.cpp",
    ),
    Mutant(
        "adam: eps inside the root",
        CPU + "optimizer.isa.cpp",
        "fma(sqrt(variance), inverse_correction, eps)",
        "sqrt(fma(variance, inverse_correction * inverse_correction, eps))",
        "*/backends/test_optimizer.cpp",
    ),
    Mutant(
        "muon: a tall matrix taken as a wide one",
        CPU + "muon.cpp",
        "bool tall() const { return first > rest; }",
        "bool tall() const { return false; }",
        "*/backends/test_optimizer.cpp",
    ),
    Mutant(
        "muon: coefficients of another polynomial",
        CPU + "muon.cpp",
        "kQuintic = 2.0315",
        "kQuintic = 2.0",
        "*/backends/test_optimizer.cpp",
    ),
    Mutant(
        "adam: decay not decoupled",
        CPU + "optimizer.isa.cpp",
        "fma(minus_step, mean / denominator, shrink * p)",
        "fma(minus_step, mean / denominator, p)",
        "*/backends/test_optimizer.cpp",
    ),
    Mutant(
        "dropout: kept values not scaled",
        CPU + "dropout.isa.cpp",
        "> below, x * scale, zero())",
        "> below, x, zero())",
        "*/backends/test_dropout.cpp",
    ),
    Mutant(
        "dropout: threshold off by one",
        CPU + "dropout.isa.cpp",
        "chunk.threshold - 1 - IVec{}",
        "chunk.threshold + (1 << 18) - IVec{}",
        "*/backends/test_dropout.cpp",
    ),
    Mutant(
        "local response norm: alpha not divided by the size",
        CPU + "local_response_norm.cpp",
        "p.alpha_over_size = static_cast<float>(op.alpha / static_cast<double>(op.size));",
        "p.alpha_over_size = static_cast<float>(op.alpha);",
        "*/backends/test_local_response_norm.cpp",
    ),
    Mutant(
        "average pooling: padding never counts",
        CPU + "pool_avg.cpp",
        "const bool count_padding = op_of<ops::AvgPool2d>(args).count_include_pad;",
        "const bool count_padding = false;",
        "*/backends/test_pool.cpp",
    ),
    Mutant(
        "max pooling: NaN lost",
        CPU + "pool_max.isa.cpp",
        'return choose(nan, broadcast(__builtin_nanf("")), best);',
        "return static_cast<void>(nan), best;",
        "*/backends/test_pool.cpp",
    ),
    Mutant(
        "windows: one starts in the padding behind the image",
        "csrc/ops/window.cpp",
        ">= checked_add(a.size, a.before)) --count;",
        "> checked_add(a.size, a.before)) --count;",
        "*/ops/test_pool.cpp",
    ),
    Mutant(
        "windows: overflow not noticed",
        "csrc/ops/checks.cpp",
        'if (__builtin_mul_overflow(a, b, &product)) {\n    fail<ShapeError>("size ", a, " * ", b, " overflows");\n  }',
        "(void)__builtin_mul_overflow(a, b, &product);",
        "*/ops/*",
    ),
    Mutant(
        "labels: the number of classes is a class",
        "csrc/runtime/label_checks.cpp",
        "if (count == 0 || largest < static_cast<std::uint64_t>(classes)) return;",
        "if (count == 0 || largest <= static_cast<std::uint64_t>(classes)) return;",
        "*/runtime/*",
    ),
    Mutant(
        "locks: inference does not wait",
        "csrc/runtime/variable_locks.cpp",
        "if (use->writing || use->wanted_to_write == look) return false;",
        "if (written && (use->writing || use->wanted_to_write == look)) return false;",
        "*/runtime/test_variable_locks.cpp",
    ),
    Mutant(
        "arena: freed neighbours do not join",
        "csrc/compile/arena.cpp",
        "if (before->first + before->second == offset) {",
        "if (before->first + before->second == offset + 1) {",
        "*/compile/test_arena.cpp",
    ),
    Mutant(
        "arena: a block lives a step too short",
        "csrc/compile/arena.cpp",
        "alive.top().first < lifetimes[i].first; alive.pop()",
        "alive.top().first <= lifetimes[i].first; alive.pop()",
        "*/compile/test_arena.cpp",
    ),
    Mutant(
        "json: nesting one deeper than allowed",
        "csrc/core/json.cpp",
        "if (levels_.size() >= kMaxDepth)",
        "if (levels_.size() > kMaxDepth)",
        "*/core/test_json.cpp",
    ),
    Mutant(
        "threads: quota not obeyed",
        "csrc/core/threads.cpp",
        'limit(choice.affinity, "processors that may be used");',
        "",
        "*/core/test_threads.cpp",
    ),
    Mutant(
        "memory: pages of files count as used",
        "csrc/core/memory.cpp",
        "std::max<std::int64_t>(*used - files, 0)",
        "std::max<std::int64_t>(*used, files)",
        "*/core/test_memory.cpp",
    ),
)


def run(mutant: Mutant, build_command: list[str], tests: str, timeout_s: float) -> str:
    """What became of a mutant: killed, timed out (noticed, too), survived, does not fit, does not build."""
    path = ROOT / mutant.file
    source = path.read_text(encoding="utf-8")
    if source.count(mutant.old) != 1:
        return "does not fit"
    try:
        path.write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")
        if subprocess.run(build_command, cwd=ROOT, capture_output=True, check=False).returncode:
            return "does not build"
        try:
            done = subprocess.run(
                [tests, "--minimal", f"--source-file={mutant.tests}"],
                cwd=ROOT,
                capture_output=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "timed out"
        return "killed" if done.returncode else "survived"
    finally:
        path.write_text(source, encoding="utf-8")


def main() -> int:
    """Run the mutants and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", help="build folder that has the C++ tests")
    parser.add_argument("--only", default="", metavar="TEXT", help="mutants whose name holds this")
    parser.add_argument("--list", action="store_true", help="tell the names and stop")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="S", help="for the tests of one mutant")
    parser.add_argument("--build-command", metavar="CMD", help="instead of cmake --build BUILD --target pycnn_tests")
    parser.add_argument("--tests", metavar="FILE", help="instead of BUILD/tests/cpp/pycnn_tests")
    args = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if args.only in mutant.name]
    if args.list:
        print(*(mutant.name for mutant in chosen), sep="\n")
        return 0
    files = sorted({mutant.file for mutant in chosen})
    if subprocess.run(["git", "diff", "--quiet", "--", *files], cwd=ROOT, check=False).returncode:
        print("sources that mutants change have changes of yours; commit them first", file=sys.stderr)
        return 2
    build = (
        args.build_command.split()
        if args.build_command
        else ["cmake", "--build", args.build, "--target", "pycnn_tests"]
    )
    tests = str(Path(args.tests or Path(args.build) / "tests/cpp/pycnn_tests").resolve())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the source is put back
    bad = []
    for mutant in chosen:
        begin = time.monotonic()
        result = run(mutant, build, tests, args.timeout)
        print(f"{result:14} {time.monotonic() - begin:5.0f} s  {mutant.name}", flush=True)
        if result not in ("killed", "timed out"):
            bad.append(mutant.name)
    subprocess.run(build, cwd=ROOT, capture_output=True, check=False)
    print(f"{len(chosen) - len(bad)} of {len(chosen)} killed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
