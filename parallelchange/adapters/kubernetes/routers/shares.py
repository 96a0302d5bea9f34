"""From weights, as objects have them, to shares. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, TypeVar

from parallelchange.model import FULL

__all__ = ["number", "shares_of", "thousandths", "weighted"]

_Item = TypeVar("_Item")

# As Kubernetes reads a quantity; Python's own numbers may also have underscores, spaces and any exponent.
_QUANTITY = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?")


def number(weight: object) -> Fraction:
    """A weight: a number, or a quantity such as `900m`.

    Raises:
        ValueError: It is neither.
    """
    from kubernetes.utils.quantity import parse_quantity

    try:
        if isinstance(weight, str) and _QUANTITY.fullmatch(weight):
            return Fraction(parse_quantity(weight))
        if isinstance(weight, int | float) and not isinstance(weight, bool):
            return Fraction(str(weight))
    except (ValueError, ArithmeticError):
        pass
    raise ValueError(f"the weight {weight!r} is no number and no quantity")


def shares_of(rules: Sequence[Sequence[tuple[str, object]]]) -> dict[str, Fraction]:
    """Backend to its share (0..1), which must be the same in every rule; the shares add up to 1.

    Args:
        rules: Backends and their weights, as they are written.

    Raises:
        ValueError: Saying why no share can be told.
    """
    if not all(rules) or not rules:
        raise ValueError("it has no backend")
    each = [_shares(rule) for rule in rules]
    names = dict.fromkeys(name for shares in each for name in shares)
    told = [{name: shares.get(name, Fraction(0)) for name in names} for shares in each]
    if any(shares != told[0] for shares in told):
        raise ValueError("its rules give the backends different shares")
    return told[0]


def _shares(rule: Sequence[tuple[str, object]]) -> dict[str, Fraction]:
    weights: dict[str, Fraction] = {}
    for name, weight in rule:
        if name in weights:
            raise ValueError(f"backend {name} is named twice")
        weights[name] = number(weight)
        if weights[name] < 0:
            raise ValueError(f"the weight of {name} is below 0")
    total = sum(weights.values(), Fraction(0))
    if not total:
        raise ValueError("its weights are all 0")
    return {name: weight / total for name, weight in weights.items()}


def thousandths(share: Fraction) -> int:
    """Rounded up, as a share is never told smaller than it is; but all is told only where nothing is left out."""
    return FULL if share == 1 else min(math.ceil(share * FULL), FULL - 1)


def weighted(
    items: Iterable[_Item], name: Callable[[_Item], str], shares: Mapping[str, Any]
) -> list[tuple[_Item, Any]]:
    """Each item with its backend's share: one that is named twice is left once, a backend without a share gets 0."""
    first: dict[str, _Item] = {}
    for item in items:
        first.setdefault(name(item), item)
    return [(item, shares.get(backend, 0)) for backend, item in first.items()]
