"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["as_json", "change", "database_url", "weight"]

F = TypeVar("F", bound=Callable[..., Any])


def change(function: F) -> F:
    """The change: a path, or a name in the folder of changes."""
    return click.argument("change")(function)


def database_url(function: F) -> F:
    """The shared database."""
    return click.option("--database-url", metavar="URL", help="The shared database, as a libpq URL.")(function)


def as_json(function: F) -> F:
    """One JSON document on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")(function)


class _Weight(click.ParamType[int]):
    name = "weight"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from parallelchange.model import parse_weight

        try:
            return parse_weight(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def weight(function: F) -> F:
    """A share of traffic."""
    return click.option("--to", "to", type=_Weight(), required=True, metavar="W", help="Share, as in 12.5%.")(function)
