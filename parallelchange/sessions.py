"""Database sessions, and whose each is. Nothing here performs I/O.

A session is told by what the server shows of it: its application_name, which a session may change, and the role it
logged in as and the address it came from, which it cannot. Its search_path is not shown to others.
"""

from __future__ import annotations

import fnmatch
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "CLIENT_BACKEND",
    "WALSENDER",
    "Client",
    "Connected",
    "Identity",
    "Owner",
    "Prepared",
    "Session",
    "can_be_told",
    "describe",
    "problem_of",
    "sessions_of",
    "whose",
]

CLIENT_BACKEND, WALSENDER = "client backend", "walsender"


@dataclass(frozen=True)
class Session:
    """One session on the database, as the server shows it to our role.

    Args:
        pid: Its process.
        application_name: What it calls itself now; it may have changed that.
        role: The role it logged in as.
        address: Where it came from; None for a local socket, or where our role may not see it.
        since: When it began, as `HH:MM:SS`; empty where our role may not see it.
        kind: `client backend`, `walsender` or a background worker's own; None where our role may not see it.
        state: `idle`, `active`, `idle in transaction`, …; empty where our role may not see it.
        ours: Whether our own role opened it under the toolkit's own name.
    """

    pid: int
    application_name: str
    role: str
    address: str | None = None
    since: str = ""
    kind: str | None = CLIENT_BACKEND
    state: str = ""
    ours: bool = False


@dataclass(frozen=True)
class Prepared:
    """One prepared transaction of the database: whoever prepared it may commit it without a session.

    Args:
        gid: Its name.
        owner: The role that prepared it.
        age: Seconds since then.
    """

    gid: str
    owner: str
    age: float


@dataclass(frozen=True)
class Connected:
    """All that is connected to the database, or may write to it without being so.

    Args:
        sessions: Its sessions; parallel workers are left out, as they are counted with their leader.
        prepared: Its prepared transactions.
        replays: Logical slots and subscriptions, described: they carry what was written in the old shape.
    """

    sessions: tuple[Session, ...]
    prepared: tuple[Prepared, ...] = ()
    replays: tuple[str, ...] = ()


@dataclass(frozen=True)
class Identity:
    """By what the sessions of an app version are told.

    Args:
        version: Its name.
        application_name: What its sessions call themselves; None when it is not declared.
        role: The role they log in as; None when it is not declared.
    """

    version: str
    application_name: str | None
    role: str | None


@dataclass(frozen=True)
class Client:
    """Sessions that are neither version's and may be there all the same. All that is given must fit.

    Args:
        application_name: Their name; `*` stands for any text. None for any.
        role: Their role; None for any.
        address: The network they come from; None for any.
    """

    application_name: str | None = None
    role: str | None = None
    address: str | None = None

    def allows(self, session: Session) -> bool:
        """Whether the session is one of them; what cannot be seen does not fit."""
        named = self.application_name is None or _fits(self.application_name, session.application_name)
        return named and self.role in (None, session.role) and self._comes_from(session.address)

    def _comes_from(self, address: str | None) -> bool:
        if self.address is None:
            return True
        if address is None:
            return False
        return ipaddress.ip_address(address.partition("/")[0]) in ipaddress.ip_network(self.address)


def problem_of(client: Client, versions: Iterable[Identity]) -> str:
    """Why such sessions may not be let in: they could be a version's, or anybody's; empty when they may."""
    name = client.application_name
    if client == Client():
        return "it names nothing"
    if name is not None and not name.strip("* "):
        return f"{name!r} would let in whoever comes"
    for version in versions:
        own = version.application_name
        if own is not None and name is not None and _fits(name, own):
            return f"{name!r} is also the application_name of {version.version}"
        if version.role is not None and client.role == version.role:
            return f"{client.role} is the role of {version.version}"
    return _problem_of_address(client.address) if client.address is not None else ""


def _problem_of_address(address: str) -> str:
    try:
        wide = ipaddress.ip_network(address).prefixlen == 0
    except ValueError as error:
        return f"{address!r} is no network: {error}"
    return f"{address!r} would let in whoever comes" if wide else ""


def _fits(pattern: str, name: str) -> bool:
    # Of fnmatch's signs the star alone is one here.
    escaped = "".join(f"[{sign}]" if sign in "?[" else sign for sign in pattern)
    return fnmatch.fnmatchcase(name, escaped)


class Owner(StrEnum):
    """Whose a session is."""

    VERSION = "version"  # one of the two versions'
    OURS = "ours"  # the toolkit's
    CLIENT = "client"  # one the change file allows
    STRANGER = "stranger"  # nobody's: it may be a third version
    UNTOLD = "untold"  # it cannot be told


def whose(session: Session, versions: Sequence[Identity], clients: Iterable[Client]) -> tuple[Owner, str]:
    """Whose a session is, and the version's name where it is a version's.

    Args:
        session: The session.
        versions: The versions of the change.
        clients: What the change file allows besides.
    """
    for version in versions:
        if version.application_name == session.application_name:
            # Under the version's name and another role than the declared one: what is proven of it is not of this.
            fits = version.role in (None, session.role)
            return (Owner.VERSION, version.version) if fits else (Owner.STRANGER, "")
    if session.ours:
        return Owner.OURS, ""
    of_role = [v.version for v in versions if v.application_name is None and v.role == session.role]
    if of_role:
        return (Owner.VERSION, of_role[0]) if len(of_role) == 1 else (Owner.UNTOLD, "")
    if any(client.allows(session) for client in clients):
        return Owner.CLIENT, ""
    nameless = any(v.application_name is None and v.role is None for v in versions)
    # Where our role may not see what it is, it may be a background worker as well as a third version.
    return (Owner.UNTOLD if nameless or session.kind is None else Owner.STRANGER), ""


def _own_role(version: Identity, other: Identity) -> str | None:
    """The role by which its sessions are told from the other version's."""
    return version.role if version.role != other.role else None


def can_be_told(version: Identity, other: Identity) -> bool:
    """Whether sessions of a version can be told from those of the other one."""
    return version.application_name is not None or _own_role(version, other) is not None


def sessions_of(version: Identity, other: Identity, connected: Connected) -> tuple[Session, ...]:
    """Sessions that are a version's by their name or by their role: in doubt they are.

    A session that has taken another name since is still found where the version has a role of its own.
    """
    role = _own_role(version, other)
    return tuple(
        session
        for session in connected.sessions
        if session.application_name == version.application_name or (role == session.role and not session.ours)
    )


def describe(session: Session) -> str:
    """The session in words, for messages."""
    name = f"application_name {session.application_name}" if session.application_name else "without application_name"
    parts = [f"pid {session.pid}", name, f"role {session.role}", f"from {session.address or 'local'}"]
    if session.kind is None:
        parts[-1] = "from where our role may not see"
    parts += [session.state] if session.state else []
    parts += [f"since {session.since}"] if session.since else []
    return ", ".join(parts)
