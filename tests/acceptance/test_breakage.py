"""A wrong pass is the one unforgivable bug: what we say of a schema change is held against what it really breaks.

Every kind of DDL meets every kind of statement on a real PostgreSQL. The truth of a cell is what a live session of the
old version sees that stays open while somebody changes the schema, and what a new session sees after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import psycopg
import pytest
from helpers.breakage import Truth, apply, clone, make_shop, truths
from helpers.breakage_ddl import DDL, NOTHING, OF_ROWS
from helpers.breakage_uses import USES
from helpers.breakage_verdict import (
    LAYERS,
    LOG,
    Recording,
    Run,
    ask,
    copied,
    joined,
    measure,
    measure_change,
    record,
    verdicts,
)

from parallelchange.adapters.postgres.connection import connect
from parallelchange.adapters.postgres.fingerprint import fingerprint
from parallelchange.local.postgres import EmbeddedPostgres, scratch_postgres
from parallelchange.model import GateResult, Verdict

pytestmark = [pytest.mark.xdist_group("breakage"), pytest.mark.timeout(600)]

SHOP, COPY = "shop", "rehearsal"
AT_ONCE = 2
MOST_FALSE_BLOCKS = 0.02


@dataclass(frozen=True)
class Cell:
    """One kind of statement under one kind of DDL: the truth, and what each layer says of it."""

    ddl: str
    use: str
    truth: Truth
    results: dict[str, GateResult]

    @property
    def broken(self) -> bool:
        return bool(self.truth.broken)

    def blocked(self, layer: str = "") -> bool:
        """Whether one layer blocks it, or all of them joined."""
        said = self.results[layer].verdict if layer else joined(self.results)
        return said is not Verdict.PASS

    def __str__(self) -> str:
        said = [f"{layer}: {r.verdict}" for layer, r in self.results.items() if self.blocked(layer)] or ["all pass"]
        why = [finding.message for result in self.results.values() for finding in result.findings][:1]
        return f"{self.ddl} x {self.use}: {self.truth.broken or 'fine'} | {', '.join([*said, *why])}"


@dataclass(frozen=True)
class Column:
    """One kind of DDL: all its cells, and whether the fingerprint tells it."""

    cells: tuple[Cell, ...]
    told: bool


@dataclass(frozen=True)
class Table:
    """All of it."""

    columns: dict[str, Column]

    @property
    def cells(self) -> list[Cell]:
        return list(chain.from_iterable(column.cells for column in self.columns.values()))

    def cell(self, ddl: str, use: str) -> Cell:
        return next(cell for cell in self.columns[ddl].cells if cell.use == use)

    def count(self, matches: Callable[[Cell], bool]) -> int:
        return sum(map(matches, self.cells))

    def __str__(self) -> str:
        """The confusion table of each layer and of all of them."""
        head = f"{len(self.columns)} kinds of DDL x {len(USES)} kinds of statement"
        lines = [head, f"{'':10}{'broken':>18}{'':10}{'fine':>14}", f"{'':10}" + 2 * f"{'blocked':>14}{'passed':>10}"]
        for layer in (*LAYERS, ""):
            counts = [
                self.count(lambda cell, b=broken, s=blocked, at=layer: (cell.broken, cell.blocked(at)) == (b, s))
                for broken in (True, False)
                for blocked in (True, False)
            ]
            lines.append(
                f"{layer or 'joined':10}" + "".join(f"{n:{14 if i % 2 == 0 else 10},}" for i, n in enumerate(counts))
            )
        return "\n".join(lines)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    with scratch_postgres(LOG) as server:
        make_shop(server, SHOP)
        recording = record(server, SHOP)
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET log_statement = 'none'")
            connection.execute("SELECT pg_reload_conf()")
        copied(server, SHOP, COPY)
        with clone(server, COPY, "before") as before, ThreadPoolExecutor(AT_ONCE) as workers:
            known = measure(server.url(before), recording.corpus)
            told = _fingerprint(server, SHOP)
            columns = workers.map(lambda ddl: _column(server, recording, known, told, ddl), DDL)
            found = Table(dict(zip(DDL, columns, strict=True)))
    shown = "\n".join(
        [str(found), "", *map(str, sorted(filter(_wrong, found.cells), key=lambda cell: not cell.broken))]
    )
    (tmp_path_factory.mktemp("breakage") / "table.txt").write_text(shown, encoding="utf-8")
    print(f"\n{shown}")  # noqa: T201 - the table is shown by `pytest -s`, and by a run that fails
    return found


def _column(server: EmbeddedPostgres, recording: Recording, before: Run, told: str, ddl: str) -> Column:
    number = list(DDL).index(ddl)
    with clone(server, SHOP, f"truth_{number}") as database:
        found = truths(server, database, ddl)
        live = ask(server.url(database), recording.corpus)
        changed = _fingerprint(server, database) != told
    with clone(server, COPY, f"copy_{number}") as copy:
        url = server.url(copy)
        after = measure_change(url, recording.corpus, before, lambda: apply(url, ddl))
    cells = (Cell(ddl, use, truth, verdicts(recording.ids[use], before, after, live)) for use, truth in found.items())
    return Column(tuple(cells), changed)


def _fingerprint(server: EmbeddedPostgres, database: str) -> str:
    with connect(server.url(database)) as connection:
        return fingerprint(connection)


def _wrong(cell: Cell) -> bool:
    return cell.broken != cell.blocked()


def _listed(cells: Sequence[Cell], table: Table) -> str:
    return "\n".join([f"{len(cells)}:", *map(str, cells), str(table)])


def test_nothing_broken_passes(table: Table) -> None:
    wrong = [cell for cell in table.cells if cell.broken and not cell.blocked()]
    assert not wrong, _listed(wrong, table)


def test_hardly_anything_fine_is_blocked(table: Table) -> None:
    wrong = [cell for cell in table.cells if not cell.broken and cell.blocked()]
    assert len(wrong) <= MOST_FALSE_BLOCKS * table.count(lambda cell: not cell.broken), _listed(wrong, table)


def test_the_table_is_worth_something(table: Table) -> None:
    assert len(DDL) >= 25
    assert len(USES) >= 15
    assert table.count(lambda cell: cell.broken) >= 150, str(table)
    assert table.count(lambda cell: not cell.broken) >= 1500, str(table)
    # Each kind of statement is broken by something, but for the one that uses nothing.
    never = {use.name for use in USES} - {cell.use for cell in table.cells if cell.broken}
    assert never == {"select one", "advisory lock"}


def test_nothing_done_breaks_and_blocks_nothing(table: Table) -> None:
    column = table.columns[NOTHING]
    assert not [cell for cell in column.cells if cell.broken or cell.blocked()], _listed(column.cells, table)
    assert not column.told


def test_whatever_breaks_something_changes_the_fingerprint(table: Table) -> None:
    breaking = [ddl for ddl, column in table.columns.items() if any(cell.broken for cell in column.cells)]
    assert {ddl for ddl in breaking if not table.columns[ddl].told} == OF_ROWS


def test_an_added_column_breaks_a_live_select_star(table: Table) -> None:
    cell = table.cell("add nullable column", "select * auto-prepared")
    assert cell.truth.live.error == "0A000 cached plan must not change result type"
    assert not cell.truth.new.error
    assert cell.results["shape"].verdict is Verdict.FAIL
    assert not cell.blocked("prepare")
    assert not cell.blocked("plan")
    # Running it shows other columns, too, but no error: nothing but a live session raises one.
    assert [finding.id for finding in cell.results["execute"].findings] == ["execute.changed"]
    assert "nickname" in cell.results["shape"].findings[0].message
