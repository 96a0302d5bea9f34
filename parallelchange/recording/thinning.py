"""Which units of work are worth keeping: no more readings than show something, writings up to a cap. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from parallelchange.corpus import Recorded, Unit
from parallelchange.sqltext import Kind, opening

__all__ = ["READINGS", "STEPS", "WRITINGS", "thin"]

READINGS = 4
"""Sets of values kept of a statement that is only read with."""
WRITINGS = 50
"""Units kept that send the same statements and end in the same way."""
STEPS = 20_000
"""Steps kept in all; beyond them only what was not seen before."""

_SETTINGS = frozenset({"set", "reset", "listen", "unlisten", "load"})
_NOT_OF_THE_SESSION = frozenset({"local", "transaction", "constraints"})
_TEMPORARY = frozenset({"temp", "temporary"})


def thin(units: Sequence[Unit], statements: Mapping[str, Recorded]) -> tuple[tuple[Unit, ...], Counter[str]]:
    """Leave out repeats.

    What a session sets or makes for itself stays as long as anything else of the session does.

    Args:
        units: In order, sessions by number.
        statements: By their ids.

    Returns:
        What is kept, sessions numbered anew from 1; and what went: reason to count of units.
    """
    cut: Counter[str] = Counter()
    own = [_of_the_session(unit, statements) for unit in units]
    kept = _kept(units, own, statements, cut)
    busy = {unit.session for unit, keep, for_itself in zip(units, kept, own, strict=True) if keep and not for_itself}
    seen: set[tuple[str, ...]] = set()
    for index, unit in enumerate(units):
        if own[index]:
            told = _signature(unit)
            kept[index] = unit.session in busy or told not in seen
            seen.add(told)
            cut["settings of sessions that show nothing new"] += not kept[index]
    numbers: dict[int, int] = {}
    renumbered = []
    for unit, keep in zip(units, kept, strict=True):
        if keep:
            numbers.setdefault(unit.session, len(numbers) + 1)
            renumbered.append(replace(unit, session=numbers[unit.session]))
    return tuple(renumbered), +cut


def _kept(
    units: Sequence[Unit], own: Sequence[bool], statements: Mapping[str, Recorded], cut: Counter[str]
) -> list[bool]:
    readings: dict[tuple[str, ...], set[tuple[str | None, ...]]] = defaultdict(set)
    writings: Counter[tuple[str, ...]] = Counter()
    settings: dict[int, tuple[str, ...]] = defaultdict(tuple)
    known: set[str] = set()
    kept, steps = [], 0
    for unit, for_itself in zip(units, own, strict=True):
        if for_itself:
            settings[unit.session] += _signature(unit)
            kept.append(True)
            continue
        new = any(step.statement not in known for step in unit.steps)
        if all(statements[step.statement].kind is Kind.READ for step in unit.steps):
            # The same text under another search_path is another statement.
            where = settings[unit.session]
            fresh = [
                (key, (step.sqlstate, *step.values))
                for step in unit.steps
                if len(readings[key := (*where, step.statement)]) < READINGS
                and (step.sqlstate, *step.values) not in readings[key]
            ]
            keep = bool(fresh)
            cut["repeated readings"] += not keep
        else:
            fresh = []
            writings[_signature(unit)] += 1
            keep = new or writings[_signature(unit)] <= WRITINGS
            cut[f"writing transactions beyond {WRITINGS} of one kind"] += not keep
        if keep and not new and steps + len(unit.steps) > STEPS:
            cut[f"transactions beyond {STEPS:,} statements sent"] += 1
            keep = False
        if keep:
            steps += len(unit.steps)
            known.update(step.statement for step in unit.steps)
            for key, values in fresh:
                readings[key].add(values)
        kept.append(keep)
    return kept


def _signature(unit: Unit) -> tuple[str, ...]:
    return (unit.end, *(part for step in unit.steps for part in (step.statement, step.sqlstate)))


def _of_the_session(unit: Unit, statements: Mapping[str, Recorded]) -> bool:
    """Whether all it does is set or make something for its own session."""
    return unit.end != "rollback" and all(_for_itself(statements[step.statement]) for step in unit.steps)


def _for_itself(statement: Recorded) -> bool:
    words = opening(statement.sql, 3)
    if statement.kind is not Kind.UTILITY:
        return words[:1] == ("select",) and "set_config" in statement.sql.lower()
    if words[:1] == ("create",):
        return not _TEMPORARY.isdisjoint(words[1:])
    return bool(words) and words[0] in _SETTINGS and _NOT_OF_THE_SESSION.isdisjoint(words[1:2])
