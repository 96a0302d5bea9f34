"""The command line: one file per verb, loaded when it is asked for."""

from __future__ import annotations

import importlib
import signal
import sys
import traceback
from typing import NoReturn

import click

from parallelchange import __version__
from parallelchange.errors import ParallelChangeError

__all__ = ["VERBS", "cli", "main"]

VERBS = {
    "plan": "The paired plan: phases beside stages, gates, SQL and locks.",
    "emit": "Alembic revisions, or manifests for a cluster, from a change.",
    "record": "Run an app's tests and keep every statement it sends.",
    "rehearse": "Run the whole change on a scratch PostgreSQL.",
    "expand": "Make the new shape beside the old one.",
    "backfill": "Fill the new shape; goes on where it stopped.",
    "verify": "Measure both versions on the live data; record evidence.",
    "evidence": "What is proven: list, check, export, import, reset, and keys to sign it with.",
    "gate": "May traffic advance?",
    "promote": "Gate, then set the weight, as one act.",
    "abort": "All traffic back to the old version.",
    "revert": "Undo expand, while the new version has no traffic.",
    "contract": "Leave only the new shape; there is no way back.",
    "rollout": "The whole loop, from where it stands.",
    "status": "Where everything stands.",
    "doctor": "What is missing here, and how to get it.",
    "demo": "A real rollout on this machine, under load.",
}
"""Verbs with their one-line help: `--help` must not import them all. A test holds these against the verbs."""


class _Verbs(click.Group):
    """Imports a verb only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        if name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"parallelchange.cli.{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="parallelchange")
def cli() -> None:
    """Expand, migrate, contract: moves traffic only when both versions are proven on the data as it stands.

    Exit codes: 0 pass or done, 1 blocked by a gate, 2 usage or an invalid file, 3 something needed is not there.
    """


def main() -> None:
    """Run the command line; the only place where errors become messages and exit codes."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = cli(standalone_mode=False)
    except ParallelChangeError as error:
        _fail(error.message, error.hint, error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped; run the same command again to go on", err=True)
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - a driver's error, or a fault of ours
        if not _from_database(error):
            _fail(f"this is a fault of parallelchange itself:\n{traceback.format_exc()}", "please report it", 3)
        told = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
        _fail(f"PostgreSQL: {told[0]}", "see the role's privileges and the server's log; then run it again", 3)
    sys.exit(code if isinstance(code, int) else 0)


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _fail(message: str, hint: str | None, code: int) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    if hint:
        click.echo(f" hint: {hint}", err=True)
    sys.exit(code)


def _from_database(error: Exception) -> bool:
    """Whether it is an error of the database's drivers, which are not imported here to be asked."""
    return any(kind.__module__.partition(".")[0] in ("psycopg", "sqlalchemy") for kind in type(error).__mro__)
