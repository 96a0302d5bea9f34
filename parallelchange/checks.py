"""One line of `doctor`: what was looked at, and what to do when it is not well. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from parallelchange.errors import ParallelChangeError
from parallelchange.model import Finding, Severity, Verdict

__all__ = ["Check", "Section"]


@dataclass(frozen=True)
class Check:
    """One line.

    Args:
        section: What part of the surroundings it is about.
        id: Stable name, `section.what`.
        what: What should hold, in words.
        verdict: Whether it does.
        severity: What it means when it does not: an error keeps a rollout from working, a warning does not.
        detail: What was found.
        remedy: What to do.
    """

    section: str
    id: str
    what: str
    verdict: Verdict
    severity: Severity = Severity.ERROR
    detail: str = ""
    remedy: str = ""

    @property
    def bad(self) -> bool:
        """Whether it keeps a rollout from working."""
        return self.verdict is not Verdict.PASS and self.severity is Severity.ERROR

    def finding(self) -> Finding:
        """As a finding of the JSON document."""
        message = f"{self.what}: {self.detail}" if self.detail else self.what
        return Finding(self.id, self.severity, message, self.section, self.remedy)


@dataclass(frozen=True)
class Section:
    """Makes the checks of one section.

    Args:
        name: Its title.
    """

    name: str

    def told(
        self, key: str, what: str, *, holds: bool | None, detail: str = "", remedy: str = "", warning: bool = False
    ) -> Check:
        """A check by what was found; None is unknown."""
        verdict = Verdict.UNKNOWN if holds is None else Verdict.PASS if holds else Verdict.FAIL
        severity = Severity.WARNING if warning else Severity.ERROR
        name = f"{self.name.split()[0]}.{key}"
        return Check(self.name, name, what, verdict, severity, detail, "" if holds else remedy)

    def tried(self, key: str, what: str, act: Callable[[], str], *, warning: bool = False) -> Check:
        """A check that holds when `act` raises nothing; `act` gives the detail, or else its error the remedy."""
        try:
            detail = act()
        except ParallelChangeError as error:
            return self.told(key, what, holds=False, detail=error.message, remedy=error.hint or "", warning=warning)
        return self.told(key, what, holds=True, detail=detail)
