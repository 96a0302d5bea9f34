"""SQL as text: its tokens, its statements, its literals. The words are PostgreSQL's (manual, "Lexical Structure").

Only what must be known before a server is asked: where a statement ends, what in it is a value, and whether it only
reads. Whether it means anything is for the server to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

__all__ = [
    "Kind",
    "Template",
    "Token",
    "fill",
    "joined",
    "kind_of",
    "opening",
    "split",
    "template",
    "tokens",
    "unquoted",
]

# standard_conforming_strings is on everywhere since 9.1: a backslash is one only in E'…'. PostgreSQL's own classes:
# only ASCII space is space, only ASCII digits are digits, and every character beyond ASCII is one of an identifier.
_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\n\r\f\v]+|--[^\n\r]*)
  | (?P<comment>/\*)
  | (?P<string>[eE]'(?:[^'\\]|\\.|'')*+'|(?:[bBxXnN]|[uU]&)?'(?:[^']|'')*+'
      |\$\$.*?\$\$|\$(?P<tag>[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*)\$.*?\$(?P=tag)\$)
  | (?P<quoted>(?:[uU]&)?"(?:[^"]|"")*+")
  | (?P<parameter>\$[0-9]+)
  | (?P<number>0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+
      |(?:[0-9][0-9_]*(?:\.(?!\.)[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9]+)?)
  | (?P<word>[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*)
  | (?P<sign>::|:=|=>|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT = re.compile(r"/\*|\*/")

_SHORT = 4000  # characters of a text whose tokens are kept: one with a thousand rows in it does not come again

_READS = frozenset({"select", "values", "table", "with"})
_WRITES = frozenset({"insert", "update", "delete", "merge"})
# `INTO` is `SELECT … INTO`; `UPDATE` and `SHARE` come with `FOR`, whose locks are stronger than ACCESS SHARE.
_MORE_THAN_READING = _WRITES | {"into", "share", "lock"}
_ANYWHERE = re.compile("|".join(sorted(_MORE_THAN_READING)))


class Kind(StrEnum):
    """What a statement is, as far as its words tell."""

    READ = "read"  # can be prepared, and takes ACCESS SHARE and nothing stronger
    WRITE = "write"  # can be prepared
    UTILITY = "utility"  # cannot be prepared: only running it shows what it does


@dataclass(frozen=True)
class Token:
    """One token.

    Args:
        kind: `string`, `quoted`, `parameter`, `number`, `word` or `sign`.
        text: As it was written.
        space: Whether something stood between it and the one before.
    """

    kind: str
    text: str
    space: bool = False


def tokens(sql: str) -> Iterator[Token]:
    """The tokens of a text, comments and white space left out."""
    return iter(_tokens(sql)) if len(sql) <= _SHORT else _read(sql)


@lru_cache(maxsize=512)  # a recording asks the same few texts again and again
def _tokens(sql: str) -> tuple[Token, ...]:
    return tuple(_read(sql))


def _read(sql: str) -> Iterator[Token]:
    at, space = 0, False
    while at < len(sql):
        match = _TOKEN.match(sql, at)
        assert match is not None, "every character is at least a sign"
        at = match.end()
        if match["comment"]:
            at, space = _end_of_comment(sql, at), True
        elif match["space"]:
            space = True
        else:
            yield Token("string" if match["tag"] else match.lastgroup or "sign", match[0], space)
            space = False


def _end_of_comment(sql: str, at: int) -> int:
    """Comments nest."""
    depth = 1
    for match in _COMMENT.finditer(sql, at):
        depth += 1 if match[0] == "/*" else -1
        if not depth:
            return match.end()
    return len(sql)


def joined(found: Sequence[Token]) -> str:
    """Tokens as one text; what stood between two of them becomes one space."""
    parts: list[str] = []
    before = ""
    for token in found:
        # Literals that follow one another are one literal only where a line ends between them.
        gap = "\n" if before == token.kind == "string" else " "
        parts += [gap, token.text] if token.space and before else [token.text]
        before = token.kind
    return "".join(parts)


def split(sql: str) -> list[str]:
    """The statements of a text, without comments, each on one line but for what is in literals.

    A semicolon inside parentheses (`CREATE RULE`) or in the body of a `BEGIN ATOMIC` function ends no statement.
    """
    statements: list[list[Token]] = [[]]
    open_, depth, before = 0, 0, ""
    for token in tokens(sql):
        word = token.text.lower() if token.kind == "word" else token.text
        if word == "atomic" and before == "begin":
            depth = 1
        elif depth and before not in ("as", "."):  # after these a keyword is but a name
            depth += (word == "case") - (word == "end")
        open_ = max(0, open_ + (word == "(") - (word == ")"))
        if word == ";" and not depth and not open_:
            statements.append([])
        else:
            statements[-1].append(token)
        before = word
    return [joined(found) for found in statements if found]


@lru_cache(maxsize=512)
def opening(sql: str, count: int) -> tuple[str, ...]:
    """The first words of a statement, in lower case; parentheses before them, as in `(SELECT …)`, are no words."""
    words: list[str] = []
    for token in tokens(sql):
        if token.text == "(" and not words:
            continue
        if token.kind != "word" or len(words) == count:
            break
        words.append(token.text.lower())
    return tuple(words)


@lru_cache(maxsize=512)
def kind_of(sql: str) -> Kind:
    """What one statement is. When in doubt it writes: then it is never prepared on a database that serves."""
    words = (token.text.lower() for token in tokens(sql) if token.kind == "word")
    first = next(words, "")
    if first in _WRITES:
        return Kind.WRITE
    if first not in _READS:
        return Kind.UTILITY
    # Most texts hold none of the words, not even as a part of another, and need not be taken apart.
    if not _ANYWHERE.search(sql.lower()):
        return Kind.READ
    return Kind.READ if _MORE_THAN_READING.isdisjoint(words) else Kind.WRITE


def unquoted(literal: str) -> str | None:
    """What a string literal says; None for one whose escapes only the server reads (`E'…'`, `U&'…'`, `B'…'`)."""
    if literal.startswith("'") and literal.endswith("'") and len(literal) > 1:
        return literal[1:-1].replace("''", "'")
    if literal.startswith("$"):
        tag = literal[: literal.index("$", 1) + 1]
        return literal[len(tag) : -len(tag)]
    return None


@dataclass(frozen=True)
class Template:
    """A statement with its literals taken out.

    Args:
        sql: $1, $2, … stand for the literals.
        literals: As they were written, quotes and all.
    """

    sql: str
    literals: tuple[str, ...]


def template(sql: str) -> Template:
    """Take the literals out of a statement, so that statements that differ in them only are one.

    Args:
        sql: One statement without parameters.
    """
    literals: list[str] = []
    kept: list[Token] = []
    for token in tokens(sql):
        before = kept[-1].kind if kept else ""
        if token.kind in ("string", "number"):
            literals.append(token.text)
            # `interval'1 day'` has no space, and `interval$1` would be one word.
            kept.append(Token("parameter", f"${len(literals)}", token.space or before in ("word", "parameter")))
        else:
            parted = token.space or (before == "parameter" and token.kind in ("word", "quoted"))
            kept.append(Token(token.kind, token.text, parted))
    return Template(joined(kept), tuple(literals))


def fill(sql: str, literals: Sequence[str], *, first: int = 1) -> str:
    """Put literals back where `template` took them out.

    Args:
        sql: A template.
        literals: One for each placeholder from `first` on.
        first: Number of the placeholder that stands for the first of them.
    """

    def value(token: Token) -> Token:
        number = int(token.text[1:]) - first if token.kind == "parameter" else -1
        return Token("string", literals[number], token.space) if 0 <= number < len(literals) else token

    return joined([value(token) for token in tokens(sql)])
