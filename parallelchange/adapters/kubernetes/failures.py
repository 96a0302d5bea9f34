"""What the API server answers when it does not do as asked, as our errors: one sentence and a remedy each."""

from __future__ import annotations

import json

from parallelchange.errors import (
    Blocked,
    Busy,
    Denied,
    NotFound,
    ParallelChangeError,
    Unavailable,
    Uncertain,
)

__all__ = ["away", "first_line", "is_by_policy", "is_transient", "refused"]

UNAUTHORIZED = 401
_POLICY = "ValidatingAdmissionPolicy"
_TRANSIENT = frozenset({0, 429, 500, 502, 503, 504})
"""0 is what the client makes of a broken TLS connection: what became of the request is not known."""
_LASTING = "CERTIFICATE_VERIFY_FAILED"


def is_transient(error: BaseException) -> bool:
    """Whether asking again may help."""
    from urllib3.exceptions import HTTPError

    if getattr(error, "status", None) in _TRANSIENT:
        return _LASTING not in str(getattr(error, "reason", ""))
    return isinstance(error, HTTPError)


def is_by_policy(error: Exception) -> bool:
    """Whether a policy has refused it."""
    return _POLICY in _message(error)


def away(cluster: str, method: str, what: str, told: str) -> Unavailable:
    """The API server does not answer; whether a write went through is then not known.

    Args:
        cluster: Its name, for messages.
        method: HTTP method in small letters.
        what: What was asked.
        told: What became of it.
    """
    message = f"{cluster}: the API server does not answer ({what}): {told}"
    if method == "get":
        return Unavailable(message, hint="see whether the cluster is up and the kubeconfig is right")
    return Uncertain(message, hint="run the same command again: it finds out whether it was written")


def refused(cluster: str, method: str, what: str, error: Exception) -> ParallelChangeError:
    """The API server answered with an error.

    Args:
        cluster: Its name, for messages.
        method: HTTP method in small letters.
        what: What was asked.
        error: The client's error, with a `status`.
    """
    status, message = getattr(error, "status", 0), _message(error)
    if status in _TRANSIENT:
        return away(cluster, method, what, message)
    if is_by_policy(error):
        return Blocked(f"{cluster}: {what} is refused: {message}", hint="see `parallelchange status`")
    match status:
        case 401:
            told = f"{cluster}: the API server does not accept the credentials ({what})"
            answer: ParallelChangeError = Denied(told, hint="they may have expired: log in again, or make a new token")
        case 403:
            told = f"{cluster}: may not {what}: {message}"
            answer = Denied(told, hint="grant it; `parallelchange doctor` shows all rights that are needed")
        case 404:
            answer = NotFound(f"{cluster}: {what}: there is none", hint="`kubectl get` shows what there is")
        case 409:
            told = f"{what}: it changed since it was read, or is there already"
            answer = Busy(told, hint="run the same command again")
        case _:
            answer = Unavailable(f"{cluster}: {what}: {status} {message}", hint="see the API server's answer")
    return answer


def _message(error: Exception) -> str:
    """What the API server says of it."""
    body = getattr(error, "body", None)
    try:
        told = json.loads(body)["message"] if body else None
    except (ValueError, KeyError, TypeError):
        told = None
    return " ".join(str(told or getattr(error, "reason", None) or error).split())


def first_line(error: BaseException) -> str:
    """The first line of what an error says."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
