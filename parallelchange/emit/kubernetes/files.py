"""Writing an emission: only what changed, and over nothing that is somebody else's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from parallelchange.emit.kubernetes.documents import MARKER
from parallelchange.errors import InvalidFile

__all__ = ["FOLDERS", "Written", "write"]

FOLDERS = (
    ".",
    "base",
    "base/given",
    "gates",
    "guard",
    "guard/cluster",
    "overlays/blue-green",
    "overlays/canary",
)
"""Folders an emission has files in."""


@dataclass(frozen=True)
class Written:
    """What became of an emission.

    Args:
        written: Files that are new or changed.
        removed: Files of an earlier emission that this one does not have.
        unchanged: Number of files that were as they should be.
    """

    written: tuple[Path, ...]
    removed: tuple[Path, ...]
    unchanged: int


def write(made: Mapping[str, str], out: Path) -> Written:
    """Write an emission.

    Args:
        made: Text of each file by its path below `out`.
        out: The folder.

    Raises:
        InvalidFile: A file is in the way that we did not write, or one cannot be written; in the first case
            nothing is written at all.
    """
    changed = {out / name: text for name, text in made.items() if _differs(out / name, text)}
    wanted = {out / name for name in made}
    left = [
        path
        for folder in FOLDERS
        for path in sorted((out / folder).glob("*.yaml"))
        if path not in wanted and _is_ours(path)
    ]
    try:
        for path, text in changed.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        for path in left:
            path.unlink()
    except OSError as error:
        raise InvalidFile(f"cannot be written: {error.strerror}", path=error.filename or out) from None
    return Written(tuple(changed), tuple(left), len(made) - len(changed))


def _differs(path: Path, text: str) -> bool:
    if not path.exists() and not path.is_symlink():
        return True
    if path.is_file() and path.read_bytes() == text.encode():
        return False
    if not _is_ours(path):
        raise InvalidFile(
            "was not written by `emit kubernetes`", path=path, hint="move it away, or name another folder with --out"
        )
    return True


def _is_ours(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            return file.readline().rstrip("\n") == MARKER
    except (OSError, UnicodeDecodeError):
        return False
