"""Values of PostgreSQL types as text, for hypothesis to choose among and to make smaller."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from hypothesis import strategies as st

from parallelchange.adapters.postgres.rows import Field

__all__ = ["values_of"]

Values = st.SearchStrategy[str | None]

_LETTERS = "ab A0,.;:-_%'\"\\{}$\n\téÉßñİ\u0131中\u0301\u200b\U0001f600\U0001d4b3"
"""What splits, quotes, folds, combines and takes several bytes; all of Unicode would take seconds to tabulate."""
_ODD = ("", " ", "  ", "a b", " a", "a ", "a  b", "a b c", "é", "e\u0301", "\U0001d4b3", "'", '"', "\\", "%", "\n", "0")
_LONG = 3000
_INTEGERS = {"int2": 15, "int4": 31, "int8": 63, "oid": 32}
_RANGES = {"int4range": "int4", "int8range": "int8", "numrange": "numeric"}


def values_of(field: Field, samples: Sequence[str | None]) -> Values | None:
    """Values for a column.

    Args:
        field: The column.
        samples: Values it has already; a type that is not known here is drawn from them alone.

    Returns:
        A strategy of texts, and of NULL where the column takes it; None where nothing can be drawn.
    """
    there: list[str | None] = [value for value in samples if value is not None or not field.required]
    known = _typed(field)
    parts: list[Values] = [] if known is None else [known]
    if not field.required:
        parts.append(st.none())
    if there:
        parts.append(st.sampled_from(there))
    return st.one_of(parts) if known is not None or any(value is not None for value in there) else None


def _typed(field: Field) -> Values | None:
    if field.kind == "e":
        return st.sampled_from(field.labels) if field.labels else None
    if field.kind == "a":
        inner = _base(field.element, -1, None)
        return None if inner is None else st.lists(st.none() | inner, max_size=3).map(_array)
    return _base(field.base, field.mod, field.length)


def _base(base: str, mod: int, length: int | None) -> Values | None:  # noqa: PLR0911 - one line a type
    if base in ("text", "varchar", "bpchar", "citext"):
        return _text(length)
    if base in _INTEGERS:
        bits = _INTEGERS[base]
        return st.integers(0 if base == "oid" else -(2**bits), 2**bits - 1).map(str)
    if base == "numeric":
        return _numeric(mod)
    if base in ("float4", "float8"):
        return st.floats(width=32 if base == "float4" else 64).map(lambda value: repr(value).replace("inf", "Infinity"))
    if base in ("json", "jsonb"):
        return _json()
    if base in _RANGES:
        ends = st.tuples(st.integers(-1000, 1000), st.integers(0, 50))
        return st.just("empty") | ends.map(lambda pair: f"[{pair[0]},{pair[0] + pair[1]})")
    return _SIMPLE.get(base)


def _text(length: int | None) -> Values:
    limit = min(length or 40, 40)
    odd = [text for text in (*_ODD, "x" * (length or _LONG)) if length is None or len(text) <= length]
    return st.text(_LETTERS, max_size=limit) | st.sampled_from(odd)


def _numeric(mod: int) -> Values:
    if mod < 0:
        plain = st.decimals(allow_nan=False, allow_infinity=False, min_value=Decimal(-(10**20)), max_value=10**20)
        return plain.map("{:f}".format) | st.sampled_from(("NaN", "1.10", "1.1", "0.000", "-0", "1e-9", "Infinity"))
    precision, scale = ((mod - 4) >> 16) & 0xFFFF, (mod - 4) & 0x7FF
    if scale > precision:
        return st.just("0")
    most = 10**precision - 1
    return st.integers(-most, most).map(lambda value: f"{Decimal(value).scaleb(-scale):f}") | st.just("NaN")


def _json() -> Values:
    leaf = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(_LETTERS, max_size=8)
    tree = st.recursive(
        leaf,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(_LETTERS, max_size=4), inner, max_size=3),
        max_leaves=5,
    )
    return tree.map(json.dumps)


def _array(items: Sequence[str | None]) -> str:
    """An array literal."""
    escaped = (None if i is None else i.replace("\\", "\\\\").replace('"', '\\"') for i in items)
    return "{" + ",".join("NULL" if item is None else f'"{item}"' for item in escaped) + "}"


def _moment(value: datetime) -> str:
    return value.isoformat(sep=" ")


_DAYS = st.sampled_from(("infinity", "-infinity", "4713-01-01 BC", "2024-02-29", "1999-12-31", "9999-12-31"))
_SIMPLE: dict[str, Values] = {
    "bool": st.sampled_from(("true", "false")),
    "date": st.dates().map(str) | _DAYS,
    "timestamp": st.datetimes().map(_moment) | _DAYS,
    "timestamptz": st.datetimes().map(lambda value: _moment(value) + "+00") | _DAYS,
    "time": st.times().map(str) | st.just("24:00:00"),
    "interval": st.sampled_from(
        ("0", "1 mon", "30 days", "24:00:00", "1 day", "-1 mon +3 days 04:05:06.789", "100 years")
    ),
    "uuid": st.uuids().map(str),
    "bytea": st.binary(max_size=20).map(lambda value: "\\x" + value.hex()),
    "inet": st.ip_addresses().map(str) | st.sampled_from(("10.0.0.0/8", "10.1.2.3/8", "::1/64")),
    "cidr": st.ip_addresses().map(str) | st.just("10.0.0.0/8"),
    "macaddr": st.binary(min_size=6, max_size=6).map(lambda value: value.hex(":")),
    "bit": st.sampled_from(("0", "1")),
    "varbit": st.text("01", max_size=8),
}
