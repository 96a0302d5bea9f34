"""`parallelchange rehearse`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from parallelchange.cli import options
from parallelchange.cli.evidence import sign_option

if TYPE_CHECKING:
    from parallelchange.model import Evidence
    from parallelchange.plan import Plan
    from parallelchange.rollout.world import Event

__all__ = ["command"]


@click.command("rehearse", short_help="Run the whole change on a scratch PostgreSQL.")
@options.change
@options.database_url
@click.option(
    "--on",
    metavar="DSN",
    help="A database on the server to make the copy on, beside it. The embedded server otherwise.",
)
@click.option("--record/--no-record", default=True, help="Keep the evidence in the ledger of the database.")
@click.option(
    "--evidence",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Also write the evidence to a file, for `evidence import` elsewhere.",
)
@sign_option
@click.option(
    "--build",
    "builds",
    multiple=True,
    metavar="VERSION=DIGEST",
    help="With --no-record: what will run as a version, where nothing runs yet.",
)
@options.as_json
def command(
    change: str,
    database_url: str | None,
    on: str | None,
    record: bool,
    file: Path | None,
    sign: Path | None,
    builds: tuple[str, ...],
    as_json: bool,
) -> int:
    """Copy the schema and some rows, then expand, backfill, verify both versions, contract, verify the new one.

    With --no-record the database is only read, and nothing else is asked where --build tells what runs.
    """
    from parallelchange.cli.evidence import write_evidence
    from parallelchange.cli.show import show_evidence
    from parallelchange.cli.world import open_world
    from parallelchange.errors import UsageError
    from parallelchange.rollout.matrix import matrix_of
    from parallelchange.rollout.measure import rehearse

    if sign and file is None:
        raise UsageError("--sign signs the file of --evidence, and none is named", hint="add --evidence FILE")
    if builds and record:
        raise UsageError("--build goes with --no-record: a ledger's own rehearsal asks what runs", hint="leave it out")
    if sign:
        from parallelchange.adapters.signing import read_private

        read_private(sign)  # a slip here must not cost a rehearsal
    if record:
        with open_world(change, database_url, tell=_tell, on=on) as world:
            plan, evidence, now = world.plan, rehearse(world), world.database.now()
    else:
        plan, evidence, now = _apart(change, database_url, builds, on)
    if file:
        write_evidence(plan, evidence, now, file, sign)
    return show_evidence(plan.change.name, "rehearsal", evidence, matrix_of(plan, evidence), as_json=as_json)


def _tell(event: Event) -> None:
    from parallelchange.cli.show import note

    if event.kind == "rehearsal":
        note(event.what)


def _apart(
    change: str, database_url: str | None, builds: tuple[str, ...], on: str | None
) -> tuple[Plan, list[Evidence], float]:
    """Rehearse and keep nothing; gives the plan, the evidence as of when it was begun, and the time of its end."""
    from contextlib import closing
    from dataclasses import replace

    from parallelchange.adapters.planning import load_plan
    from parallelchange.adapters.postgres.ledger import PostgresLedger
    from parallelchange.cli.surroundings import surroundings
    from parallelchange.cli.world import rehearsal_of, settings_for

    path, settings = settings_for(change, database_url, on=on)
    plan = load_plan(path, settings.url())
    given = _given(builds, [version.name for version in plan.change.versions])
    known = {version.name: given.get(version.name, version.build) for version in plan.change.versions}
    if None in known.values():
        with surroundings(plan.change, settings, _tell) as around:
            known = {name: build or around.workloads.build(name) for name, build in known.items()}
    with closing(PostgresLedger(settings.url(), plan.change.name)) as clock:
        at = clock.now()
        found = rehearsal_of(path, settings, known, _tell)
        return plan, [replace(item, measured_at=at) for item in found], clock.now()


def _given(builds: tuple[str, ...], versions: list[str]) -> dict[str, str]:
    from parallelchange.errors import UsageError

    given: dict[str, str] = {}
    for text in builds:
        name, equals, digest = text.partition("=")
        if not equals or not digest or name not in versions or name in given:
            raise UsageError(
                f"--build {text}: write VERSION=DIGEST, once for a version", hint=f"it is {' or '.join(versions)}"
            )
        given[name] = digest
    return given
