"""The corpus: every statement a version sends, as it was recorded."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from parallelchange.errors import InvalidFile
from parallelchange.model import digest

__all__ = ["Corpus", "Recorded", "read_corpus", "write_corpus"]


@dataclass(frozen=True)
class Recorded:
    """One statement.

    Args:
        sql: Its text with $1, $2, … for parameters.
        types: Type of each parameter, as `format_type` writes it.
        parameters: Sets of values it was sent with, as PostgreSQL's text form; None for NULL.
        columns: Its result's columns as `name type`; empty when it gives none.
        prepared: Whether a session prepared it by name, so that a changed result breaks it.
        where: Where it was recorded.
    """

    sql: str
    types: tuple[str, ...]
    parameters: tuple[tuple[str | None, ...], ...]
    columns: tuple[str, ...]
    prepared: bool
    where: str


@dataclass(frozen=True)
class Corpus:
    """All statements of one version.

    Args:
        version: The version's name.
        statements: Sorted by text.
    """

    version: str
    statements: tuple[Recorded, ...]

    @property
    def digest(self) -> str:
        """sha256 over its content."""
        return digest(self.statements)


def read_corpus(path: Path, version: str) -> Corpus:
    """Read a corpus.

    Raises:
        InvalidFile: It is no corpus, or one of another version.
    """
    hint = f"record it again: parallelchange record {version} -- COMMAND"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        statements = tuple(
            Recorded(
                str(item["sql"]),
                tuple(item["types"]),
                tuple(tuple(values) for values in item["parameters"]),
                tuple(item["columns"]),
                bool(item["prepared"]),
                str(item["where"]),
            )
            for item in raw["statements"]
        )
        recorded = str(raw["version"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidFile(f"is no corpus of statements: {error}", path=path, hint=hint) from None
    if any("\x00" in text for item in statements for text in (item.sql, *item.types)):
        raise InvalidFile("holds a statement with a NUL character", path=path, hint=hint)
    if recorded != version:
        raise InvalidFile(f"holds the statements of {recorded}, not of {version}", path=path, hint=hint)
    return Corpus(version, statements)


def write_corpus(path: Path, corpus: Corpus) -> None:
    """Write a corpus so that a diff of it can be read."""
    items = [asdict(statement) for statement in corpus.statements]
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"version": corpus.version, "statements": items}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
