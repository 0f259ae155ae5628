"""What the commands' options have in common: types, common flags, settings from files."""

from __future__ import annotations

import argparse
import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from pycnn.errors import ArgumentError

__all__ = [
    "UsageError",
    "as_usage",
    "check_output",
    "count",
    "fraction",
    "image_shape",
    "number",
    "parse",
    "parse_value",
    "seed",
    "side",
    "size_bytes",
    "thread_list",
    "to_toml",
    "toml_value",
]


class UsageError(ValueError):
    """What was typed is wrong: exit code 2."""


@contextmanager
def as_usage() -> Iterator[None]:
    """Report arguments that the library refuses as wrong usage."""
    try:
        yield
    except ArgumentError as error:
        raise UsageError(str(error)) from error


def check_output(option: str, path: Path | None, *, example: str) -> None:
    """Refuse before the work what could not be written after it.

    Raises:
        UsageError: The path is a folder, or its own folder is missing or may not be written to.
    """
    if path is None:
        return
    folder = path.resolve().parent
    if not folder.is_dir():
        raise UsageError(f"{option} '{path}': its folder does not exist")
    if path.is_dir():
        raise UsageError(f"{option} '{path}' is a folder, expected a file, for example {path / example}")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{option} '{path}': its folder may not be written to")


# ---- Types of options


def count(text: str) -> int:
    """A whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def seed(text: str) -> int:
    """A whole number from 0 to 2**63 - 1."""
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2**63 - 1")
    return value


def number(text: str) -> float:
    """A finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return value


def fraction(text: str) -> float:
    """A number of at least 0 and below 1."""
    value = number(text)
    if value >= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not below 1")
    return value


def side(text: str) -> tuple[int, int]:
    """Height and width "H,W" or one side."""
    sizes = [count(part) for part in text.replace("x", ",").split(",")]
    if len(sizes) not in (1, 2):
        raise argparse.ArgumentTypeError(f"{text!r} is not H,W, for example 56,56")
    return sizes[0], sizes[-1]


def size_bytes(text: str) -> int:
    """Bytes: a number with K, M, G or T (powers of 1,024), or none of them."""
    units = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    digits = text.strip().upper().removesuffix("B").removesuffix("I")
    unit = digits[-1:] if digits[-1:] in ("K", "M", "G", "T") else ""
    try:
        value = int(float(digits.removesuffix(unit)) * units[unit])
    except (ValueError, OverflowError):
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size, for example 512M or 8G")
    return value


def thread_list(text: str) -> list[int]:
    """Thread counts, comma-separated, each once."""
    return list(dict.fromkeys(count(part) for part in text.split(",")))


def image_shape(text: str) -> tuple[int, ...]:
    """Sizes "H,W,C" of an image."""
    try:
        sizes = tuple(count(part) for part in text.replace("x", ",").split(","))
    except argparse.ArgumentTypeError:
        sizes = ()
    if len(sizes) != 3:
        raise argparse.ArgumentTypeError(f"{text!r} is not H,W,C, for example 28,28,1")
    return sizes


def parse_value(text: str) -> Any:
    """A number, true or false, or the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _assignment(text: str) -> tuple[str, str]:
    key, found, value = text.partition("=")
    if not found or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key.strip(), value.strip()


# ---- Parsing


class _Parser(argparse.ArgumentParser):
    """Reports wrong words in one line, without the list of all options."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def parse(command: Any, name: str, description: str, words: Sequence[str]) -> argparse.Namespace:
    """Parse a command's words; settings of --config and --set count as if typed before them.

    Args:
        command: The command's module: `add_arguments`, and perhaps `settings_file(args)`, which gives a further file of
            settings, and `RUNS_ON_DEVICES` and `RUNS_ON_THREADS`: whether it goes by --device and --threads, which
            others do not know.
        name: Its name.
        description: Its help line.
        words: What was typed after the name.

    Raises:
        UsageError: Words are wrong, a setting is unknown, or a file of settings is no TOML.
        SystemExit: --help, with code 0.
    """
    parser = _Parser(
        prog=f"pycnn {name}",
        description=f"{description[0].upper()}{description[1:]}.",
        epilog=command.__doc__.partition("\n")[2].strip() or None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_arguments(parser)
    _add_common(
        parser,
        runs_on_devices=getattr(command, "RUNS_ON_DEVICES", False),
        runs_on_threads=getattr(command, "RUNS_ON_THREADS", False),
    )
    args = parser.parse_args(words)
    files = [args.config] if args.config else []
    if hasattr(command, "settings_file"):
        files = [path for path in (command.settings_file(args),) if path] + files
    before: list[str] = []
    for path in files:
        before += _words(_read(path), parser, f"'{path}'")
    before += _words(dict(args.set), parser, "--set")
    return parser.parse_args([*before, *words]) if files or args.set else args


def add_numerics(parser: argparse.ArgumentParser) -> None:
    """Add what `numerics` reads: how numbers are multiplied and kept."""
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        metavar="D",
        help="element type of activations: float32 (default), bfloat16, where the processor has AMX or AVX512-BF16, or "
        "float16, on a GPU",
    )
    parser.add_argument("--emulate-bfloat16", action="store_true", help="bfloat16 on any processor, slowly")
    parser.add_argument(
        "--no-winograd",
        dest="winograd",
        action="store_false",
        help="plain sums in all convolutions: slower, with smaller rounding errors",
    )
    parser.add_argument("--tf32", action="store_true", help="let a GPU's tensor cores round float32 to TF32")


def numerics(args: argparse.Namespace) -> dict[str, Any]:
    """What was typed of `add_numerics`, as arguments of `pycnn.compile` and others that take a device.

    Raises:
        UsageError: bfloat16 is to be emulated in another type.
    """
    if args.emulate_bfloat16 and args.dtype != "bfloat16":
        raise UsageError(f"--emulate-bfloat16 is for --dtype bfloat16, which is {args.dtype}")
    return {
        "dtype": args.dtype,
        "emulate_bfloat16": args.emulate_bfloat16,
        "winograd": args.winograd,
        "tf32": args.tf32,
    }


def add_recompute(parser: argparse._ActionsContainer) -> None:
    """Add `--recompute`."""
    parser.add_argument(
        "--recompute",
        choices=("none", "cheap", "sqrt"),
        help="what a training step computes again instead of keeping it in memory; the same bits (default: cheap, "
        "most of what one pass gives; sqrt: nearly all, for a third more time)",
    )


def _add_common(parser: argparse.ArgumentParser, *, runs_on_devices: bool, runs_on_threads: bool) -> None:
    known = {option for action in parser._actions for option in action.option_strings}
    group = parser.add_argument_group("common options")
    if runs_on_devices:
        group.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    if runs_on_threads and "--threads" not in known:
        group.add_argument("--threads", type=count, metavar="N", help="at most N threads (default: see pycnn doctor)")
    if "--seed" not in known:
        group.add_argument("--seed", type=seed, default=0, metavar="N", help="of everything random (default: 0)")
    if "--json" not in known:
        group.add_argument("--json", action="store_true", help="one line of JSON on standard output")
    group.add_argument("--quiet", action="store_true", help="no progress and no suggestions")
    group.add_argument("--config", type=Path, metavar="FILE", help="settings by the names of the options, as TOML")
    group.add_argument(
        "--set", type=_assignment, action="append", default=[], metavar="KEY=VALUE", help="one setting, as in --config"
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"'{path}' is no TOML: {error}") from error


def _words(settings: Mapping[str, Any], parser: argparse.ArgumentParser, where: str) -> list[str]:
    """The settings as if they had been typed."""
    unsettable = ("help", "config", "set", "resume")
    actions = {action.dest: action for action in parser._actions if action.dest not in unsettable}
    words: list[str] = []
    for key, value in settings.items():
        action = actions.get(key.replace("-", "_"))
        if action is None:
            close = get_close_matches(key.replace("-", "_"), actions, n=3, cutoff=0.5) or sorted(actions)
            raise UsageError(f"{where}: no setting is called '{key}'; there is {', '.join(close)}")
        if not action.option_strings:
            # Typed words come later and win; what is typed nowhere keeps this default.
            action.default, action.nargs, action.required = str(value), "?", False
            continue
        flag = action.option_strings[0]
        if action.nargs == 0:
            truth = parse_value(value) if isinstance(value, str) else value
            if not isinstance(truth, bool):
                raise UsageError(f"{where}: '{key}' must be true or false, got {value!r}")
            if truth or isinstance(action, argparse.BooleanOptionalAction):
                words.append(flag if truth else action.option_strings[-1])
        elif isinstance(value, dict):
            for part, item in value.items():
                words += [flag, f"{part}={toml_value(item) if isinstance(item, list | dict) else _text(item)}"]
        elif isinstance(value, list) and any(isinstance(part, dict | list) for part in value):
            words += [f"{flag}={toml_value(value)}"]
        elif isinstance(value, list):
            words += [f"{flag}={','.join(_text(part) for part in value)}"]
        else:
            words += [f"{flag}={_text(value)}"]
    return words


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def toml_value(value: Any) -> str:
    """Write a text, number, truth, list or table as TOML does, in one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        # Strings of JSON are those of TOML, but for DEL.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        inside = ", ".join(f"{toml_value(str(key))} = {toml_value(item)}" for key, item in value.items())
        return f"{{ {inside} }}"
    return f"[{', '.join(toml_value(item) for item in value)}]"


def to_toml(settings: Mapping[str, Any]) -> str:
    """Write settings so that `--config` reads them back; tables come last."""
    lines = [f"{key} = {toml_value(value)}" for key, value in settings.items() if not isinstance(value, dict)]
    for key, table in settings.items():
        if isinstance(table, dict) and table:
            lines += ["", f"[{key}]", *(f"{part} = {toml_value(value)}" for part, value in table.items())]
    return "\n".join(lines) + "\n"
