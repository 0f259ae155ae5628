"""Fixtures that all tests share."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from pycnn import _core
from pycnn.config import machine, manual_seed

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    """Hear interruptions even when started in the background of a shell, where they are ignored from the start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `cuda` skip where no GPU can be used."""
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if marked and "cuda:0" not in machine()["devices"]:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no GPU that pycnn can use"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call():
    """Tests skip that need what `tools/gpu_check.sh` does not build without Cython; nothing else leaves it out."""
    try:
        return (yield)
    except ImportError as error:
        if not str(error).startswith("pycnn.data._image was not built"):
            raise
        pytest.skip(str(error))


@pytest.fixture
def image_loops():
    """As above for tests of commands, which would make an exit status of that error."""
    from pycnn.data import _image

    try:
        _image.gather  # noqa: B018
    except ImportError as error:
        pytest.skip(str(error))


@pytest.fixture
def strassen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions go by Strassen's algorithm where shapes allow it, on every processor."""
    monkeypatch.setenv("PYCNN_STRASSEN", "1")


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data(root: Path) -> Path:
    """The folder of real data beside the project; tests that need it skip where it is absent."""
    folder = root.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the data folder ../shared/data is not there")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """No test reads or writes what the user has in his cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYCNN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def compiled_for(monkeypatch):
    """The devices that programs are compiled for, in order; all of them run here, so that no GPU is needed."""
    devices, compile_here = [], _core.compile

    def compile_and_note(*args, device, **options):
        devices.append(device)
        return compile_here(*args, device="cpu", **options)

    monkeypatch.setattr("pycnn.program._core.compile", compile_and_note)
    return devices


@pytest.fixture(autouse=True)
def _default_seed():
    """Weights of fresh nets follow the seed; no test may leave another one to the next."""
    yield
    manual_seed(0)
