"""The examples, built with each way to get at pycnn, and what they work on."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from embed_builds import Examples, build_examples, cmake, run

import pycnn

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the folder's tests where nothing can be compiled."""
    if shutil.which("cmake") is None or shutil.which("c++") is None or shutil.which("cc") is None:
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="needs cmake, a C++ and a C compiler"))


@pytest.fixture(scope="session")
def cmake_dir() -> Path:
    """The installed package's folder for CMake."""
    return Path(run(sys.executable, "-P", "-m", "pycnn", "--cmake-dir").strip())


@pytest.fixture(scope="session")
def wheel_examples(root: Path, cmake_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Examples:
    """Built against the installed Python package: a shared library."""
    return build_examples(root, tmp_path_factory.mktemp("wheel"), f"-DCMAKE_PREFIX_PATH={cmake_dir}")


@pytest.fixture(scope="session")
def subdirectory_examples(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Examples:
    """Built with pycnn's sources as a part of the project: a static library, for the baseline only."""
    return build_examples(
        root,
        tmp_path_factory.mktemp("subdirectory"),
        "-DPYCNN_CPU_ISAS=",
        "-DPYCNN_UNITY_BUILD=ON",
        before=f'add_subdirectory("{root}" pycnn)',
    )


@pytest.fixture(scope="session")
def static_prefix(subdirectory_examples: Examples) -> Path:
    """A static install, of what was built as a subdirectory."""
    build = subdirectory_examples.cpp.parent
    prefix = build.parent / "prefix"
    run("cmake", "--install", build, "--component", "cpp", "--prefix", prefix)
    return prefix


@pytest.fixture(scope="session")
def static_examples(root: Path, static_prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Examples:
    """Built against the static install."""
    return build_examples(root, tmp_path_factory.mktemp("static"), f"-DCMAKE_PREFIX_PATH={static_prefix}")


@pytest.fixture(scope="session")
def shared_prefix(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shared install from source, without Python."""
    if os.environ.get("PYCNN_EMBED_SUITE") != "all":
        pytest.skip("compiles the library once more: PYCNN_EMBED_SUITE=all does so")
    folder = tmp_path_factory.mktemp("shared_library")
    cmake(root, folder / "build", "-DBUILD_SHARED_LIBS=ON", "-DPYCNN_CPU_ISAS=", "-DPYCNN_UNITY_BUILD=ON")
    run("cmake", "--install", folder / "build", "--component", "cpp", "--prefix", folder / "prefix")
    return folder / "prefix"


@pytest.fixture(scope="session")
def shared_examples(root: Path, shared_prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Examples:
    """Built against the shared install."""
    return build_examples(root, tmp_path_factory.mktemp("shared"), f"-DCMAKE_PREFIX_PATH={shared_prefix}")


@dataclass(frozen=True)
class Digits:
    """The embedded digits as uncompressed IDX files, and those held out."""

    images: Path
    labels: Path
    train: pycnn.data.Dataset
    test: pycnn.data.Dataset


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    """The digits."""
    train, test = pycnn.data.digits(seed=0)
    folder = tmp_path_factory.mktemp("idx")

    def write(name: str, array: np.ndarray) -> Path:
        path = folder / name
        header = np.array([0x800 + array.ndim, *array.shape], ">u4").tobytes()
        path.write_bytes(header + array.astype(np.uint8).tobytes())
        return path

    images = write("images", np.asarray(train.images)[..., 0])
    return Digits(images, write("labels", np.asarray(train.labels)), train, test)


@pytest.fixture(scope="session")
def trained(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LeNet-5, trained for an epoch by Python and saved with names of classes."""
    net = pycnn.models.create("lenet5")
    trainer = pycnn.Trainer(net, optimizer=pycnn.optim.SGD(lr=0.05, momentum=0.9), seed=0)
    trainer.fit(digits.train, epochs=1, batch_size=64, progress=False)
    path = tmp_path_factory.mktemp("trained") / "lenet5.safetensors"
    names = '["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]'
    pycnn.save(net, path, metadata={"class_names": names})
    return path


@pytest.fixture(scope="session")
def with_batch_norm(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A net with batch norms and dropout, trained for an epoch by Python."""
    nn = pycnn.nn
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2),
        nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(None, 10),
    )  # fmt: skip
    trainer = pycnn.Trainer(net, optimizer=pycnn.optim.SGD(lr=0.05, momentum=0.9), seed=0)
    trainer.fit(digits.train, epochs=2, batch_size=64, progress=False)
    path = tmp_path_factory.mktemp("with_batch_norm") / "net.safetensors"
    pycnn.save(net, path)
    return path


USES = ["wheel", "subdirectory", "static", "shared"]


@pytest.fixture(scope="session", params=[pytest.param(use, marks=pytest.mark.slow) for use in USES])
def any_use(request: pytest.FixtureRequest) -> Examples:
    """The examples, built in each way."""
    return request.getfixturevalue(f"{request.param}_examples")
