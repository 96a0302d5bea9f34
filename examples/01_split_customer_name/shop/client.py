"""Calls an ASGI app without a server, so that tests need no port and no HTTP client."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message


@dataclass(frozen=True)
class Answer:
    """What the app answered."""

    status: int
    headers: dict[str, str]
    body: Any


def call(app: ASGIApp, method: str, target: str, body: Any = None) -> Answer:
    """Send one request and wait for its answer."""
    parts = urlsplit(target)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": parts.path,
        "raw_path": parts.path.encode(),
        "root_path": "",
        "query_string": parts.query.encode(),
        "headers": [(b"host", b"shop"), (b"content-type", b"application/json")],
    }
    sent = b"" if body is None else json.dumps(body).encode()
    received: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": sent, "more_body": False}

    async def send(message: Message) -> None:
        received.append(message)

    asyncio.run(app(scope, receive, send))
    start = next(message for message in received if message["type"] == "http.response.start")
    content = b"".join(m.get("body", b"") for m in received if m["type"] == "http.response.body")
    headers = {key.decode().lower(): value.decode() for key, value in start["headers"]}
    is_json = headers.get("content-type", "").startswith("application/json")
    return Answer(start["status"], headers, json.loads(content) if is_json else content.decode())
