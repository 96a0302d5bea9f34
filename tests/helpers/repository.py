"""An app's repository with plain Alembic in it, such as any team has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ENV = '''"""Plain Alembic, as `alembic init` gives it."""

import os

from alembic import context
from sqlalchemy import create_engine, pool

url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://")
engine = create_engine(url, poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
'''

BASE = '''"""The app's own tables."""

from alembic import op

revision = {revision!r}
down_revision = {down!r}
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute({sql!r})


def downgrade() -> None:
    pass
'''

# The toolkit is installed here, as it is on a developer's machine; this makes it as absent as it is elsewhere.
BLOCKED = "import sys; sys.modules['parallelchange'] = None; "


def make_repository(folder: Path, *, base: str | None = "0001", sql: str = "SELECT 1") -> Path:
    """Make a repository; `base` is its one revision, or None for an empty history. Returns its `alembic.ini`."""
    versions = folder / "migrations" / "versions"
    versions.mkdir(parents=True)
    (folder / "alembic.ini").write_text("[alembic]\nscript_location = %(here)s/migrations\npath_separator = os\n")
    (folder / "migrations" / "env.py").write_text(ENV)
    (folder / "migrations" / "script.py.mako").write_text("")
    if base:
        add_revision(folder, base, sql=sql)
    return folder / "alembic.ini"


def add_revision(folder: Path, revision: str, *, down: str | None = None, sql: str = "SELECT 1") -> None:
    """One more revision of the app's own."""
    text = BASE.format(revision=revision, down=down, sql=sql)
    (folder / "migrations" / "versions" / f"{revision}.py").write_text(text)


def python_without_us(folder: Path, code: str, *, url: str = "") -> subprocess.CompletedProcess[str]:
    """Run Python in the repository, in a process that cannot import parallelchange."""
    return subprocess.run(
        [sys.executable, "-c", BLOCKED + code],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def alembic(folder: Path, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the `alembic` command, in a process that cannot import parallelchange."""
    return python_without_us(folder, f"from alembic.config import main; main({list(arguments)!r})", url=url)
