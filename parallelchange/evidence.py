"""Evidence as text: its canonical form, the chain its rows are linked by, and the file it is carried in. Pure.

A row's text is canonical JSON, all of it ASCII, so that its sha256 is the same in Python and in any server. It begins
with what the row is looked up by, which lets a server compare its columns with the text and read no JSON.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from parallelchange.gates import ON_COPY
from parallelchange.model import Evidence, EvidenceKey, Finding, GateResult, Place, Severity, State, Verdict, to_json

__all__ = [
    "ALL_VERSIONS",
    "FORMAT",
    "SKEW",
    "EvidenceFile",
    "Signature",
    "about",
    "body",
    "canonical",
    "describe",
    "from_body",
    "genesis",
    "link",
    "micros",
    "read_file",
    "refusal",
    "supersedes",
    "write_file",
]

FORMAT = 1
"""Format of the file."""
ALL_VERSIONS = "*"
"""The version of evidence that speaks of the data and of no version."""
SKEW = 5.0
"""Seconds by which another machine's clock may be ahead."""
_DEEPEST = 20
_LATEST = 2**53
_KEY_PARTS = ("change", "build", "fingerprint", "statements", "plan", "spec", "incarnation")
_ITEM = {*_KEY_PARTS, "about", "at", "verdict", "findings", "measured", "run", "source"}
_HEAD = {"format", "change", "plan", "written", "evidence", "sha256"}
_FINDING = {"id", "severity", "message", "where", "remedy"}
_STATES = (State.BASE, State.EXPANDED, State.CONTRACTED)


@dataclass(frozen=True)
class Signature:
    """Who vouches for a file.

    Args:
        key: Id of the Ed25519 key.
        value: The signature over the file's canonical bytes, in base64.
    """

    key: str
    value: str


@dataclass(frozen=True)
class EvidenceFile:
    """Evidence that is carried from one ledger to another.

    Args:
        change: The change's name.
        plan: Digest of the plan.
        by: The tool that wrote it.
        at: When, seconds since the epoch by the database's clock.
        items: The evidence.
        signature: Who vouches for it; None when nobody does.
    """

    change: str
    plan: str
    by: str
    at: float
    items: tuple[Evidence, ...]
    signature: Signature | None = None

    @property
    def payload(self) -> bytes:
        """The canonical bytes that are hashed and signed."""
        document = {
            "format": FORMAT,
            "change": self.change,
            "plan": self.plan,
            "written": {"by": self.by, "at": self.at},
            "evidence": [_document(item) for item in self.items],
        }
        return canonical(document).encode()

    @property
    def sha256(self) -> str:
        """sha256 over the payload."""
        return hashlib.sha256(self.payload).hexdigest()


def canonical(value: Any) -> str:
    """JSON in the one form that is hashed: keys sorted, no white space, ASCII.

    Raises:
        ValueError: It holds an infinite number or none at all.
    """
    return json.dumps(to_json(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def micros(seconds: float) -> int:
    """Seconds since the epoch in microseconds: every JSON reader and every server writes a whole number the same."""
    return round(seconds * 1e6)


def about(item: Evidence) -> str:
    """What a row is looked up by."""
    key = item.key
    return canonical([key.gate, key.version, item.state, key.place])


def describe(item: Evidence) -> str:
    """What it is evidence of, in words: `prepare of shop-v1, expanded on a copy`."""
    key = item.key
    whose = "the data" if key.version == ALL_VERSIONS else key.version
    return f"{key.gate} of {whose}, {item.state}{' on a copy' if key.place is Place.COPY else ''}"


def _document(item: Evidence) -> dict[str, Any]:
    key, result = item.key, item.result
    return {
        **{part: getattr(key, part) for part in _KEY_PARTS},
        "about": [key.gate, key.version, item.state, key.place],
        "at": micros(item.measured_at),
        "verdict": result.verdict,
        "findings": to_json(result.findings),
        "measured": to_json(result.measured),
        "run": item.run,
        "source": item.source,
    }


def body(item: Evidence) -> str:
    """The text of a row: everything about it."""
    return canonical(_document(item))


def from_body(text: str) -> Evidence:
    """Read the text of a row.

    Raises:
        ValueError: It is not what `body` writes.
    """
    return _item(_parse(text))


def genesis(change: str) -> str:
    """What the first row of a change follows."""
    return hashlib.sha256(f"parallelchange evidence of {change}".encode()).hexdigest()


def link(previous: str, text: str) -> str:
    """Hash of a row that follows another."""
    return hashlib.sha256((previous + text).encode()).hexdigest()


def supersedes(item: Evidence, known: Evidence | None) -> bool:
    """Whether imported evidence is surely newer than what is known of the same thing."""
    if known is None:
        return True
    # A refusal that was seen here is not outdone by a pass whose clock may be ahead.
    margin = 0.0 if known.result.verdict is Verdict.PASS else SKEW
    return item.measured_at > known.measured_at + margin


def write_file(file: EvidenceFile) -> str:
    """The file's text: one line for each item."""
    head = {"format": FORMAT, "change": file.change, "plan": file.plan, "written": {"by": file.by, "at": file.at}}
    items = ",\n".join(body(item) for item in file.items)
    text = f'{json.dumps(head, indent=1)[:-2]},\n "evidence": [\n{items}\n ],\n "sha256": "{file.sha256}"'
    if file.signature:
        signed = canonical({"key": file.signature.key, "ed25519": file.signature.value})
        text += f',\n "signature": {signed}'
    return text + "\n}\n"


def read_file(text: str) -> EvidenceFile:
    """Read what `write_file` wrote, and nothing else. Whose signature it is remains to be checked.

    Raises:
        ValueError: It is not of that format, was changed, or says what evidence cannot say.
    """
    raw = _plain(_parse(text))
    _keys(raw, {*_HEAD, "signature"} if isinstance(raw, dict) and "signature" in raw else _HEAD, "the file")
    if type(raw["format"]) is not int or raw["format"] != FORMAT:
        raise ValueError(f"is of format {str(raw['format'])[:20]!r}, and {FORMAT} can be read")
    _keys(raw["written"], {"by", "at"}, "`written`")
    at = raw["written"]["at"]
    if type(at) not in (int, float) or not 0 <= at < _LATEST:
        raise ValueError("`written.at` is no time")
    if not isinstance(raw["evidence"], list):
        raise ValueError("`evidence` is no list")  # noqa: TRY004 - whatever is wrong with a file is one kind of error
    file = EvidenceFile(
        _text(raw["change"], "`change`"),
        _text(raw["plan"], "`plan`"),
        _text(raw["written"]["by"], "`written.by`"),
        at,
        tuple(_carried(item, raw) for item in raw["evidence"]),
        _signature(raw["signature"]) if "signature" in raw else None,
    )
    seen: set[str] = set()
    for item in file.items:
        if about(item) in seen:
            raise ValueError(f"tells twice of {describe(item)}")
        seen.add(about(item))
    if not file.items:
        raise ValueError("holds no evidence")
    if _text(raw["sha256"], "`sha256`") != file.sha256:
        raise ValueError("was changed: its sha256 is not that of what it holds")
    return file


def refusal(file: EvidenceFile, plan: str, versions: Sequence[str], now: float, max_age: float) -> tuple[str, str]:
    """Why a file's evidence cannot count for a plan, and what to do; two empty strings when it may.

    Args:
        file: The file, read.
        plan: Digest of the plan that is to be carried out.
        versions: Names of the change's versions.
        now: The database's clock, seconds since the epoch.
        max_age: Seconds after which evidence is stale.
    """
    again = "rehearse again: `parallelchange rehearse --evidence FILE`"
    if file.plan != plan:
        return f"is of another plan ({file.plan[:12]}…, and {plan[:12]}… is to be carried out)", again
    for item in file.items:
        if item.key.version not in (*versions, ALL_VERSIONS):
            return f"speaks of {item.key.version!r}, which is no version of the change", again
        if item.measured_at > now + SKEW:
            ahead = item.measured_at - now
            return f"{describe(item)} is from the future, by {ahead:.0f} s", "set the clocks of both databases"
        age = now - item.measured_at
        if age > max_age:
            return f"{describe(item)} was measured {age:.0f} s ago, and counts for {max_age:.0f} s", again
    return "", ""


def _parse(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("is nested too deep") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON: {error}") from None


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"has the key {key[:40]!r} twice")
        found[key] = value
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"holds {name}, which is no number")


def _keys(raw: Any, wanted: set[str], what: str) -> None:
    if not isinstance(raw, dict):
        raise ValueError(f"{what} is no object")  # noqa: TRY004 - whatever is wrong with a file is one kind of error
    odd = sorted(wanted ^ set(raw))
    if odd:
        raise ValueError(f"{what} {'lacks' if odd[0] in wanted else 'has the unknown key'} {odd[0][:40]!r}")


def _text(raw: Any, what: str) -> str:
    if not isinstance(raw, str):
        raise ValueError(f"{what} is no text")  # noqa: TRY004 - whatever is wrong with a file is one kind of error
    return raw


def _plain(raw: Any, depth: int = 0) -> Any:
    """A value that can be written and shown: not too deep, and no half of a surrogate pair in it."""
    if depth > _DEEPEST:
        raise ValueError("is nested too deep")
    if isinstance(raw, dict):
        return {_plain(key): _plain(value, depth + 1) for key, value in raw.items()}
    if isinstance(raw, list):
        return [_plain(value, depth + 1) for value in raw]
    if isinstance(raw, str):
        raw.encode()
    return raw


def _item(raw: Any) -> Evidence:
    _keys(raw, _ITEM, "an item")
    if not isinstance(raw["about"], list) or len(raw["about"]) != len(("gate", "version", "state", "place")):
        raise ValueError("an item's `about` is not gate, version, state and place")
    gate, version, state, place = (_text(part, "`about`") for part in raw["about"])
    if type(raw["at"]) is not int or not 0 <= raw["at"] < _LATEST:
        raise ValueError("`at` is no time")
    if not isinstance(raw["findings"], list) or not isinstance(raw["measured"], dict):
        raise ValueError("an item's findings or figures are not as they are written")  # noqa: TRY004 - as above
    verdict, findings = Verdict(_text(raw["verdict"], "`verdict`")), tuple(map(_finding, raw["findings"]))
    result = GateResult(gate, verdict, findings, None if version == ALL_VERSIONS else version, raw["measured"])
    parts = {part: _text(raw[part], f"`{part}`") for part in _KEY_PARTS}
    key = EvidenceKey(version=version, gate=gate, place=Place(place), **parts)
    run, source = _text(raw["run"], "`run`"), _text(raw["source"], "`source`")
    return Evidence(key, result, raw["at"] / 1e6, run, State(state), source)


def _finding(raw: Any) -> Finding:
    _keys(raw, _FINDING, "a finding")
    told = {name: _text(raw[name], f"`{name}`") for name in _FINDING}
    return Finding(told["id"], Severity(told["severity"]), told["message"], told["where"], told["remedy"])


def _carried(raw: Any, file: Mapping[str, Any]) -> Evidence:
    """An item that may be carried to another ledger."""
    item = _item(raw)
    what = describe(item)
    if item.key.place is not Place.COPY:
        raise ValueError(f"{what} was measured on a live database, and speaks of that one only")
    if item.source or item.key.gate not in ON_COPY or item.state not in _STATES or item.key.incarnation:
        raise ValueError(f"{what} is nothing that a rehearsal measures")
    if (item.key.version == ALL_VERSIONS) != (item.key.gate == "rehearsal") or not item.run:
        raise ValueError(f"{what} is nothing that a rehearsal measures")
    if (item.key.change, item.key.plan) != (file["change"], file["plan"]):
        raise ValueError(f"{what} is of another change or plan than the file")
    errors = [finding for finding in item.result.findings if finding.severity is Severity.ERROR]
    if errors and item.result.verdict is Verdict.PASS:
        raise ValueError(f"{what} says pass, and yet {errors[0].id[:60]!r} is an error")
    return item


def _signature(raw: Any) -> Signature:
    _keys(raw, {"key", "ed25519"}, "`signature`")
    return Signature(_text(raw["key"], "`key`"), _text(raw["ed25519"], "`ed25519`"))
