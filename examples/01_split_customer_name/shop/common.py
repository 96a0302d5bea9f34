"""What both versions of the shop have in common: everything but the shape a customer's name is stored in."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shop.names import TRICKY

Body = Mapping[str, Any]
Work = Callable[[Connection, Request, Body], tuple[int, Any]]

orders = Table(
    "orders",
    MetaData(),
    Column("id", BigInteger, primary_key=True),
    Column("customer_id", BigInteger),
    Column("item", Text),
    Column("quantity", Integer),
)


class RefusedError(Exception):
    """The request cannot be served as it is."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Settings:
    """What the environment says. The faults are there so that the demo can show a release that fails."""

    url: str = "postgresql:///shop"
    delay_ms: float = 0.0
    fail_rate: float = 0.0
    export: bool = False

    @classmethod
    def from_env(cls) -> Settings:
        return cls(
            url=os.environ.get("DATABASE_URL", cls.url),
            delay_ms=float(os.environ.get("SHOP_DELAY_MS") or 0),
            fail_rate=float(os.environ.get("SHOP_FAIL_RATE") or 0),
            export=os.environ.get("SHOP_EXPORT") == "1",
        )


@dataclass(frozen=True)
class Shape:
    """How one version stores a customer: its table, the columns of the name, and the way there and back."""

    table: Table
    columns: Sequence[str]
    write: Callable[[str], Mapping[str, str | None]]
    read: Callable[[Any], str | None]

    @property
    def shown(self) -> list[Column[Any]]:
        return [self.table.c[name] for name in ("id", *self.columns, "email")]

    def customer(self, row: Any) -> dict[str, Any]:
        return {"id": row.id, "name": self.read(row), "email": row.email}


class Customers:
    """The statements a version sends for customers, in its own shape."""

    def __init__(self, shape: Shape) -> None:
        self.shape, self.table = shape, shape.table

    def get(self, connection: Connection, number: int) -> dict[str, Any]:
        return self._one(connection, select(*self.shape.shown).where(self.table.c.id == number), number)

    def page(self, connection: Connection, after: int, limit: int) -> list[dict[str, Any]]:
        query = select(*self.shape.shown).where(self.table.c.id > after).order_by(self.table.c.id)
        return [self.shape.customer(row) for row in connection.execute(query.limit(limit))]

    def create(self, connection: Connection, name: str, email: str) -> dict[str, Any]:
        made = insert(self.table).values(**self.shape.write(name), email=email).returning(*self.shape.shown)
        return self._one(connection, made, 0)

    def rename(self, connection: Connection, number: int, name: str) -> dict[str, Any]:
        return self._update(connection, number, self.shape.write(name))

    def set_email(self, connection: Connection, number: int, email: str) -> dict[str, Any]:
        return self._update(connection, number, {"email": email})

    def _update(self, connection: Connection, number: int, values: Mapping[str, Any]) -> dict[str, Any]:
        statement = update(self.table).where(self.table.c.id == number).values(**values)
        return self._one(connection, statement.returning(*self.shape.shown), number)

    def _one(self, connection: Connection, statement: Any, number: int) -> dict[str, Any]:
        row = connection.execute(statement).one_or_none()
        if row is None:
            raise RefusedError(404, f"there is no customer {number}")
        return self.shape.customer(row)


def add_order(connection: Connection, customer: int, item: str, quantity: int) -> dict[str, Any]:
    values = {"customer_id": customer, "item": item, "quantity": quantity}
    try:
        number = connection.execute(insert(orders).values(**values).returning(orders.c.id)).scalar_one()
    except IntegrityError as error:
        raise RefusedError(404, f"there is no customer {customer}") from error
    return {"id": number, **values}


def orders_of(connection: Connection, customer: int) -> list[dict[str, Any]]:
    query = select(orders.c.id, orders.c.item, orders.c.quantity).where(orders.c.customer_id == customer)
    return [dict(row) for row in connection.execute(query.order_by(orders.c.id).limit(100)).mappings()]


def text_of(body: Body, key: str) -> str:
    """A string PostgreSQL can store: no NUL, no half of a surrogate pair."""
    value = body.get(key)
    if not isinstance(value, str) or "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise RefusedError(400, f"{key} must be a string without NUL")
    return value


def number_of(values: Mapping[str, Any], key: str, default: int | None = None) -> int:
    try:
        return int(values.get(key, default))
    except (TypeError, ValueError):
        raise RefusedError(400, f"{key} must be a whole number") from None


def probe(customers: Customers, connection: Connection) -> int:
    """Write, read and rename in this version's shape; the caller rolls back. Answers how many it checked."""
    for number, name in enumerate(TRICKY):
        other, email = TRICKY[number - 1], f"probe-{number}@example.test"
        made = customers.create(connection, name, email)["id"]
        expect(customers.get(connection, made), {"id": made, "name": name, "email": email})
        customers.rename(connection, made, other)
        customers.set_email(connection, made, "moved@example.test")
        expect(customers.get(connection, made), {"id": made, "name": other, "email": "moved@example.test"})
    order = add_order(connection, made, "probe", 1)
    expect(orders_of(connection, made), [{"id": order["id"], "item": "probe", "quantity": 1}])
    return len(TRICKY)


def expect(found: Any, wanted: Any) -> None:
    if found != wanted:
        raise RefusedError(503, f"read {str(found)[:120]} where {str(wanted)[:120]} was written")


def routes_of(customers: Customers) -> list[tuple[str, str, Work]]:
    """The interface: the same in every version."""

    def create(connection: Connection, _: Request, body: Body) -> tuple[int, Any]:
        return 201, customers.create(connection, text_of(body, "name"), text_of(body, "email"))

    def page(connection: Connection, request: Request, _: Body) -> tuple[int, Any]:
        limit = max(1, min(number_of(request.query_params, "limit", 20), 100))
        after = number_of(request.query_params, "after", 0)
        return 200, {"customers": customers.page(connection, after, limit)}

    def get(connection: Connection, request: Request, _: Body) -> tuple[int, Any]:
        return 200, customers.get(connection, request.path_params["id"])

    def rename(connection: Connection, request: Request, body: Body) -> tuple[int, Any]:
        return 200, customers.rename(connection, request.path_params["id"], text_of(body, "name"))

    def set_email(connection: Connection, request: Request, body: Body) -> tuple[int, Any]:
        return 200, customers.set_email(connection, request.path_params["id"], text_of(body, "email"))

    def order(connection: Connection, request: Request, body: Body) -> tuple[int, Any]:
        ordered = text_of(body, "item"), number_of(body, "quantity", 1)
        return 201, add_order(connection, request.path_params["id"], *ordered)

    def list_orders(connection: Connection, request: Request, _: Body) -> tuple[int, Any]:
        return 200, {"orders": orders_of(connection, request.path_params["id"])}

    return [
        ("GET", "/customers", page),
        ("POST", "/customers", create),
        ("GET", "/customers/{id:int}", get),
        ("PUT", "/customers/{id:int}", rename),
        ("PATCH", "/customers/{id:int}/email", set_email),
        ("GET", "/customers/{id:int}/orders", list_orders),
        ("POST", "/customers/{id:int}/orders", order),
    ]


def answer(engine: Engine, work: Work) -> Callable[[Request], Any]:
    """Serve one request in one transaction; what the database refuses becomes a 500 that says why."""

    def run(request: Request, body: Body) -> tuple[int, Any]:
        with engine.begin() as connection:
            return work(connection, request, body)

    async def handle(request: Request) -> JSONResponse:
        try:
            body = await request.json() if await request.body() else {}
            status, content = await run_in_threadpool(run, request, body if isinstance(body, dict) else {})
        except RefusedError as error:
            status, content = error.status, {"error": str(error)}
        except ValueError:
            status, content = 400, {"error": "the body is not JSON"}
        except SQLAlchemyError as error:
            status, content = 500, {"error": str(getattr(error, "orig", None) or error)}
        return JSONResponse(content, status)

    return handle


class Front:
    """Stamps every answer with the version that gave it, and plays the faults that the settings ask for."""

    def __init__(self, app: ASGIApp, version: str, settings: Settings, engine: Engine) -> None:
        self.app, self.settings, self.engine = app, settings, engine
        self.stamp = (b"x-shop-version", version.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), self.stamp]
            await send(message)

        app = self.app
        if scope["type"] == "http" and not scope["path"].startswith("/healthz"):
            if self.settings.delay_ms:
                await asyncio.sleep(self.settings.delay_ms / 1000)
            if random.random() < self.settings.fail_rate:  # noqa: S311 - a fault, not a secret
                app = JSONResponse({"error": "SHOP_FAIL_RATE asked for this failure"}, 500)
        await app(scope, receive, stamped)


def make_app(version: str, shape: Shape, settings: Settings, extra: Sequence[tuple[str, str, Work]] = ()) -> Front:
    """One version of the shop as an ASGI app."""
    scheme, _, rest = settings.url.partition("://")
    engine = create_engine(
        f"postgresql+psycopg://{rest}" if scheme in {"postgres", "postgresql"} else settings.url,
        pool_size=5,
        max_overflow=5,
        pool_timeout=4,
        connect_args={"application_name": version},
    )
    customers = Customers(shape)

    def contract() -> tuple[int, Any]:
        try:
            with engine.connect() as connection, connection.begin() as transaction:
                checked = probe(customers, connection)
                transaction.rollback()
        except (RefusedError, SQLAlchemyError) as error:
            return 503, {"ok": False, "error": str(getattr(error, "orig", None) or error)}
        return 200, {"ok": True, "checked": checked}

    async def healthz(_: Request) -> JSONResponse:
        return JSONResponse({"ok": True, "version": version})

    async def healthz_contract(_: Request) -> JSONResponse:
        status, content = await run_in_threadpool(contract)
        return JSONResponse(content, status)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        engine.dispose()

    routes = [Route("/healthz", healthz), Route("/healthz/contract", healthz_contract)]
    for method, path, work in [*routes_of(customers), *extra]:
        routes.append(Route(path, answer(engine, work), methods=[method]))
    return Front(Starlette(routes=routes, lifespan=lifespan), version, settings, engine)
