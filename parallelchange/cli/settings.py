"""Settings: `parallelchange.toml` or `[tool.parallelchange]`, then environment, then flags."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parallelchange.errors import InvalidFile, UsageError

__all__ = ["Settings", "find_change", "load_settings"]

_KEYS = {
    "database_url", "rehearsal_url", "alembic", "changes", "state_dir", "kubeconfig", "context", "namespace",
    "prometheus", "evidence_keys",
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What this repository has set.

    Args:
        root: Folder the other paths are relative to.
        database_url: The shared database; None when nothing names it.
        alembic: The repository's `alembic.ini`.
        changes: Folder of the change files.
        state_dir: Where the local mesh keeps its files.
        kubeconfig: The cluster's kubeconfig; None for KUBECONFIG, or the pod's own ServiceAccount.
        context: Context in it; None for the current one.
        namespace: Namespace of the app; None for the context's.
        prometheus: Address of the Prometheus of this environment; None for the change file's.
        rehearsal_url: A database on the server that rehearsals make theirs on; None for the embedded server.
        evidence_keys: Public keys, one of which must have signed evidence that is imported; empty for none.
    """

    root: Path
    database_url: str | None
    alembic: Path
    changes: Path
    state_dir: Path
    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = None
    prometheus: str | None = None
    rehearsal_url: str | None = None
    evidence_keys: tuple[Path, ...] = ()

    def url(self) -> str:
        """The shared database.

        Raises:
            UsageError: Nothing names it.
        """
        if not self.database_url:
            raise UsageError("no database is named", hint="set PARALLELCHANGE_DATABASE_URL, or pass --database-url")
        return _libpq(self.database_url)


def _libpq(url: str) -> str:
    # SQLAlchemy's form of a URL names its driver; libpq's does not.
    return re.sub(r"^postgres(ql)?\+\w+://", "postgresql://", url)


def load_settings(start: Path, *, database_url: str | None = None, rehearsal_url: str | None = None) -> Settings:
    """Read the settings that hold for a folder: those of the nearest file above it.

    Args:
        start: Where to begin looking.
        database_url: As given by a flag.
        rehearsal_url: As given by a flag.

    Raises:
        InvalidFile: A settings file cannot be used.
    """
    root, raw = _find(start.resolve())
    rehearsal_url = rehearsal_url or _set("REHEARSAL_URL", raw)
    # A local environment tells where its database is, unless something nearer does.
    state_dir = root / os.environ.get("PARALLELCHANGE_STATE_DIR", raw.get("state_dir", ".parallelchange/local"))
    return Settings(
        root=root,
        database_url=database_url or os.environ.get("PARALLELCHANGE_DATABASE_URL") or raw.get("database_url"),
        alembic=root / os.environ.get("PARALLELCHANGE_ALEMBIC", raw.get("alembic", "alembic.ini")),
        changes=root / raw.get("changes", "changes"),
        state_dir=state_dir,
        kubeconfig=root / kubeconfig if (kubeconfig := _set("KUBECONFIG", raw)) else None,
        context=_set("CONTEXT", raw),
        namespace=_set("NAMESPACE", raw),
        prometheus=_set("PROMETHEUS", raw),
        rehearsal_url=_libpq(rehearsal_url) if rehearsal_url else None,
        evidence_keys=tuple(root / name for name in (_set("EVIDENCE_KEYS", raw) or "").split()),
    )


def _set(name: str, raw: Mapping[str, Any]) -> str | None:
    return os.environ.get(f"PARALLELCHANGE_{name}", "").strip() or raw.get(name.lower())


def _find(start: Path) -> tuple[Path, Mapping[str, Any]]:
    for folder in (start, *start.parents):
        for name in ("parallelchange.toml", "pyproject.toml"):
            path = folder / name
            if not path.is_file():
                continue
            try:
                document = tomllib.loads(path.read_text(encoding="utf-8"))
            except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
                if name == "pyproject.toml":
                    continue
                raise InvalidFile(f"is no TOML: {error}", path=path) from None
            tool = document.get("tool")
            raw = document if name == "parallelchange.toml" else isinstance(tool, dict) and tool.get("parallelchange")
            if raw is None or raw is False:
                continue
            if not isinstance(raw, dict):
                raise InvalidFile("tool.parallelchange must be a table", path=path)
            for key, value in raw.items():
                if key not in _KEYS:
                    raise InvalidFile(
                        f"unknown setting `{key}`", path=path, hint=f"there are {', '.join(sorted(_KEYS))}"
                    )
                if not isinstance(value, str):
                    raise InvalidFile(f"setting `{key}` must be a string", path=path)
            return folder, raw
    return start, {}


def find_change(name: str) -> Path:
    """The change file of that path or name.

    Raises:
        InvalidFile: There is none.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    folder = load_settings(Path.cwd()).changes
    named = folder / f"{name}.yaml"
    if not named.is_file():
        raise InvalidFile("there is no such change file", path=named, hint="give a path, or a name in that folder")
    return named
