"""Uses an installed pycnn as somebody would who has nothing else installed: trains, predicts, saves, loads.

python -P tools/smoke_install.py [VERSION]
"""

import importlib.metadata
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import pycnn as pc


def refusal(use: Callable[[], object]) -> str:
    """What is said where an optional package is missing."""
    try:
        use()
    except pc.UnsupportedError as error:
        return str(error)
    return ""


def main() -> None:
    installed = Path(pc.__file__).parent
    expected = sys.argv[1] if len(sys.argv) > 1 else pc.__version__
    versions = {pc.__version__, importlib.metadata.version("pycnn"), expected}
    assert len(versions) == 1, versions

    train, test = pc.data.digits(seed=0)
    net = pc.models.lenet5()
    trainer = pc.Trainer(net, optimizer=pc.optim.SGD(lr=0.05, momentum=0.9), seed=0)
    trainer.fit(train, epochs=4, batch_size=32, progress=False)
    accuracy = trainer.evaluate(test)["accuracy"]
    assert accuracy > 0.9, accuracy
    loaded = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if ".so" in line}
    ours = {Path(name).name for name in loaded if Path(name).is_relative_to(installed) or "pycnn.libs" in name}
    assert sorted(name.split(".")[0] for name in ours) == ["_core", "_image", "libpycnn"], ours
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "net.safetensors"
        net.save(file)
        np.testing.assert_array_equal(pc.load(file).predict(test.images), net.predict(test.images))
    x = np.random.default_rng(0).random((8, 56, 56, 64), dtype=np.float32)
    conv = pc.nn.Conv2d(64, 64, 3, padding=1)
    bits = [pc.compile(conv, x.shape, threads=threads)(x) for threads in (1, 2)]
    np.testing.assert_array_equal(*bits)

    uses = {"onnx": lambda: pc.onnx.load(b""), "sklearn": lambda: pc.sklearn, "torch": lambda: pc.from_torch(0, (1,))}
    for package, use in uses.items():
        if importlib.util.find_spec(package) is None:
            assert f"pip install 'pycnn[{package}]'" in refusal(use)
    command = [sys.executable, "-P", "-m", "pycnn", "--cmake-dir"]
    folder = Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
    assert (folder / "pycnnConfig.cmake").is_file(), folder
    assert (installed / "py.typed").is_file()
    script = Path(sys.executable).parent / "pycnn"
    shown = subprocess.run([script, "--version"], check=True, capture_output=True, text=True).stdout
    assert expected in shown, shown
    print(f"pycnn {expected} on Python {sys.version.split()[0]}: {accuracy:.1%} of the digits")


if __name__ == "__main__":
    main()
