"""Every error the toolkit raises on purpose.

::

    ParallelChangeError            exit 2
    ├── InvalidFile                exit 2   a change file, corpus or setting that cannot be used
    ├── UsageError                 exit 2   a command that makes no sense here
    ├── Blocked                    exit 1   a gate said fail or unknown
    ├── Refused                    exit 1   the act is not allowed in this state
    └── Unavailable                exit 3   something needed is missing or does not answer
        ├── Busy                   exit 3   a lock was not to be had in time; trying again may help
        ├── LockedMore             exit 3   looking took a stronger lock than it may: a fault of ours
        ├── Uncertain              exit 3   it is not known whether something was written
        ├── NotFound               exit 3   an object is surely not there
        ├── Denied                 exit 3   rights or credentials are missing
        ├── Gone                   exit 3   a watch must begin anew
        └── SchemaState            exit 3   the database is in no state this change knows
"""

from __future__ import annotations

from pathlib import Path

__all__ = [
    "Blocked",
    "Busy",
    "Denied",
    "Gone",
    "InvalidFile",
    "LockedMore",
    "NotFound",
    "ParallelChangeError",
    "Refused",
    "SchemaState",
    "Unavailable",
    "Uncertain",
    "UsageError",
]


class ParallelChangeError(Exception):
    """The root: what happened, and what to do next.

    Args:
        message: What happened and where, in one sentence.
        hint: What the reader can do about it.
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class InvalidFile(ParallelChangeError):
    """A file cannot be used as it stands.

    Args:
        message: What is wrong with it.
        path: The file.
        line: 1-based line, when it is known.
        hint: How to mend it.
    """

    def __init__(self, message: str, *, path: Path | str, line: int | None = None, hint: str | None = None) -> None:
        place = f"{path}:{line}" if line else str(path)
        super().__init__(f"{place}: {message}", hint=hint)
        self.path, self.line = path, line


class UsageError(ParallelChangeError):
    """The command makes no sense with these arguments or settings."""


class Blocked(ParallelChangeError):
    """A gate said fail or unknown."""

    exit_code = 1


class Refused(ParallelChangeError):
    """The act is not allowed in the state the change is in."""

    exit_code = 1


class Unavailable(ParallelChangeError):
    """Something this needs is not there or does not answer."""

    exit_code = 3


class Busy(Unavailable):
    """A lock was not to be had within its time limits; nothing was changed."""


class LockedMore(Unavailable):
    """A fault of ours: looking at a database that serves took a stronger lock than ACCESS SHARE."""


class Uncertain(Unavailable):
    """What was to be written may or may not be: nobody answered."""


class NotFound(Unavailable):
    """An object is surely not there."""


class Denied(Unavailable):
    """Rights are missing, or credentials are no longer good."""


class Gone(Unavailable):
    """What a watch would go on from is no longer kept."""


class SchemaState(Unavailable):
    """The database is in no state that this change knows, so nothing may be done to it."""
