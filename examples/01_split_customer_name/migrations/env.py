"""Runs the shop's migrations, each in a transaction of its own."""

import os

from alembic import context
from sqlalchemy import Connection, create_engine, pool


def url() -> str:
    """The database's address, for SQLAlchemy with psycopg 3."""
    given = os.environ.get("DATABASE_URL") or context.config.get_main_option("sqlalchemy.url")
    if not given:
        raise SystemExit("No database given: set DATABASE_URL, or sqlalchemy.url in alembic.ini.")
    scheme, _, rest = given.partition("://")
    return f"postgresql+psycopg://{rest}" if scheme in {"postgres", "postgresql"} else given


def run(connection: Connection) -> None:
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    context.configure(url=url(), literal_binds=True, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
elif (given := context.config.attributes.get("connection")) is not None:
    run(given)
else:
    engine = create_engine(url(), poolclass=pool.NullPool)
    with engine.connect() as connection:
        run(connection)
