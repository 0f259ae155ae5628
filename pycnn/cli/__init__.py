"""The `pycnn` command: train, evaluate, predict, summary, visualize and others.

Results go to standard output, everything else to standard error. Exit codes: 0 fine, 1 a failed check or an error while
running, 2 wrong usage, 130 and 143 after SIGINT and SIGTERM. Nothing heavy is imported before a command is chosen.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from pycnn.version import __version__

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "train": "train a net; without arguments: LeNet-5 on the digits that come along",
    "evaluate": "measure loss and accuracy of a saved net",
    "predict": "class probabilities of image files",
    "summary": "table of layers: shapes, parameters, multiply-adds, memory",
    "compare-filters": "one large filter against chains of small ones: weights, multiply-adds, field",
    "visualize": "look inside of a net: feature maps, filters, saliency, Grad-CAM, mistakes",
    "transfer": "use a trained net for pictures of your own: advice, features, fine-tuning, one table",
    "history": "train LeNet to ResNeXt on the same data with the same budget; one chart",
    "export": "write a net as an ONNX file",
    "bench": "time a net, whole and layer by layer; compare with an earlier run",
    "launch": "run a command in several processes that train one net together",
    "data": "look at a data set: images per class, sizes, mean and deviation, broken files",
    "doctor": "what this machine offers, what pycnn chose and why, how fast it is",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Words after the program's name. Default: those of the process.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words and words[0] in COMMANDS:
            return _run_command(words[0], words[1:])
        return _run_without_command(words)
    except SystemExit as stop:  # argparse, and SIGTERM while training
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)


def _run_without_command(words: list[str]) -> int:
    width = max(len(name) for name in COMMANDS)
    parser = argparse.ArgumentParser(
        prog="pycnn",
        usage="pycnn COMMAND [options]",
        description="Define, train, inspect and deploy convolutional networks.",
        epilog="commands:\n"
        + "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
        + "\n\nThe options of a command: pycnn COMMAND --help. Start with: pycnn train",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"pycnn {__version__}")
    if not words:
        parser.print_help(sys.stderr)
        return 2
    if not words[0].startswith("-"):
        from difflib import get_close_matches

        close = get_close_matches(words[0], COMMANDS, n=2, cutoff=0.5) or list(COMMANDS)
        parser.error(f"no command is called '{words[0]}'; there is {', '.join(close)}")
    parser.parse_args(words)
    return 2


def _run_command(name: str, words: list[str]) -> int:
    try:
        from pycnn.cli._options import UsageError, parse
        from pycnn.cli._output import Output

        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.showwarning = _show_warning
            command = importlib.import_module(f"pycnn.cli.{name.replace('-', '_')}")
            try:
                args = parse(command, name, COMMANDS[name], words)
                code: int = command.run(args, Output(name, json=bool(args.json), quiet=args.quiet))
            except UsageError as error:
                _report(name, error, hint=f"pycnn {name} --help lists the options")
                return 2
            sys.stdout.flush()
            return code
    except KeyboardInterrupt:
        print(f"pycnn {name}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        _drop_output()  # the reader has gone (`pycnn summary lenet5 | head`)
        return 1
    except Exception as error:
        _report(name, error)
        try:
            sys.stdout.flush()
        except OSError:
            _drop_output()
        return 1


def _drop_output() -> None:
    """Keep the interpreter from failing at its end, by a status of its own, on what could not be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_warning(message: Any, *_args: Any, **_named: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _report(name: str, error: BaseException, hint: str = "") -> None:
    if os.environ.get("PYCNN_TRACEBACK", "0") not in ("", "0"):
        import traceback

        traceback.print_exception(error)
    from pycnn.dist._environment import place
    from pycnn.errors import Error

    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror + (f": '{error.filename}'" if error.filename else "")
    elif not isinstance(
        error, (Error, ValueError, RuntimeError, OSError, LookupError, ImportError, NotImplementedError, MemoryError)
    ):
        text = f"{type(error).__name__}: {text}"
    here = place()
    who = name if here.size == 1 else f"{name}: rank {here.rank} of {here.size}"
    lines = [f"pycnn {who}: error: {text}", *getattr(error, "__notes__", ())]
    if hint:
        lines.append(f"  hint: {hint}")
    print("\n".join(lines), file=sys.stderr)
