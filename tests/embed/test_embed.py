"""The C++ package as a stranger uses it: the examples built against every kind of install, and run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pycnn

GENERATOR = ["-G", "Ninja"] if shutil.which("ninja") else []
pytestmark = pytest.mark.skipif(
    shutil.which("cmake") is None or shutil.which("c++") is None, reason="needs cmake and a C++ compiler"
)


def run(*command: str | Path, **options) -> str:
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def build_examples(root: Path, prefix: str, folder: Path) -> Path:
    run(
        "cmake", "-S", root / "examples" / "cpp", "-B", folder, *GENERATOR,
        f"-DCMAKE_PREFIX_PATH={prefix}", "-DCMAKE_BUILD_TYPE=Release",
    )  # fmt: skip
    run("cmake", "--build", folder, "--parallel", "2")
    return folder


@pytest.fixture(scope="module")
def wheel_examples(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples built against the installed package."""
    prefix = run(sys.executable, "-P", "-m", "pycnn", "--cmake-dir").strip()
    return build_examples(root, prefix, tmp_path_factory.mktemp("wheel_examples"))


@pytest.fixture(scope="module")
def static_prefix(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A static install from source. Unoptimised and for the baseline only: what is tested is the package."""
    folder = tmp_path_factory.mktemp("static")
    run(
        "cmake", "-S", root, "-B", folder / "build", *GENERATOR, "-DBUILD_SHARED_LIBS=OFF", "-DPYCNN_CPU_ISAS=",
        "-DPYCNN_UNITY_BUILD=ON",
        "-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_CXX_FLAGS_RELEASE=-O0", f"-DCMAKE_INSTALL_PREFIX={folder / 'prefix'}",
    )  # fmt: skip
    run("cmake", "--build", folder / "build", "--parallel", "2")
    run("cmake", "--install", folder / "build", "--component", "cpp")
    return folder / "prefix"


@pytest.fixture(scope="module")
def digits_as_idx(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, pycnn.data.ArrayDataset]:
    """The embedded digits as uncompressed IDX files."""
    train, test = pycnn.data.digits(seed=0)
    folder = tmp_path_factory.mktemp("idx")

    def write(name: str, array: np.ndarray) -> Path:
        path = folder / name
        header = np.array([0x800 + array.ndim, *array.shape], ">u4").tobytes()
        path.write_bytes(header + array.astype(np.uint8).tobytes())
        return path

    images = write("images", np.asarray(train.images)[..., 0])
    labels = write("labels", np.asarray(train.labels))
    return images, labels, test


def test_train_in_cpp_then_classify_and_load_in_python(wheel_examples, digits_as_idx, tmp_path):
    images, labels, test = digits_as_idx
    model = tmp_path / "lenet5.safetensors"
    output = run(wheel_examples / "train_lenet", images, labels, "8", model)
    losses = [float(line.split()[3]) for line in output.splitlines()]
    assert len(losses) == 8
    assert losses[-1] < 0.2 * losses[0]

    net = pycnn.load(model)
    assert net.num_parameters == 61_706
    accuracy = np.mean(net.predict(test.images) == test.labels)
    assert accuracy > 0.95

    # The same file, the same classes in C++.
    lines = run(wheel_examples / "classify", model, images, "32").splitlines()
    in_cpp = [int(line.split()[1]) for line in lines]
    train, _ = pycnn.data.digits(seed=0)
    assert in_cpp == net.predict(np.asarray(train.images)[:32]).tolist()
    probabilities = np.array([float(line.split()[2]) for line in lines])
    np.testing.assert_allclose(probabilities, net.predict_proba(np.asarray(train.images)[:32]).max(axis=1), atol=6e-5)


def test_python_trained_file_classifies_in_cpp(wheel_examples, digits_as_idx, tmp_path):
    images, _, _ = digits_as_idx
    train, _ = pycnn.data.digits(seed=0)
    net = pycnn.models.create("lenet5")
    trainer = pycnn.Trainer(net, optimizer=pycnn.optim.SGD(lr=0.05, momentum=0.9), seed=0)
    trainer.fit(train, epochs=1, batch_size=64, progress=False)
    pycnn.save(net, tmp_path / "net.safetensors")
    lines = run(wheel_examples / "classify", tmp_path / "net.safetensors", images, "20").splitlines()
    assert [int(line.split()[1]) for line in lines] == net.predict(np.asarray(train.images)[:20]).tolist()


def test_cpp_example_reports_a_bad_file_and_exits(wheel_examples, digits_as_idx, tmp_path):
    images, _, _ = digits_as_idx
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"not a model")
    result = subprocess.run([wheel_examples / "classify", bad, images], capture_output=True, text=True)
    assert result.returncode == 1
    assert "bad.safetensors" in result.stderr


@pytest.mark.slow
def test_static_install_builds_and_runs_the_examples(root, static_prefix, digits_as_idx, tmp_path):
    images, labels, _ = digits_as_idx
    examples = build_examples(root, str(static_prefix), tmp_path / "examples")
    assert not list(static_prefix.rglob("libpycnn.so*"))
    output = run(examples / "train_lenet", images, labels, "1", tmp_path / "m.safetensors")
    assert output.startswith("epoch 1 loss")
    assert run(examples / "classify", tmp_path / "m.safetensors", images, "3").count("\n") == 3


def test_target_brings_only_include_path_standard_and_libraries(root):
    config = Path(run(sys.executable, "-P", "-m", "pycnn", "--cmake-dir").strip()) / "pycnnTargets.cmake"
    text = config.read_text()
    assert "INTERFACE_COMPILE_OPTIONS" not in text
    assert "INTERFACE_COMPILE_FEATURES" in text
    assert os.fspath(root) not in text
