"""Roofline pictures of the nets that are compared with other libraries: each step below the machine's peaks.

    python benchmarks/rooflines.py FOLDER [--nets lenet5,resnet50] [--modes infer,train] [--dtype float32] [--rounds 3]

One PNG for each net and mode, at the net's batch of `python -m benchmarks.compare`; needs matplotlib. The numbers
themselves are those of `pycnn bench NET --layers --json FILE`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pycnn
from benchmarks.compare.workload import NETS
from pycnn.benchmark import bench, draw_roofline


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="is made where it is not there")
    parser.add_argument("--nets", default=",".join(NETS), help="default: %(default)s")
    parser.add_argument("--modes", default="infer,train", help="default: %(default)s")
    parser.add_argument("--dtype", default="float32", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    args = parser.parse_args()
    for which, known in (("nets", NETS), ("modes", ("infer", "train"))):
        unknown = [word for word in getattr(args, which).split(",") if word not in known]
        if unknown:
            parser.error(f"--{which}: {', '.join(map(repr, unknown))}: expected some of {', '.join(known)}")
    args.folder.mkdir(parents=True, exist_ok=True)
    for name in args.nets.split(","):
        for mode in args.modes.split(","):
            plan = NETS[name]
            net = pycnn.models.create(name, **plan.options)
            options = {"train": mode == "train", "layers": True, "dtype": args.dtype, "rounds": args.rounds}
            report = bench(net, batch_size=plan.batch, input_shape=plan.image, **options)
            stem = "_".join([name, mode, *([args.dtype] if args.dtype != "float32" else [])])
            draw_roofline(report, args.folder / f"{stem}.png", name=name)
            (timing,) = report.timings
            print(f"{stem}: {1e3 * timing.median:.4g} ms, {timing.percent_of_bound:.0f} % of the bound", flush=True)


if __name__ == "__main__":
    main()
