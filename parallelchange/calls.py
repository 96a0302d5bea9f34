"""How often the server has run the old version's statements, and whether that stands still. Pure.

The server counts statements by what they mean and keeps the text in which each came first; a recorded one is found by
its text, in a form in which literals, parameters, case and white space do not differ. That form may take two
statements for one, and so see calls that were not the old version's. And one that came first in other words, such as
under another alias, is not found: how many were never counted is told, and that they stand still is never enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from parallelchange.sqltext import tokens

__all__ = ["Counts", "Stillness", "canonical", "next_sample", "only_in", "stillness"]

_CONSTANTS = frozenset({"true", "false", "null"})
_VALUE = "?"


def canonical(sql: str) -> str:
    """A statement's text as it is compared: values and lists of values as `?`, words in lower case, no white space.

    The server's text has `$1` for a value and for `TRUE` and `NULL` too, takes the sign of a number into it, and may
    shorten a list to its first value. Rows that follow one another and are written alike are one.
    """
    found: list[str] = []
    opened: list[int] = []
    for token in tokens(sql):
        text = token.text.lower() if token.kind == "word" else token.text
        if token.kind in ("string", "number", "parameter") or text in _CONSTANTS:
            while found and found[-1] in ("-", "+"):
                found.pop()
            if found[-2:] == [_VALUE, ","]:
                found.pop()  # a list of values is as one
            else:
                found.append(_VALUE)
        elif text != ";":
            found.append(text)
            if text == "(":
                opened.append(len(found) - 1)
            elif text == ")" and opened:
                _join_rows(found, opened.pop())
    return " ".join(found)


def _join_rows(found: list[str], start: int) -> None:
    """Rows that are written alike, as an INSERT has any number of, are as one."""
    row, before = found[start:], start - 1
    if before > 0 and found[before] == "," and found[before - len(row) : before] == row:
        del found[before:]


def only_in(old: Iterable[str], new: Iterable[str]) -> frozenset[str]:
    """Statements of the old version that the new one does not send, in canonical form."""
    return frozenset(map(canonical, old)) - frozenset(map(canonical, new))


@dataclass(frozen=True)
class Counts:
    """What the server has counted so far.

    Args:
        calls: Per statement in canonical form and role that ran it: the calls.
        reset: When counting began anew.
        evicted: How often the server has made room by forgetting statements.
        hidden: Statements of this database whose text our role may not see, or the server has lost.
        blind: Why the figures say nothing; empty when they do.
    """

    calls: Mapping[str, Mapping[str, int]]
    reset: str = ""
    evicted: int = 0
    hidden: int = 0
    blind: str = ""


@dataclass(frozen=True)
class Stillness:
    """Whether the old version's statements stand still.

    Args:
        watched: Statements of the old version alone; None when nothing can be counted here.
        why: Why nothing can be counted, or why what was counted proves nothing.
        seconds: For how long they are known to have stood still; None when that cannot be told.
        grew: What has been called since the last look, described.
        matched: How many of the watched the server has counted at least once.
    """

    watched: int | None
    why: str = ""
    seconds: float | None = None
    grew: tuple[str, ...] = ()
    matched: int = 0

    def restless(self, drain: float) -> bool:
        """Whether they may yet come to stand still for that many seconds, by waiting alone."""
        return self.watched is not None and not self.why and (self.seconds is None or self.seconds < drain)


def stillness(
    watched: frozenset[str], counts: Counts, sample: Mapping[str, Any] | None, *, now: float, since: float | None
) -> Stillness:
    """Hold what is counted now against what was counted before.

    Args:
        watched: Statements of the old version alone.
        counts: As they are now.
        sample: What was kept of an earlier look; None when nothing was.
        now: The database's clock, seconds since the epoch.
        since: When the weight was set; a sample that was taken at another weight is none.
    """
    matched = sum(any(counts.calls.get(text, {}).values()) for text in watched)
    kept = _kept(sample, since)
    if counts.blind:
        # Somebody who stops the counting must not be taken for silence.
        return Stillness(len(watched) if kept else None, counts.blind)
    if counts.hidden:
        told = f"the text of {counts.hidden} counted statements cannot be seen by our role"
        return Stillness(len(watched), told)
    if kept is None:
        return Stillness(len(watched), seconds=0.0, matched=matched)
    lost = _lost(counts, kept)
    if lost:
        return Stillness(len(watched), lost, matched=matched)
    grew = tuple(
        f"{count - before} calls of `{_short(text)}` by role {role}"
        for text in sorted(watched)
        for role, count in sorted(counts.calls.get(text, {}).items())
        if count > (before := int(kept["calls"].get(text, {}).get(role, 0)))
    )
    stood = max(0.0, now - float(kept["at"]))
    return Stillness(len(watched), "", None if grew else stood, grew, matched)


def next_sample(
    watched: frozenset[str], counts: Counts, sample: Mapping[str, Any] | None, *, now: float, since: float | None
) -> dict[str, Any] | None:
    """What to keep from now on; None while what was kept still holds: its age is how long the calls have stood still.

    Args:
        watched: As for `stillness`.
        counts: As for `stillness`.
        sample: As for `stillness`.
        now: As for `stillness`.
        since: As for `stillness`.
    """
    told = stillness(watched, counts, sample, now=now, since=since)
    kept = _kept(sample, since)
    if counts.blind or counts.hidden or since is None:
        return None
    if kept is not None and not told.grew and not told.why:
        return None
    return {
        "at": now,
        "since": since,
        "reset": counts.reset,
        "evicted": counts.evicted,
        "calls": {text: dict(counts.calls[text]) for text in sorted(watched) if text in counts.calls},
    }


def _kept(sample: Mapping[str, Any] | None, since: float | None) -> Mapping[str, Any] | None:
    return sample if sample is not None and since is not None and float(sample["since"]) == since else None


def _lost(counts: Counts, kept: Mapping[str, Any]) -> str:
    """Why figures of before and of now are not of one count."""
    if counts.reset != kept["reset"]:
        return "the server's counts were reset since they were first looked at"
    if counts.evicted > int(kept["evicted"]):
        return "the server has forgotten statements since they were first looked at (raise pg_stat_statements.max)"
    for text, of in kept["calls"].items():
        if any(counts.calls.get(text, {}).get(role, 0) < int(count) for role, count in of.items()):
            return f"the count of `{_short(text)}` was reset since it was first looked at"
    return ""


def _short(text: str, most: int = 80) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
