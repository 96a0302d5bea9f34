"""Alembic environment of the toolkit's own ledger; always run on a connection it is given."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table="alembic_version",
    version_table_schema="parallelchange",
)
with context.begin_transaction():
    context.run_migrations()
