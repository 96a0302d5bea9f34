"""Version 2: a customer has a `first_name` and perhaps a `last_name`. The interface still has one name."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, MetaData, Table, Text

from shop.common import Front, Settings, Shape, make_app

VERSION = "shop-v2"

customers = Table(
    "customers",
    MetaData(),
    Column("id", BigInteger, primary_key=True),
    Column("first_name", Text),
    Column("last_name", Text),
    Column("email", Text),
)


def split(name: str) -> tuple[str, str | None]:
    """The text before the first space, and the text after it: None when there is no space."""
    first, space, last = name.partition(" ")
    return first, last if space else None


def join(first: str | None, last: str | None) -> str | None:
    """The way back: `join(*split(name)) == name` for every name."""
    return first if first is None or last is None else f"{first} {last}"


def build(settings: Settings) -> Front:
    """The app, as the settings want it."""
    return make_app(VERSION, shape, settings)


shape = Shape(
    customers,
    ("first_name", "last_name"),
    write=lambda name: dict(zip(("first_name", "last_name"), split(name), strict=True)),
    read=lambda row: join(row.first_name, row.last_name),
)
app = build(Settings.from_env())
