"""`parallelchange evidence`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from parallelchange.cli import options

if TYPE_CHECKING:
    from parallelchange.adapters.postgres.ledger import PostgresLedger
    from parallelchange.cli.settings import Settings
    from parallelchange.evidence import EvidenceFile
    from parallelchange.model import Evidence
    from parallelchange.plan import Plan

__all__ = ["command", "sign_option", "write_evidence"]

F = TypeVar("F", bound=Callable[..., Any])
_FILE = click.Path(dir_okay=False, path_type=Path)
_LARGEST = 64 * 2**20


def sign_option(function: F) -> F:
    """Vouch for what is written."""
    return click.option("--sign", type=_FILE, metavar="KEYFILE", help="Private key to sign it with.")(function)


@click.group("evidence", short_help="What is proven: list, check, export, import, reset, and keys to sign it with.")
def command() -> None:
    """Look at what is proven, carry a rehearsal's evidence from one ledger to another, or start anew."""


@contextmanager
def _ledger(change: str, database_url: str | None, *, write: bool = False) -> Iterator[tuple[Plan, PostgresLedger]]:
    """The plan and its ledger."""
    from parallelchange.adapters.planning import load_plan
    from parallelchange.adapters.postgres.ledger import PostgresLedger
    from parallelchange.cli.world import settings_for

    path, settings = settings_for(change, database_url)
    plan = load_plan(path, settings.url())
    with closing(PostgresLedger(settings.url(), plan.change.name)) as ledger:
        if write:
            ledger.open()
        yield plan, ledger


@command.command("list")
@options.change
@options.database_url
@options.as_json
def list_(change: str, database_url: str | None, as_json: bool) -> None:
    """Show the newest evidence of everything, whether it counts now, and why not."""
    from rich.table import Table
    from rich.text import Text

    from parallelchange.cli.show import console, print_json
    from parallelchange.cli.world import open_world
    from parallelchange.errors import Tampered
    from parallelchange.model import Place, to_json
    from parallelchange.rollout.judge import why_stale
    from parallelchange.rollout.observe import observe

    with open_world(change, database_url, record=False) as world:
        obs = observe(world)
        name = world.plan.change.name
        if obs.tampered:
            raise Tampered(obs.tampered, hint=obs.tampered_remedy)
        found = [(item, why_stale(world.plan, obs, item)) for item in obs.evidence]
    if as_json:
        items = [{**to_json(item), "age": obs.now - item.measured_at, "counts": not why, "stale": why}
                 for item, why in found]  # fmt: skip
        print_json({"change": name, "state": obs.state, "evidence": items})
        return
    table = Table(box=None, pad_edge=False)
    for column in ("gate", "of", "schema", "verdict", "age", "from", "counts"):
        table.add_column(column, overflow="fold")
    for item, why in found:
        where = f"{item.state}, {'copy' if item.key.place is Place.COPY else 'live'}"
        age = f"{obs.now - item.measured_at:.0f} s"
        cells = (item.key.gate, item.result.version or "data", where, item.result.verdict.value, age,
                 item.source or "here", f"no, stale: {why}" if why else "yes")  # fmt: skip
        table.add_row(*map(Text, cells))
    console().print(table)
    click.echo(f"{name}: {sum(not why for _, why in found)} of {len(found)} count now")


@command.command("check")
@options.change
@options.database_url
@options.as_json
def check(change: str, database_url: str | None, as_json: bool) -> int:
    """Make sure that recorded evidence is what was written: nothing changed, removed, inserted or moved."""
    from parallelchange.cli.show import print_json, show_findings
    from parallelchange.errors import Tampered
    from parallelchange.model import Finding, Severity, Verdict

    findings = []
    with _ledger(change, database_url) as (plan, ledger):
        name = plan.change.name
        try:
            ledger.evidence()
        except Tampered as error:
            findings.append(Finding("evidence.tampered", Severity.ERROR, error.message, "ledger", error.hint or ""))
    verdict = Verdict.FAIL if findings else Verdict.PASS
    if as_json:
        print_json({"change": name, "verdict": verdict, "findings": findings})
    else:
        click.echo(f"{name}: {verdict}: the evidence is {'not ' if findings else ''}what was written")
        show_findings(findings)
    return 1 if findings else 0


@command.command("reset")
@options.change
@click.option("--reason", required=True, help="Why; kept in the journal.")
@options.database_url
def reset(change: str, reason: str, database_url: str | None) -> None:
    """Forget all evidence of a change, and start anew with nothing proven."""
    from parallelchange.errors import UsageError

    if not reason.strip():
        raise UsageError("no reason is given", hint="say what was found: --reason '…'")
    with _ledger(change, database_url, write=True) as (plan, ledger), ledger.fenced():
        rows = ledger.reset_evidence(reason)
    click.echo(f"{plan.change.name}: {rows} rows of evidence are forgotten; nothing is proven")


@command.command("export")
@options.change
@click.option("-o", "--output", type=_FILE, metavar="FILE", help="Default: stdout.")
@sign_option
@options.database_url
def export(change: str, output: Path | None, sign: Path | None, database_url: str | None) -> None:
    """Write what was rehearsed to a file that `evidence import` takes. What was measured live stays: it speaks of one
    database only.
    """  # noqa: D205 - click shows it as one paragraph
    with _ledger(change, database_url) as (plan, ledger):
        write_evidence(plan, ledger.evidence(), ledger.now(), output, sign)


def write_evidence(plan: Plan, evidence: Any, now: float, output: Path | None, sign: Path | None) -> None:
    """Write the evidence that can be carried, and tell what cannot.

    Args:
        plan: The plan.
        evidence: What is known, newest first.
        now: The database's clock, seconds since the epoch.
        output: The file; None for stdout.
        sign: The private key to sign it with; None for no signature.

    Raises:
        Refused: There is nothing to carry.
    """
    from dataclasses import replace

    from parallelchange import __version__
    from parallelchange.cli.show import note
    from parallelchange.errors import Refused, UsageError
    from parallelchange.evidence import EvidenceFile, describe, write_file

    items: list[Evidence] = []
    left: dict[str, list[Evidence]] = {}
    for item in evidence:
        reason = _stays(plan, item, now)
        if reason:
            left.setdefault(reason, []).append(item)
        else:
            items.append(replace(item, source=""))
    for reason, stay in left.items():
        note(f"left out: {len(stay)} verdicts, such as {describe(stay[0])}: {reason}")
    if not items:
        raise Refused(
            f"there is no evidence of {plan.change.name} to carry",
            hint=f"run `parallelchange rehearse {plan.change.name}` first",
        )
    file = EvidenceFile(plan.change.name, plan.digest, f"parallelchange {__version__}", now, tuple(items))
    if sign:
        from parallelchange.adapters.signing import read_private
        from parallelchange.adapters.signing import sign as signed

        file = replace(file, signature=signed(file, read_private(sign)))
    if output is None:
        click.echo(write_file(file), nl=False)
        return
    try:
        output.write_text(write_file(file), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}", hint="name another file") from None
    note(f"wrote {output}: {len(items)} verdicts, {_vouched(file)}")


def _vouched(file: EvidenceFile) -> str:
    return f"signed by {file.signature.key}" if file.signature else "not signed"


def _stays(plan: Plan, item: Evidence, now: float) -> str:
    """Why evidence cannot be carried; empty when it can."""
    from parallelchange.model import Place

    if item.key.place is not Place.COPY:
        return "measured on the live database, and true of that one only"
    if item.key.plan != plan.digest:
        return "of another plan"
    if now - item.measured_at > plan.change.max_age:
        return f"older than the {plan.change.max_age:.0f} s for which evidence counts"
    return ""


@command.command("import")
@options.change
@click.argument("file", type=_FILE)
@click.option("--key", "keys", multiple=True, type=_FILE, metavar="PUBFILE", help="It must be signed by one of these.")
@options.database_url
def import_(change: str, file: Path, keys: tuple[Path, ...], database_url: str | None) -> None:
    """Keep the evidence of a FILE. It counts as ours does: where schema, builds and statements are those it names."""
    from parallelchange.cli.show import note
    from parallelchange.cli.world import settings_for
    from parallelchange.errors import InvalidFile
    from parallelchange.evidence import refusal

    read = _read(file)
    key = _signed_by(file, read, keys, settings_for(change, database_url)[1])
    with _ledger(change, database_url, write=True) as (plan, ledger):
        if read.change != plan.change.name:
            raise InvalidFile(f"is of the change {read.change!r}, not of {plan.change.name}", path=file)
        versions = [version.name for version in plan.change.versions]
        why, remedy = refusal(read, plan.digest, versions, ledger.now(), plan.change.max_age)
        if why:
            raise InvalidFile(why, path=file, hint=remedy)
        kept = ledger.import_evidence(read, key)
    if len(kept) < len(read.items):
        note(f"left out: {len(read.items) - len(kept)} that are not newer than what the ledger has")
    if read.signature and not key:
        note(f"its signature by {read.signature.key} was not checked: no key is named")
    click.echo(f"{plan.change.name}: {len(kept)} verdicts imported, {f'signed by {key}' if key else 'not signed'}")


def _read(path: Path) -> EvidenceFile:
    from parallelchange.errors import InvalidFile
    from parallelchange.evidence import read_file

    hint = "take a file as `evidence export` or `rehearse --evidence` has written it"
    try:
        if path.stat().st_size > _LARGEST:
            raise InvalidFile("is too large to be evidence", path=path, hint=hint)
        return read_file(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidFile(f"cannot be read: {error.strerror}", path=path, hint=hint) from None
    except ValueError as error:
        raise InvalidFile(str(error), path=path, hint=hint) from None


def _signed_by(path: Path, file: EvidenceFile, keys: tuple[Path, ...], settings: Settings) -> str:
    """Id of the key that vouches for it; empty when nobody needs to.

    Raises:
        InvalidFile: Somebody needs to, and nobody does.
    """
    from parallelchange.errors import InvalidFile

    asked = [(which, names) for which, names in (("evidence_keys", settings.evidence_keys), ("--key", keys)) if names]
    if not asked:
        return ""
    from parallelchange.adapters.signing import read_public, signer

    found = ""
    for which, names in asked:
        if file.signature is None:
            raise InvalidFile(f"is not signed, and {which} asks for it", path=path, hint="export it with --sign")
        key = signer(file, read_public(names))
        if key is None:
            raise InvalidFile(
                f"is not signed by a key of {which}: it says {file.signature.key[:40]!r}",
                path=path,
                hint="sign it with the private key of one of them, or name the signer's public key",
            )
        found = key
    return found


@command.command("keygen")
@click.argument("file", type=_FILE)
def keygen(file: Path) -> None:
    """Make a key to sign evidence with: FILE, for your eyes only, and FILE.pub, which is no secret."""
    from parallelchange.adapters.signing import make_keys

    public, key = make_keys(file)
    click.echo(f"wrote {file} (keep it secret) and {public}: key {key}")
