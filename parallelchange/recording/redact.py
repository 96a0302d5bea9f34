"""What must not reach a file: secrets, told by their form or by the name of their column, and long values. Pure."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from parallelchange.sqltext import Token, joined, tokens, unquoted

__all__ = ["LONGEST", "Redaction", "names_a_secret", "shortened"]

LONGEST = 200
"""Characters of a value or literal that are kept."""

_LONGEST_OPAQUE = 10_000  # of a type whose text cannot be cut and still be one of its values
_LONGEST_JSON = 2_000
_SECRET_NAME = re.compile(
    r"(pass(word|wd|phrase|code)|(^|_)(pwd|secret|token|jwt|credentials?|authorization|pin|otp|cookie)s?($|_)"
    r"|api_?key|(access|private|secret|signing|encryption|auth|session)_?(key|token)|clientsecret|bearer)",
)
_ABOUT_A_SECRET = re.compile(r"_(at|on|count|id|type|kind|ttl|length|expiry|expires|expiration|expires_in)$")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_FORMS = (
    re.compile(r"-----BEGIN [A-Z0-9 ]*(?:KEY|CERTIFICATE)[A-Z ]*-----.*?(?:-----END [A-Z0-9 ]*-----|\Z)", re.DOTALL),
    re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?"),
    re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    re.compile(r"\b(?:gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abeprs]-[\w-]{10,})"),
    re.compile(r"\b(?:[srp]k[-_](?:live|test|proj|ant)[-_][\w-]{16,}|sk-[A-Za-z0-9]{20,})"),
    re.compile(r"\bbearer\s+((?=[\w.~+/=-]*[0-9])[\w.~+/=-]{8,})", re.IGNORECASE),
    re.compile(r"://[^/\s:@]*:([^@\s/]+)@"),
)
# Of values only: in the body of a function they are code.
_OF_VALUES = (
    re.compile(r"\bbearer\s+([\w.~+/=-]{8,})", re.IGNORECASE),
    re.compile(r"\b(?:password|passwd|secret|token)=([^\s'\"&;,]+)", re.IGNORECASE),
    re.compile(r"--(?:password|secret|token)[ =](\S+)", re.IGNORECASE),
)
_CONNECTION = re.compile(r"\b(?:host|hostaddr|dbname|service)=")
_JSON_MEMBER = re.compile(r'"([A-Za-z][\w-]*)"\s*:\s*"((?:[^"\\]|\\.)+)"')
_RUN = re.compile(r"(?<![\w+/-])[\w+/-]{32,}={0,2}", re.ASCII)
_HEX = re.compile(r"[0-9a-fA-F]+")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_CLASSES = (128, 64, 32, 16, 8)
_TEXTS = ("text", "character", "bpchar", "name", "citext", "unknown", '"char"')
_ESCAPED = re.compile(r"\\(?:x[0-9a-fA-F]{1,2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{1,3}|.)|''|[^\\']", re.DOTALL)
_VALUES = ("string", "number", "parameter")
_ENDS_A_LIST = frozenset({"from", "where", "on", "returning", "union", "order", "limit"})


class Redaction:
    """Replaces secrets with stand-ins: the same secret by the same one, of about its length and of its form.

    A stand-in is numbered, not computed: from a hash a short password could be guessed.

    Args:
        patterns: What else is a secret: the first group of each match, or all of it.
    """

    def __init__(self, patterns: Sequence[re.Pattern[str]] = ()) -> None:
        self.counts: Counter[str] = Counter()
        self._patterns = patterns
        self._numbers: dict[str, int] = {}

    def statement(self, sql: str, *, shorten: bool) -> str:
        """A statement without the secrets in its literals.

        Args:
            sql: One statement.
            shorten: Whether its long literals are cut; those of a definition are a part of it.
        """
        found = list(tokens(sql))
        named = _names_in(sql)
        changed = [
            Token(token.kind, self._literal(token.text, named.get(i, ""), shorten=shorten), token.space)
            if token.kind == "string" or (token.kind == "number" and i in named)
            else token
            for i, token in enumerate(found)
        ]
        return sql if changed == found else joined(changed)

    def bound(self, sql: str, values: Sequence[str | None]) -> tuple[str | None, ...]:
        """A statement's parameters without the secrets among them."""
        found = list(tokens(sql))
        names = {int(found[i].text[1:]): name for i, name in _names_in(sql).items() if found[i].kind == "parameter"}
        return tuple(
            None if value is None else self.value(value, names.get(number, ""))
            for number, value in enumerate(values, start=1)
        )

    def shorten(self, values: Sequence[str | None], types: Sequence[str]) -> tuple[str | None, ...]:
        """A sending's parameters without their length; arrays of one length keep one length."""
        typed = list(zip(values, types, strict=True))
        short = [None if value is None else shortened(value, type_) for value, type_ in typed]
        self.counts["long values"] += sum(new != old for new, old in zip(short, values, strict=True))
        arrays = {
            i: elements
            for i, (value, type_) in enumerate(typed)
            if value is not None and type_.endswith("[]") and (elements := _elements(value)) is not None
        }
        cut = {len(arrays[i]): len(_elements(short[i] or "") or ()) for i in arrays if short[i] != values[i]}
        for i, elements in arrays.items():
            if len(elements) in cut:
                short[i] = "{" + ",".join(elements[: cut[len(elements)]]) + "}"
        return tuple(short)

    def value(self, text: str, name: str = "") -> str:
        """A value without the secrets in it.

        Args:
            text: The value.
            name: Name of the column or argument it is for; empty where that is not known.
        """
        if names_a_secret(name) and text not in ("", "t", "f", "true", "false"):
            inside = _json(text)
            if not isinstance(inside, dict | list):
                return self._stand_in(text, "secrets, by the name of their column")
            return json.dumps(self._hidden(inside))
        text = _JSON_MEMBER.sub(self._member, text)
        text = self._forms(text, (*_FORMS, *_OF_VALUES))
        return self._forms(_RUN.sub(self._run, text), self._patterns, "matches of your patterns")

    def _forms(self, text: str, forms: Sequence[re.Pattern[str]], rule: str = "secrets, by their form") -> str:
        for form in forms:
            text = form.sub(lambda match: self._part(match, rule), text)
        return text

    def _code(self, text: str) -> str:
        """What a definition is made of: only what is a secret beyond doubt goes, for the rest is code."""
        return self._forms(self._forms(text, _FORMS), self._patterns, "matches of your patterns")

    def _literal(self, written: str, name: str, *, shorten: bool) -> str:
        text = unquoted(written)
        if text is None and written[0] in "eE" and written[1:2] == "'":
            body = written[2:-1]
            safe = self.value(body, name)
            if safe != body:
                return "E'" + safe.replace("'", "''").replace("\\", "\\\\") + "'"
            if shorten and len(body) > LONGEST:
                self.counts["long literals"] += 1
                return "E'" + "".join(_ESCAPED.findall(body)[:LONGEST]) + "'"
            return written
        if text is None:  # a number, or U&'…', B'…', X'…'
            if not names_a_secret(name):
                return written
            digits = self._stand_in(written, "secrets, by the name of their column")
            return digits if digits.isdigit() else f"'{digits}'"
        code = not shorten and (written.startswith("$") or (" " in text and not _CONNECTION.search(text)))
        safe = self._code(text) if code else self.value(text, name)
        if shorten and len(safe) > LONGEST:
            self.counts["long literals"] += 1
            safe = shortened(safe, "")
        return written if safe == text else "'" + safe.replace("'", "''") + "'"

    def _hidden(self, inside: Any) -> Any:
        if isinstance(inside, dict):
            return {key: self._hidden(value) for key, value in inside.items()}
        if isinstance(inside, list):
            return [self._hidden(value) for value in inside]
        return self._stand_in(inside, "secrets, by the name of their column") if isinstance(inside, str) else inside

    def _member(self, match: re.Match[str]) -> str:
        if not names_a_secret(match[1]):
            return match[0]
        put = self._stand_in(match[2], "secrets, by the name of their column")
        return match[0][: match.start(2) - match.start()] + put + '"'

    def _part(self, match: re.Match[str], rule: str) -> str:
        group = 1 if match.re.groups and match[1] else 0
        put = self._stand_in(match[group], rule)
        start, end = (at - match.start() for at in match.span(group))
        return match[0][:start] + put + match[0][end:]

    def _run(self, match: re.Match[str]) -> str:
        text = match[0]
        mixed = all(re.search(form, text) for form in ("[a-z]", "[A-Z]", "[0-9]"))
        hexadecimal = bool(_HEX.fullmatch(text)) and not text.isdigit()
        if _UUID.fullmatch(text) or not ((hexadecimal and _entropy(text) > 3) or (mixed and _entropy(text) > 4)):  # noqa: PLR2004 - bits for each character: 4 is all hex has
            return text
        return self._stand_in(text, "secrets, by their form")

    def _stand_in(self, secret: str, rule: str) -> str:
        self.counts[rule] += 1
        number = self._numbers.setdefault(secret, len(self._numbers) + 1)
        length = len(secret)
        if secret.isascii() and secret.isdigit():
            return f"{number:0{length}d}"[-length:]
        if _UUID.fullmatch(secret):
            return f"00000000-0000-4000-8000-{number:012x}"
        if length >= 8 and _HEX.fullmatch(secret.removeprefix("\\x")):  # noqa: PLR2004 - shorter ones are words
            prefix = "\\x" if secret.startswith("\\x") else ""
            return prefix + f"{number:0{length - len(prefix)}x}"
        kept = next((size for size in _CLASSES if size <= length), length)
        name = f"redacted{number}"
        return name.ljust(kept, "x") if len(name) <= kept else str(number).rjust(kept, "x")[-kept:]


def names_a_secret(name: str) -> bool:
    """Whether a column, argument or member of that name holds a secret."""
    plain = _CAMEL.sub("_", name).lower().replace("-", "_")
    return bool(_SECRET_NAME.search(plain)) and not _ABOUT_A_SECRET.search(plain)


def shortened(text: str, type_: str) -> str:
    """A value cut so that it still is one of its type, where that can be done.

    Args:
        text: In PostgreSQL's text form.
        type_: As `format_type` writes it; empty when it is not known.
    """
    if len(text) <= LONGEST:
        return text
    inside = _json(text)
    if isinstance(inside, dict | list):
        small = json.dumps(_small(inside), ensure_ascii=False)
        return small if len(small) <= _LONGEST_JSON else ("{}" if isinstance(inside, dict) else "[]")
    if type_.endswith("[]"):
        kept, size = [], 2
        for element in _elements(text) or ():
            size += len(element) + 1
            if size > LONGEST:
                break
            kept.append(element)
        return "{" + ",".join(kept) + "}"
    cuttable = not type_ or type_ in ("bytea", "numeric") or type_.startswith(_TEXTS)
    return text[:LONGEST] if cuttable or len(text) > _LONGEST_OPAQUE else text


@lru_cache(maxsize=512)
def _names_in(sql: str) -> dict[int, str]:
    return dict(_named(list(tokens(sql))))


def _named(found: Sequence[Token]) -> Iterator[tuple[int, str]]:
    """The values in a statement that stand for something with a name: index of the token, and the name."""
    yield from _of_insert(found)
    for i, token in enumerate(found):
        if token.kind not in _VALUES:
            continue
        name = _compared(found, i) or _set_config(found, i)
        if name:
            yield i, name


def _compared(found: Sequence[Token], i: int) -> str:
    """`name = $1`, `name => $1`, `name = f($1`, `name IN ($1`, `PASSWORD '…'`, and `$1 = name`."""
    at = i - 1
    while at >= 1 and found[at].text == "(" and found[at - 1].kind == "word":
        at -= 1 if found[at - 1].text.lower() == "in" else 2
    if at < 0:
        return ""
    word = found[at].text.lower()
    if word == "password":
        return word
    if word in ("=", "=>", ":=", "in", "to", "like", "ilike"):
        at -= 1
        while at >= 0 and found[at].text in ("!", "<", ">", ")", "not"):
            at -= 1
        return _name(found[at]) if at >= 0 else ""
    after = i + 1
    while after + 1 < len(found) and found[after].text == "::":
        after += 2
    if after + 1 < len(found) and found[after].text == "=":
        dotted = after + 2 < len(found) and found[after + 2].text == "."
        return _name(found[after + 3 if dotted and after + 3 < len(found) else after + 1])
    return ""


def _set_config(found: Sequence[Token], i: int) -> str:
    before = [token.text.lower() for token in found[max(0, i - 4) : i]]
    if len(before) == 4 and before[0] == "set_config" and before[1] == "(" and before[3] == ",":  # noqa: PLR2004 - set_config ( name ,
        return (unquoted(before[2]) or "").rpartition(".")[2]
    return ""


def _name(token: Token) -> str:
    return token.text.strip('"') if token.kind in ("word", "quoted") else ""


def _of_insert(found: Sequence[Token]) -> Iterator[tuple[int, str]]:
    """`INSERT INTO t (a, b) VALUES ($1, $2), …`, or `SELECT $1, $2`."""
    words = [token.text.lower() for token in found]
    for start in [i for i in range(len(words) - 1) if words[i : i + 2] == ["insert", "into"]]:
        opened = next((i for i in range(start + 2, min(start + 8, len(words))) if words[i] == "("), None)
        if opened is None or ")" not in words[opened:]:
            continue
        closed = words.index(")", opened)
        columns = [_name(token) for token in found[opened + 1 : closed] if token.text != ","]
        depth, at = 0, 0
        listed = False
        for i in range(closed + 1, len(words)):
            if not depth and words[i] in _ENDS_A_LIST:
                break
            if words[i] in ("values", "select") and not depth:
                listed, at, inner = True, 0, int(words[i] == "values")
                continue
            if not listed:
                continue
            if words[i] in "([":
                at = 0 if depth == 0 and inner else at
                depth += 1
            elif words[i] in ")]":
                depth -= 1
            elif words[i] == "," and depth == inner:
                at += 1
            elif found[i].kind in _VALUES and at < len(columns) and depth <= inner + 1:
                # `crypt('…', gen_salt('bf'))`: what is deeper is no value of the column.
                yield i, columns[at]


def _elements(text: str) -> list[str] | None:
    """The elements of an array as they are written; None when it is none."""
    if len(text) < 2 or text[0] != "{" or text[-1] != "}":  # noqa: PLR2004 - its braces
        return None
    elements, start, depth, quoted, at = [], 1, 0, False, 1
    while at < len(text) - 1:
        sign = text[at]
        if sign == "\\":
            at += 1
        elif sign == '"':
            quoted = not quoted
        elif not quoted:
            depth += (sign == "{") - (sign == "}")
            if sign == "," and not depth:
                elements.append(text[start:at])
                start = at + 1
        at += 1
    last = text[start:-1]
    return [*elements, last] if elements or last else []


def _json(text: str) -> Any:
    if text[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _small(inside: Any) -> Any:
    if isinstance(inside, dict):
        return {key: _small(value) for key, value in inside.items()}
    if isinstance(inside, list):
        return [_small(value) for value in inside[:3]]
    return inside[:20] if isinstance(inside, str) else inside


def _entropy(text: str) -> float:
    """Bits for each character."""
    counts = Counter(text).values()
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts)
