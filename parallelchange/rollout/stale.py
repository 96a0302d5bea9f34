"""What differs between what evidence was measured on and what is there now, in words. Pure."""

from __future__ import annotations

import string
from pathlib import Path

from parallelchange.model import Evidence, EvidenceKey, Place
from parallelchange.plan import Plan
from parallelchange.rollout.observe import ALL_VERSIONS, Observation

__all__ = ["differences", "shortened"]

_DIGITS = 12
_SHOWN = 5
_LONGEST = 120


def shortened(value: str) -> str:
    """A digest in a message: enough of it to tell it from another."""
    head, colon, tail = value.rpartition(":")
    hexadecimal = len(tail) > 2 * _DIGITS and set(tail) <= set(string.hexdigits)
    return f"{head}{colon}{tail[:_DIGITS]}…" if hexadecimal else value


def differences(
    plan: Plan, obs: Observation, found: Evidence, wanted: EvidenceKey, *, rehearsed: str | None
) -> list[str]:
    """What evidence was measured on and is no longer so.

    Args:
        plan: The plan.
        obs: What is there now.
        found: The evidence.
        wanted: What it would have to be measured on.
        rehearsed: The run of the newest rehearsal that went through a schema like the live one.
    """
    key, told = found.key, []
    if key.plan != wanted.plan:
        told.append(f"the plan ({_both(key.plan, wanted.plan, 'is to be carried out')})")
    version = next((v for v in plan.change.versions if v.name == key.version), None)
    files = (
        ("the recorded statements", version and version.statements, key.statements, wanted.statements),
        ("the OpenAPI document", version and version.openapi, key.spec, wanted.spec),
    )
    for what, path, was, now in files:
        if was != now:
            place = f"{_relative(path, plan)}: " if path else ""
            told.append(f"{what} of {key.version} ({place}{_both(was, now or 'none', 'is there')})")
    # A version of which nothing runs has no live build to differ from, unless the change file tells its build.
    told_of = wanted.build or obs.ready.get(wanted.version) != 0
    if wanted.version != ALL_VERSIONS and told_of and key.build != wanted.build:
        digest = "the image digest" if "sha256:" in key.build + wanted.build else "the build"
        told.append(f"{digest} of {key.version} ({_both(key.build, wanted.build, 'runs')})")
    # A copy goes through states the live schema is not in: all of one run counts, if it began with the live one.
    copied = key.place is Place.COPY
    if found.run != rehearsed if copied else key.fingerprint != wanted.fingerprint:
        told.append(_schema(obs, found, rehearsed))
    if key.incarnation != wanted.incarnation:
        told.append("the expanded columns, which another expand has made")
    return told


def _both(was: str, now: str, is_: str) -> str:
    return f"{shortened(was) or 'none'} was measured, {shortened(now) or 'nothing that could be told'} {is_}"


def _relative(path: Path, plan: Plan) -> str:
    folder = plan.change.path.parent
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def _schema(obs: Observation, found: Evidence, rehearsed: str | None) -> str:
    """The objects that differ, where they are known; for a copy, from what it was when it was like the live one."""
    was = found.key.fingerprint
    if found.key.place is Place.COPY:
        same_run = (e.key.fingerprint for e in (found, *obs.evidence) if e.run == found.run and e.state is obs.state)
        was = next(same_run, obs.fingerprint)
        if was == obs.fingerprint:
            why = "another rehearsal is the newest" if rehearsed else "that rehearsal has no verdict of its own"
            return f"the schema: of one like the live one, {why}"
    elif found.state is not obs.state:
        return f"the schema, which was {found.state} then and is {obs.state} now"
    lines = obs.schema_changes.get(was, ())
    if not lines:
        return f"the schema ({_both(was, obs.fingerprint, 'is live')})"
    # Whoever makes an object makes its privileges as well: what it is says more.
    ordered = sorted(lines, key=lambda line: line[2:].startswith("access to "))
    shown = [" ".join(line.split())[:_LONGEST] for line in ordered[:_SHOWN]]
    more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return f"the schema: {', '.join(shown)}{more}"
