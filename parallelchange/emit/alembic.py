"""A change as three Alembic revisions, in the branches `expand`, `migrate` and `contract`.

They are plain SQL: `alembic upgrade` runs them where this toolkit is not installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from alembic.config import Config
from alembic.script import Script, ScriptDirectory

from parallelchange.errors import InvalidFile, UsageError
from parallelchange.model import Phase, Statement
from parallelchange.plan import Plan

__all__ = ["Revision", "emit", "render", "scripts"]

_NOTES = {
    Phase.EXPAND: "Adds the new shape beside the old one; both versions work on it.",
    Phase.MIGRATE: "Refuses unless every row has both shapes. Run it when nothing of the old version writes any more.",
    Phase.CONTRACT: "Leaves only the new shape. There is no way back.",
}


@dataclass(frozen=True)
class Revision:
    """One revision to write.

    Args:
        phase: Its phase, and the name of its branch.
        id: Its id.
        down: What it revises; None at the very start.
        labels: Whether it starts its branch.
        needs: Id of the revision of another branch that comes before it.
    """

    phase: Phase
    id: str
    down: str | None
    labels: bool
    needs: str | None


def scripts(ini: Path) -> ScriptDirectory:
    """The Alembic environment of a repository.

    Raises:
        InvalidFile: There is none.
    """
    if not ini.is_file():
        raise InvalidFile("there is no Alembic configuration", path=ini, hint="set `alembic` in parallelchange.toml")
    try:
        config = Config(ini, toml_file=ini.parent / "pyproject.toml")
        config.set_main_option("here", str(ini.parent).replace("%", "%%"))
        directory = ScriptDirectory.from_config(config)
        directory.get_heads()
    except Exception as error:  # noqa: BLE001 - revisions are the user's own Python: anything can come out
        told = str(error).strip().splitlines() or [type(error).__name__]
        raise InvalidFile(f"the Alembic environment cannot be read: {told[0]}", path=ini) from None
    return directory


def _place(directory: ScriptDirectory, plan: Plan) -> tuple[Revision, ...]:
    """Where the three revisions go: on their branches, which start at the head of a linear history.

    Ours are left out of what they are placed on, so that it comes out the same however often it is done,
    and also after an emission that was killed half-way.
    """
    there = {script.revision: script for script in directory.walk_revisions()}
    ours = {plan.revision(phase) for phase in Phase}
    others = {revision: script for revision, script in there.items() if revision not in ours}
    parents = {str(script.down_revision) for script in others.values() if script.down_revision}
    tips = [script for revision, script in others.items() if revision not in parents]
    revisions = []
    before: str | None = None
    for phase in Phase:
        mine = plan.revision(phase)
        below = there.get(str(there[mine].down_revision)) if mine in there else None
        # Where it is, it stays: others may have been placed on it.
        stays = mine in there and (below is None or below.revision not in ours)
        tip = below if stays else _tip(tips, phase)
        labelled = tip is not None and phase in _labels(tip, others)
        revisions.append(Revision(phase, mine, tip.revision if tip else None, not labelled, before))
        before = mine
    return tuple(revisions)


def _tip(tips: list[Script], phase: Phase) -> Script | None:
    branch = [script for script in tips if phase in script.branch_labels]
    found = branch or tips
    if len(found) > 1:
        names = ", ".join(script.revision for script in found)
        raise UsageError(
            f"the repository has {len(found)} Alembic heads: {names}", hint="merge them first: alembic merge heads"
        )
    return found[0] if found else None


def _labels(script: Script, others: Mapping[str, Script]) -> set[str]:
    """Labels of the branch a revision is on, by those that revisions of others were given themselves."""
    found: set[str] = set()
    current: Script | None = script
    while current is not None:
        found |= set(getattr(current.module, "branch_labels", None) or ())
        current = others.get(str(current.down_revision))
    return found


def _lines(statement: Statement) -> str:
    on = f"{statement.lock.title} on {statement.table}: " if statement.table else ""
    sql = statement.sql
    # As it runs, where Python lets us; three quotes or a quote at the end would end the string early.
    text = repr(sql) if '"""' in sql or sql.endswith(('"', "\\")) else f'r"""{sql}"""'
    return f"    # {on}{statement.why}\n    run({text})\n"


def _body(statements: tuple[Statement, ...]) -> str:
    return "".join(map(_lines, statements)) or "    pass\n"


def _name(text: str | None) -> str:
    return "None" if text is None else f'"{text}"'


def render(plan: Plan, revision: Revision) -> str:
    """The text of one revision.

    Args:
        plan: The plan.
        revision: Which one, and where it goes.
    """
    phase = revision.phase
    down = {
        Phase.EXPAND: _body(plan.revert),
        Phase.MIGRATE: _body(plan.relax),
        Phase.CONTRACT: '    raise RuntimeError("contract is the point of no return: roll forward")\n',
    }[phase]
    return f'''"""{plan.change.name}: {phase}

{_NOTES[phase]}

Revision ID: {revision.id}
Revises: {revision.down or ""}
"""

import sqlalchemy as sa
from alembic import op

revision = {_name(revision.id)}
down_revision = {_name(revision.down)}
branch_labels = {f"({_name(phase.value)},)" if revision.labels else None}
depends_on = {_name(revision.needs)}


def run(sql: str) -> None:
    """Run SQL as it is written: DDL() takes a percent sign for a format and nothing else for a parameter."""
    op.execute(sa.DDL(sql.replace("%", "%%")))


def upgrade() -> None:
{_body(plan.statements(phase))}

def downgrade() -> None:
{down.rstrip()}
'''


def emit(plan: Plan, ini: Path) -> list[Path]:
    """Write the three revisions into a repository's Alembic environment.

    Args:
        plan: The plan.
        ini: The repository's `alembic.ini`.

    Returns:
        The files written.

    Raises:
        UsageError: The revisions have no one place to go.
        InvalidFile: There is no Alembic environment.
    """
    directory = scripts(ini)
    known = {script.revision: Path(script.path) for script in directory.walk_revisions()}
    written = []
    for revision in _place(directory, plan):
        name = f"{plan.change.name.replace('-', '_')}_{revision.phase}.py"
        path = known.get(revision.id, Path(directory.versions) / name)
        path.write_text(render(plan, revision), encoding="utf-8")
        written.append(path)
    return written
