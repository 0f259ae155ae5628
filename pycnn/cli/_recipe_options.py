"""The keys of recipes as options of commands."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from pycnn.cli import _nets
from pycnn.cli._options import UsageError, as_usage
from pycnn.errors import FormatError
from pycnn.train import Recipe, recipe, recipes
from pycnn.train._recipe import find_recipe, keys_in_file
from pycnn.train._recipe_kinds import Kind

__all__ = ["add_arguments", "is_chosen", "list_text", "settle"]

# These have an option of another form.
_ELSEWHERE = ("about", "net", "option", "data")
_METAVARS = {
    "augment": "NAME",
    "test_transform": "STEPS",
    "no_decay": "NAMES",
    "metrics": "NAMES",
    "milestones": "N,M",
    "dtype": "TYPE",
    "groups": "GROUPS",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --recipe, --list-recipes and an option for each key."""
    group = parser.add_argument_group("recipe (the default depends on net and data set)")
    group.add_argument(
        "--recipe",
        metavar="NAME",
        help="how to train: one of --list-recipes, or a .toml file; the options below replace its values",
    )
    group.add_argument("--list-recipes", action="store_true", help="name the recipes that come along, and stop")
    for field in fields(Recipe):
        if field.name in _ELSEWHERE:
            continue
        kind: Kind = field.metadata["kind"]
        flag, about = "--" + field.name.replace("_", "-"), field.metadata["about"].replace("%", "%%")
        if kind.is_flag:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=about)
        elif kind.choices:
            group.add_argument(flag, choices=kind.choices, help=about)
        else:
            metavar = _METAVARS.get(field.name, "N" if kind.expected.startswith("a whole") else "X")
            group.add_argument(flag, type=_reader(kind), metavar=metavar, help=about)


def _reader(kind: Kind) -> Callable[[str], Any]:
    def read(words: str) -> Any:
        try:
            return kind.parse(words)
        except (ValueError, TypeError):
            raise argparse.ArgumentTypeError(f"{words!r} is not {kind.expected}") from None

    return read


def settle(args: argparse.Namespace, *, net: str = "lenet5") -> Recipe:
    """The recipe with what was typed.

    Args:
        args: With the options of `add_arguments`, and net, data, option, activation.
        net: What is trained when neither a net nor a recipe is named.

    Raises:
        UsageError: There is no such recipe, or it, or what was typed, is refused.
        FileError: The recipe's file cannot be read.
    """
    typed = {
        field.name: getattr(args, field.name)
        for field in fields(Recipe)
        if field.name not in ("about", "option") and getattr(args, field.name) is not None
    }
    options = _nets.parse_options(args.option, args.activation)
    with as_usage():
        if args.recipe is not None:
            try:
                base = recipe(args.recipe)
            except FormatError as error:
                raise UsageError(str(error)) from error
        else:
            typed.setdefault("net", net)
            base = recipe(find_recipe(typed["net"], typed.get("data", "digits")))
        if typed.get("net", base.net) != base.net:
            # The recipe's options are those of another net.
            base = Recipe(**{**base.to_dict(), "option": {}})
        return base.override(**typed, option=options)


def is_chosen(args: argparse.Namespace, key: str) -> bool:
    """Whether a key was typed, or is in the file of --recipe."""
    return getattr(args, key) is not None or (args.recipe is not None and key in keys_in_file(args.recipe))


def list_text() -> tuple[list[dict[str, Any]], str]:
    """The recipes that come along, as data and as text."""
    found = [(name, recipe(name)) for name in recipes()]
    values = [{"name": name, "net": r.net, "data": r.data, "epochs": r.epochs, "about": r.about} for name, r in found]
    width = max(len(name) for name, _ in found)
    return values, "\n".join(f"{name:<{width}}  {r.about}" for name, r in found)
