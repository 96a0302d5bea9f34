"""Asking a Prometheus server, or what speaks as one, a question of one moment."""

from __future__ import annotations

import base64
import http.client
import json
import math
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from parallelchange.errors import Unavailable, UsageError

__all__ = ["TOKEN", "Client", "Point"]

TOKEN = "PARALLELCHANGE_PROMETHEUS_TOKEN"  # noqa: S105 - the variable's name
"""Environment variable with a bearer token, or with `user:password`; no bearer token has a colon."""

_LARGEST = 16 << 20
_CHUNK = 1 << 16
_TOLD = 300


@dataclass(frozen=True)
class Point:
    """One series of an answer.

    Args:
        labels: Its labels.
        time: When it was evaluated, by the server's clock, seconds since the epoch.
        value: May be infinite or not a number.
    """

    labels: Mapping[str, str]
    time: float
    value: float


class _Stay(urllib.request.HTTPRedirectHandler):
    """A redirect leads to a login page, or takes the token to somebody else."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none."""


# A proxy from the environment is meant for the internet, not for a server in the cluster.
_OPENER = urllib.request.build_opener(_Stay, urllib.request.ProxyHandler({}))


class Client:
    """A client of the HTTP API.

    Args:
        url: Address of the server, with the prefix of its paths if it has one.
        timeout: Seconds for a whole answer.
        secret: Bearer token or `user:password`; None for what the environment has.

    Raises:
        UsageError: The address or the secret cannot be used.
    """

    def __init__(self, url: str, *, timeout: float = 10.0, secret: str | None = None) -> None:
        try:
            parts = urllib.parse.urlsplit(url)
            known = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            known = False
        if not known or parts.query or parts.fragment:
            raise UsageError(f"{_public(url)!r} is no address of a Prometheus", hint="http://host:port/prefix")
        if parts.username is not None:
            raise UsageError(
                f"the address of Prometheus {_public(url)} has a user's name in it",
                hint=f"take it out, and set {TOKEN} to user:password",
            )
        self.url, self.timeout = url.rstrip("/"), timeout
        self._headers = _authorization(os.environ.get(TOKEN, "") if secret is None else secret)

    def query(self, promql: str) -> list[Point]:
        """Evaluate an expression now.

        Returns:
            The series of the resulting vector; none when nothing matches.

        Raises:
            Unavailable: There is no answer in time, or not a whole one: a warning tells that something is missing.
        """
        form = urllib.parse.urlencode({"query": promql, "timeout": f"{self.timeout:g}s"}).encode()
        # A query is longer than an address may be.
        request = urllib.request.Request(f"{self.url}/api/v1/query", data=form, headers=self._headers, method="POST")  # noqa: S310 - the scheme was looked at
        try:
            text = self._fetch(request)
        except urllib.error.HTTPError as error:
            with error:
                body = error.read(_TOLD).decode(errors="replace").strip()
            raise self._unavailable(f"answers {error.code}: {body}") from error
        except (OSError, http.client.HTTPException) as error:
            raise self._unavailable(f"does not answer: {error}") from error
        try:
            document = json.loads(text)
        except ValueError as error:
            raise self._unavailable(f"does not answer with JSON: {text[:_TOLD].decode(errors='replace')}") from error
        try:
            return self._points(document)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._unavailable(f"answers in a way that it should not: {error!r}") from error

    def _fetch(self, request: urllib.request.Request) -> bytes:
        until = time.monotonic() + self.timeout
        text = bytearray()
        with _OPENER.open(request, timeout=self.timeout) as answer:
            if answer.status != http.client.OK:
                raise OSError(f"status {answer.status}")
            # The timeout of a socket is for each piece, and pieces can come for ever.
            while piece := answer.read1(_CHUNK):
                text += piece
                if len(text) > _LARGEST or time.monotonic() > until:
                    raise OSError(f"after {self.timeout:g} s the answer is not whole, or it is too large")
            if answer.length:
                raise OSError("the answer ends too early")
        return bytes(text)

    def _points(self, document: Any) -> list[Point]:
        if document["status"] != "success":
            raise self._unavailable(f"cannot tell: {document.get('error', 'no reason given')}")
        # What is in `infos` is about the query: that a counter's name does not end in `_total`, say.
        if warnings := document.get("warnings"):
            raise self._unavailable(f"tells a part only: {'; '.join(map(str, warnings))[:_TOLD]}")
        if document["data"]["resultType"] != "vector":
            raise self._unavailable(f"answers with a {document['data']['resultType']}")
        return [_point(each) for each in document["data"]["result"]]

    def _unavailable(self, what: str) -> Unavailable:
        return Unavailable(f"Prometheus at {self.url} {what}")


def _point(series: Any) -> Point:
    moment, value = series["value"]
    if not math.isfinite(moment):
        raise ValueError("a time that is none")
    return Point({str(key): str(each) for key, each in series["metric"].items()}, float(moment), float(value))


def _public(url: str) -> str:
    """The address without what may be a password."""
    return url.rsplit("@", 1)[-1]


def _authorization(secret: str) -> dict[str, str]:
    secret = secret.strip()
    if not secret:
        return {}
    if not (secret.isascii() and secret.isprintable()):
        # The message of the library that would find it out has the secret in it.
        raise UsageError(f"{TOKEN} has characters that cannot be sent", hint="look for line breaks in it")
    if ":" in secret:
        return {"Authorization": f"Basic {base64.b64encode(secret.encode()).decode()}"}
    return {"Authorization": f"Bearer {secret}"}
