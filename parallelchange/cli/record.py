"""`parallelchange record`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from parallelchange.cli import options

if TYPE_CHECKING:
    from parallelchange.local.record import Job
    from parallelchange.recording import Recording

__all__ = ["command"]

_FILE = click.Path(dir_okay=False, path_type=Path)
_EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)


class _Pattern(click.ParamType["re.Pattern[str]"]):
    name = "regex"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> re.Pattern[str]:
        try:
            return re.compile(value)
        except re.error as error:
            self.fail(f"{value!r} is no regular expression: {error}", param, ctx)


@click.command(
    "record",
    short_help="Run an app's tests and keep every statement it sends.",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("version")
@click.argument("argv", nargs=-1, metavar="[-- CMD]", type=click.UNPROCESSED)
@click.option("--change", help="The change the version belongs to; without it any app can be recorded.")
@click.option("--schema", metavar="FILE", type=_EXISTING, help="Without --change: SQL the database begins with.")
@click.option("--setup", metavar="CMD", help="Run first, on the schema before the change, to fill the tables.")
@click.option("--output", metavar="FILE", type=_FILE, help="Default: as the change file says.")
@click.option(
    "--from-log", metavar="FILE", type=_EXISTING, multiple=True, help="Read a server's jsonlog or csvlog instead."
)
@click.option("--from-pg-stat-statements", metavar="URL", help="Ask a server instead; it tells no values.")
@click.option("--redact", metavar="REGEX", type=_Pattern(), multiple=True, help="What else is a secret.")
@options.database_url
@options.as_json
def command(
    version: str,
    argv: tuple[str, ...],
    change: str | None,
    schema: Path | None,
    setup: str | None,
    output: Path | None,
    from_log: tuple[Path, ...],
    from_pg_stat_statements: str | None,
    redact: tuple[re.Pattern[str], ...],
    database_url: str | None,
    as_json: bool,
) -> None:
    """Run CMD, the app's tests, on a scratch PostgreSQL and keep every statement VERSION sends.

    DATABASE_URL and the PG* variables name the scratch database, by TCP. The old version of a change is
    recorded on the schema before it, the new one on the expanded schema.
    """
    import shlex

    from parallelchange.cli.show import print_json
    from parallelchange.corpus import write_corpus
    from parallelchange.errors import UsageError
    from parallelchange.local.record import record, record_log, record_statistics

    given = [bool(argv), bool(from_log), from_pg_stat_statements is not None]
    if sum(given) != 1:
        raise UsageError("nothing to record" if not any(given) else "too much to record at once",
                         hint="give a command after --, or --from-log, or --from-pg-stat-statements")  # fmt: skip
    if setup and not argv:
        raise UsageError("--setup is for a command that is recorded")
    job, target = _job(version, change, schema, output, database_url, argv, shlex.split(setup or ""), redact)
    if argv:
        recording = record(job)
    elif from_log:
        described = _described(change, schema, database_url)
        recording = record_log(job, from_log, described)
    else:
        recording = record_statistics(job, from_pg_stat_statements or "")
    write_corpus(target, recording.corpus)
    if as_json:
        print_json(_document(recording, target))
    else:
        click.echo(_told(recording, target))


def _job(
    version: str,
    change: str | None,
    schema: Path | None,
    output: Path | None,
    database_url: str | None,
    argv: tuple[str, ...],
    setup: list[str],
    redact: tuple[re.Pattern[str], ...],
) -> tuple[Job, Path]:
    """What to record, and where it goes."""
    import sys

    from parallelchange.adapters.planning import load_plan
    from parallelchange.cli.show import note
    from parallelchange.cli.world import settings_for
    from parallelchange.errors import UsageError
    from parallelchange.local.record import Job
    from parallelchange.local.schemas import AtVersion, FromFile, Schema
    from parallelchange.recording import Redaction

    layout: Schema = FromFile(schema)
    name, target = None, output
    if change is not None:
        if schema is not None:
            raise UsageError(
                "--schema is for a version of no change", hint="with --change the revisions make the schema"
            )
        path, settings = settings_for(change, database_url)
        plan = load_plan(path, settings.database_url)
        found = next((v for v in plan.change.versions if v.name == version), None)
        if found is None:
            names = " and ".join(v.name for v in plan.change.versions)
            raise UsageError(f"{plan.change.name} has no version {version}", hint=f"it leads between {names}")
        layout, name, target = (
            AtVersion(plan, found, settings.alembic),
            found.application_name,
            output or found.statements,
        )
    if target is None:
        raise UsageError(f"{version} names no file for its statements", hint="pass --output, or set `statements`")

    def echo(output: bytes) -> None:
        sys.stderr.buffer.write(output)
        sys.stderr.buffer.flush()

    job = Job(
        version,
        layout,
        argv,
        setup,
        Path.cwd(),
        application_name=name,
        redaction=Redaction(redact),
        say=note,
        echo=echo,
    )
    return job, target


def _described(change: str | None, schema: Path | None, database_url: str | None) -> str | None:
    """The database the statements of a log are described on; None for a scratch one with the schema at hand."""
    from parallelchange.cli.settings import load_settings

    if change is not None or schema is not None:
        return None
    return load_settings(Path.cwd(), database_url=database_url).url()


def _document(recording: Recording, target: Path) -> Mapping[str, Any]:
    corpus = recording.corpus
    kinds = Counter(_KINDS[statement.kind] for statement in corpus.statements)
    return {
        "version": corpus.version,
        "file": str(target),
        "statements": len(corpus.statements),
        **{plural: kinds[plural] for plural in _KINDS.values()},
        "units": len(corpus.units),
        "sessions": len({unit.session for unit in corpus.units}),
        "unasked": sum(bool(statement.unasked) for statement in corpus.statements),
        "redacted": recording.redacted,
        "left_out": recording.left_out,
    }


def _told(recording: Recording, target: Path) -> str:
    told = _document(recording, target)
    kinds = ", ".join(f"{told[plural]} {plural}" for plural in _KINDS.values())
    units = f"{told['units']} units of work of {told['sessions']} sessions"
    lines = [f"wrote {target}: {told['statements']} statements ({kinds}), {units}"]
    if told["unasked"]:
        lines.append(f"  {told['unasked']} of them cannot be prepared by themselves; the file says why")
    lines += [f"  redacted: {count} {rule}" for rule, count in recording.redacted.items()]
    lines += [f"  left out: {count} {reason}" for reason, count in recording.left_out.items()]
    return "\n".join(lines)


_KINDS = {"read": "reads", "write": "writes", "utility": "utility"}
