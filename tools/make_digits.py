"""Write pycnn/data/digits.npz from the copy of the UCI digits that scikit-learn bundles.

Run once, by hand: ``python tools/make_digits.py`` (needs scikit-learn; the package does not).
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

TARGET = Path(__file__).parent.parent / "pycnn" / "data" / "digits.npz"


def main() -> None:
    """Check the source and write the file; the same bytes every time."""
    source = load_digits()
    images = source.images.astype(np.uint8)
    if images.shape != (1797, 8, 8) or images.max() != 16 or (images != source.images).any():
        raise SystemExit(f"unexpected digits: {images.shape}, largest {images.max()}")
    arrays = {"images": images, "labels": source.target.astype(np.uint8)}
    with zipfile.ZipFile(TARGET, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            data = io.BytesIO()
            np.save(data, array, allow_pickle=False)
            # A fixed date, or every run would give another file.
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1998, 7, 1, 0, 0, 0))
            archive.writestr(entry, data.getvalue(), zipfile.ZIP_DEFLATED)
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
