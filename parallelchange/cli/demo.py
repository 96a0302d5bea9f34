"""`parallelchange demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click

if TYPE_CHECKING:
    from rich.console import RenderableType

    from parallelchange.local.demo import Story
    from parallelchange.local.shop import ShopStage

__all__ = ["command"]

_KINDS = ("lossy", "old-statement", "slow-canary", "failing-canary", "undrained")


@click.command("demo", short_help="A real rollout on this machine, under load.")
@click.option("--break", "broken", type=click.Choice(_KINDS), help="Break something, and see it blocked (exit 1).")
@click.option("--rows", default=200_000, show_default=True, type=click.IntRange(100), help="Customers to begin with.")
@click.option("--rate", default=120.0, show_default=True, type=click.FloatRange(1, 2000), help="Requests a second.")
@click.option("--soak", type=click.FloatRange(3), help="Seconds a stage is watched; default: as the change says.")
@click.option("--hold", is_flag=True, help="Set everything up and run the load; the rollout is yours to run.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".parallelchange/demo"),
    show_default=True,
    help="The demo's own folder; what is in it goes.",
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("report.json"),
    show_default=True,
    help="Where the report goes.",
)
def command(
    broken: str | None, rows: int, rate: float, soak: float | None, hold: bool, folder: Path, report: Path
) -> int:
    """Run a real parallel change: PostgreSQL, two versions of a shop, Envoy, a load, and the whole rollout.

    At the end every acknowledged write is held against the database. Exit 0 when all of it went
    through without a failed request or a lost write, 1 when a gate blocked.
    """
    import os

    from parallelchange.cli.show import console, note
    from parallelchange.cli.world import open_world
    from parallelchange.errors import UsageError
    from parallelchange.local.demo import Story, report_of, run_rollout, wait_for_end, write_report
    from parallelchange.local.shop import ShopStage

    folder = folder.resolve()
    if folder.exists() and not (folder / "parallelchange.toml").is_file() and any(folder.iterdir()):
        raise UsageError(f"{folder} holds something else than a demo", hint="give another --folder")
    for name in ("PARALLELCHANGE_DATABASE_URL", "PARALLELCHANGE_STATE_DIR", "PARALLELCHANGE_ALEMBIC"):
        os.environ.pop(name, None)  # the demo touches its own database and nothing else
    with ShopStage(folder, rows=rows, rate=rate, soak=soak, broken=broken, say=note) as stage:
        story = Story(stage.stage_file)
        with open_world(str(stage.change), None, tell=story.tell) as world, _Screen(stage, story) as screen:
            decision = None
            if hold:
                note(f"ready. In another terminal:\n  parallelchange rollout {stage.change}")
                try:
                    wait_for_end(world, stage, story, screen.tick)
                except KeyboardInterrupt:
                    note("stopping")
            else:
                decision = run_rollout(world, stage, screen.tick)
            figures = report_of(world, stage, story, decision)
    write_report(figures, report)
    console().print(_summary(figures))
    click.echo(f"report: {report}")
    return 0 if figures["verdict"] == "pass" and figures["contracted"] else 1


class _Screen:
    """Shows how it goes: a live picture on a terminal, a line an event elsewhere."""

    def __init__(self, stage: ShopStage, story: Story) -> None:
        from rich.live import Live

        from parallelchange.cli.show import console

        self.stage, self.story, self.shown = stage, story, 0
        self.out = console(err=True)
        self.live = Live(console=self.out, refresh_per_second=2) if self.out.is_terminal else None

    def __enter__(self) -> Self:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def tick(self) -> None:
        """Show what is new."""
        for line in self.story.lines[self.shown :]:
            self.out.print(line, markup=False)
            self.shown += 1
        if self.live:
            self.live.update(_picture(self.stage, self.story))


def _picture(stage: ShopStage, story: Story) -> RenderableType:
    from rich.console import Group
    from rich.padding import Padding
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    from parallelchange.cli.show import gate_table
    from parallelchange.model import FULL, format_weight

    figures = stage.figures()
    head = Text(f"schema {story.state}   canary {format_weight(story.weight)}   {story.doing}", style="bold")
    traffic = Table(box=None, pad_edge=False)
    for name in ("version", "requests", "failed", "last 5 s", "p50 ms", "p99 ms"):
        traffic.add_column(name, justify="left" if name == "version" else "right")
    for version, of in figures.get("versions", {}).items():
        recent = of["recent"]
        shown = (of["requests"], of["failures"], recent["requests"], recent["p50_ms"], recent["p99_ms"])
        traffic.add_row(version, *("-" if value is None else str(value) for value in shown))
    load = Text(
        f"load {figures.get('rate_achieved', 0)}/s, {figures.get('late', 0)} late, "
        f"{figures.get('failed_requests', 0)} failed, {figures.get('wrong_reads', 0)} wrong reads"
    )
    gates = gate_table(("", result) for result in story.results.values())
    return Group(
        head, Padding(ProgressBar(total=FULL, completed=story.weight, width=60), (0, 0, 1, 0)), traffic, load, gates
    )


def _summary(report: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    stages = Table(title="\nstage by stage", title_justify="left", box=None, pad_edge=False)
    for name in ("stage", "version", "requests", "failed", "p50 ms", "p99 ms"):
        stages.add_column(name, justify="left" if name in ("stage", "version") else "right")
    for stage, versions in report["stages"].items():
        for version, of in versions.items():
            stages.add_row(stage, version, *(str(of[k]) for k in ("requests", "failures", "p50_ms", "p99_ms")))
    lines = [
        f"{report['requests']} requests at {report['rate']}/s, {report['late']} late, "
        f"{report['wrong_reads']} wrong reads, {report['failed_requests']} failed"
        + (f" ({report['failed_requests_asked_for']} of them asked for by the demo)" if report["broken"] else ""),
        f"{report['acknowledged_writes']} acknowledged writes: {report['lost_writes']} lost",
        f"{report['rows']} rows: {report['wrong_rows']} wrong",
        f"longest ACCESS EXCLUSIVE lock: {report['longest_access_exclusive_ms']} ms",
        f"weight reached {report['weight_reached']}, now {report['weight']}; schema {report['state']}",
    ]
    if report["blocked_by"]:
        lines.append(f"blocked by gate {', '.join(report['blocked_by'])}: {report['why']}")
        lines.append(f"the old version {'serves on' if report['old_version_serves'] else 'DOES NOT SERVE'}")
    word = "contracted" if report["contracted"] else "not contracted"
    lines.append(f"verdict {report['verdict']}: {report['change']} is {word} after {report['seconds']} s")
    return Group(stages, Text("\n" + "\n".join(lines)))
