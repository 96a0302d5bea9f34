"""Version 1: a customer has one `name`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Connection, MetaData, Table, Text, text
from starlette.requests import Request

from shop.common import Body, Front, Settings, Shape, make_app

VERSION = "shop-v1"

customers = Table(
    "customers",
    MetaData(),
    Column("id", BigInteger, primary_key=True),
    Column("name", Text),
    Column("email", Text),
)
shape = Shape(customers, ("name",), write=lambda name: {"name": name}, read=lambda row: row.name)

EXPORT = text("INSERT INTO customers_export SELECT * FROM customers WHERE id <= 10")
"""The statement that a column added to customers breaks. It is served only where the demo asks for it."""


def export(connection: Connection, _: Request, __: Body) -> tuple[int, Any]:
    return 200, {"exported": connection.execute(EXPORT).rowcount}


def build(settings: Settings) -> Front:
    """The app, as the settings want it."""
    extra = [("POST", "/export", export)] if settings.export else []
    return make_app(VERSION, shape, settings, extra)


app = build(Settings.from_env())
