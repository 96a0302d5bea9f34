"""From a change file to its plan: on the tables as they are, or as its lock file remembers them.

Once a change is expanded its base tables are no longer to be seen, so they are kept beside the
change file (`<change file>.lock.json`) and go into the repository with it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from parallelchange.adapters.postgres.catalog import read_catalog
from parallelchange.adapters.postgres.connection import connect
from parallelchange.adapters.postgres.expressions import check_expressions
from parallelchange.change import Change
from parallelchange.changefile import load_change
from parallelchange.errors import InvalidFile, UsageError
from parallelchange.model import Catalog, Column, Table, TableName, to_json
from parallelchange.plan import Plan, make_plan

__all__ = ["check_plan", "load_plan", "lock_path", "plan_on", "read_lock", "write_lock"]

_FORMAT = 1


def lock_path(change: Path) -> Path:
    """Where the base tables of a change are kept."""
    return change.with_suffix(".lock.json")


def plan_on(change: Change, url: str) -> Plan:
    """Plan a change on a database as it stands.

    Raises:
        InvalidFile: The change does not fit it.
        Unavailable: It does not answer.
    """
    types = {type_ for operation in change.database for type_ in operation.types}
    with connect(url) as connection:
        base = read_catalog(connection, {operation.table_name for operation in change.database}, types)
        plan = make_plan(change, base)
        check_expressions(connection, change, base)
    return plan


def load_plan(path: Path, url: str | None = None) -> Plan:
    """Read a change file and plan it, on its lock file if there is one.

    Args:
        path: The change file.
        url: The database to read the tables from where there is no lock file.

    Raises:
        InvalidFile: The change file or its lock file cannot be used.
        UsageError: There is neither a lock file nor a database.
        Unavailable: The database does not answer.
    """
    change = load_change(path)
    lock = lock_path(path)
    if lock.is_file():
        return make_plan(change, read_lock(lock))
    if url is None:
        raise UsageError(
            f"{change.name} has no lock file, and no database is named to read its tables from",
            hint="set PARALLELCHANGE_DATABASE_URL, or pass --database-url",
        )
    return plan_on(change, url)


def check_plan(plan: Plan, url: str) -> None:
    """Ask a server whether the expressions of a plan make sense; its tables need not be there.

    Raises:
        InvalidFile: It refuses one.
        Unavailable: It does not answer.
    """
    with connect(url) as connection:
        check_expressions(connection, plan.change, plan.base)


def write_lock(plan: Plan) -> Path:
    """Keep the tables a plan was made on beside its change file."""
    path = lock_path(plan.change.path)
    tables = []
    for table in plan.base.tables.values():
        kept = to_json(table)
        # What changes with every ANALYZE has no place in a file under version control.
        tables.append({key: kept[key] for key in ("name", "columns", "primary_key", "dependents", "kind")})
    document = {"format": _FORMAT, "change": plan.change.name, "types": dict(plan.base.types), "tables": tables}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read_lock(path: Path) -> Catalog:
    """Read what `write_lock` wrote.

    Raises:
        InvalidFile: It is not that.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["format"] != _FORMAT:
            raise InvalidFile(f"is of format {raw['format']}, not {_FORMAT}", path=path, hint="emit the change again")
        tables = [_table(item) for item in raw["tables"]]
        return Catalog({table.name: table for table in tables}, "", 0, dict(raw["types"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidFile(f"cannot be read: {error}", path=path, hint="emit the change again") from None


def _table(raw: dict[str, Any]) -> Table:
    for column in raw["columns"]:
        if not all(isinstance(column[key], str) for key in ("name", "type")):
            raise TypeError(f"column {column['name']!r} has no type")
    return Table(
        TableName(str(raw["name"]["schema"]), str(raw["name"]["name"])),
        tuple(Column(**column) for column in raw["columns"]),
        tuple(map(str, raw["primary_key"])),
        {name: tuple(map(str, lost)) for name, lost in raw["dependents"].items()},
        kind=str(raw["kind"]),
    )
