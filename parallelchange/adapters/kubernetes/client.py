"""One namespace of a cluster: reading and writing objects, with every failure told in one sentence."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from parallelchange.adapters.kubernetes.failures import (
    UNAUTHORIZED,
    away,
    first_line,
    is_by_policy,
    is_transient,
    refused,
)
from parallelchange.adapters.kubernetes.kinds import Kind
from parallelchange.errors import Busy, Gone, NotFound, Unavailable, Uncertain, UsageError

__all__ = ["FIELD_MANAGER", "Cluster", "Object", "connect"]

Object = dict[str, Any]

FIELD_MANAGER = "parallelchange"
"""Under this name the API server keeps which fields are ours."""

_TIMEOUT = (3.05, 10.0)
"""Seconds to connect, and to wait for an answer."""
_PATIENCE = 30.0
"""Seconds for which an API server that is away is waited for."""
_DOUBTED = frozenset({403, 404})
"""What one that is just starting answers as well, to what is there and what is granted."""
_HIDDEN = 5.0
"""Seconds after which one that will not say whether it is ready counts as ready: it tells nobody."""
_IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def connect(
    *,
    kubeconfig: Path | None = None,
    context: str | None = None,
    namespace: str | None = None,
    patience: float = _PATIENCE,
) -> Cluster:
    """Open the cluster that settings name; inside one, by its ServiceAccount.

    Args:
        kubeconfig: The file; None for `KUBECONFIG` and its default.
        context: Its context; None for the current one.
        namespace: The namespace; None for the context's.
        patience: Seconds for which an API server that is away is waited for.

    Raises:
        UsageError: There is no such configuration.
    """
    if kubeconfig is None and context is None and not os.environ.get("KUBECONFIG") and _IN_CLUSTER.is_file():
        here = namespace or _IN_CLUSTER.read_text(encoding="utf-8").strip()
        return Cluster(_Connection(lambda: _client(None, None)), here, "this cluster", patience)
    file = str(kubeconfig) if kubeconfig else None
    name, its_namespace = _context(file, context)
    connection = _Connection(lambda: _client(file, name))
    return Cluster(connection, namespace or its_namespace, f"context {name}", patience)


def _context(file: str | None, context: str | None) -> tuple[str, str]:
    """Name and namespace of a context; of the current one where none is named."""
    from kubernetes.config import list_kube_config_contexts

    try:
        contexts, active = list_kube_config_contexts(config_file=file)
        found = {str(item["name"]): str(item["context"].get("namespace") or "default") for item in contexts}
        name = context or str(active["name"])
    except Exception as error:  # noqa: BLE001 - it fails in as many ways as a file can be wrong
        raise UsageError(
            f"no cluster is configured: {first_line(error)}",
            hint="set KUBECONFIG, or `kubeconfig` in parallelchange.toml",
        ) from None
    if name not in found:
        raise UsageError(f"there is no context {name}", hint=f"the kubeconfig has {', '.join(found) or 'none'}")
    return name, found[name]


def _client(file: str | None, context: str | None) -> Any:
    from kubernetes import client, config
    from kubernetes.dynamic import DynamicClient

    settings = client.Configuration()
    if context is None:
        config.load_incluster_config(client_configuration=settings)
    else:
        try:
            config.load_kube_config(config_file=file, context=context, client_configuration=settings)
        except Exception as error:  # noqa: BLE001 - it fails in as many ways as a file can be wrong
            told = f"context {context} cannot be used: {first_line(error)}"
            raise UsageError(told, hint="see the kubeconfig") from None
    settings.retries = False  # how long to wait is decided here, for all failures alike
    # Paths are built from `Kind`, so nothing is asked of the server before it is needed.
    return DynamicClient(client.ApiClient(settings), discoverer=lambda *_: None)


class _Connection:
    """A client that several threads share: the rollout, its Lease and its watches.

    Args:
        make: Makes a client; called again when credentials have expired.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._made: Any = None
        self._lock = threading.Lock()
        self.hidden_since: float | None = None

    def client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def close(self) -> None:
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made.client.rest_client.pool_manager.clear()


class Cluster:
    """One namespace of a cluster.

    Args:
        connection: The client.
        namespace: The namespace.
        name: How messages name the cluster.
        patience: Seconds for which an API server that is away is waited for.
    """

    def __init__(self, connection: _Connection, namespace: str, name: str, patience: float) -> None:
        self.namespace, self.name, self.patience = namespace, name, patience
        self._connection = connection

    def within(self, seconds: float) -> Cluster:
        """The same, for those who cannot wait as long."""
        return Cluster(self._connection, self.namespace, self.name, min(seconds, self.patience))

    def full(self, kind: Kind, name: str) -> str:
        """An object's full name, for messages."""
        return f"{kind.name} {self.namespace}/{name}" if kind.namespaced else f"{kind.name} {name}"

    def read(self, kind: Kind, name: str) -> Object:
        """Read an object.

        Raises:
            NotFound: It is not there.
            Denied: We may not.
            Unavailable: The API server does not answer.
        """
        return self.request("get", kind.path(self.namespace, name), f"get {self.full(kind, name)}")

    def find(self, kind: Kind, name: str) -> Object | None:
        """Read an object; None when it is surely not there."""
        try:
            return self.read(kind, name)
        except NotFound:
            return None

    def all(self, kind: Kind, selector: str | None = None) -> list[Object]:
        """All objects of a kind in the namespace."""
        return self.listing(kind, selector)[0]

    def listing(self, kind: Kind, selector: str | None = None) -> tuple[list[Object], str]:
        """All objects of a kind, and the version from which a watch would go on."""
        what = f"list {kind.resource} in {self.namespace}" if kind.namespaced else f"list {kind.resource}"
        found = self.request("get", kind.path(self.namespace), what, label_selector=selector)
        return list(found.get("items") or ()), str(found["metadata"].get("resourceVersion", ""))

    def create(self, kind: Kind, body: Object) -> Object:
        """Make an object.

        Raises:
            Busy: One of that name is there.
        """
        name = body["metadata"].get("name") or body["metadata"]["generateName"]
        return self.request(
            "post",
            kind.path(self.namespace),
            f"create {self.full(kind, name)}",
            body=body,
            field_manager=FIELD_MANAGER,
        )

    def patch(self, kind: Kind, name: str, body: Mapping[str, Any], *, subresource: str = "") -> Object:
        """Merge into an object; with its `metadata.resourceVersion` in the body, only if that is still its version.

        Raises:
            Busy: It changed since.
            Blocked: The API server's policies refuse it.
            Uncertain: The API server went away before it answered.
        """
        path = kind.path(self.namespace, name) + (f"/{subresource}" if subresource else "")
        return self.request(
            "patch",
            path,
            f"patch {self.full(kind, name)}",
            body=body,
            content_type="application/merge-patch+json",
            field_manager=FIELD_MANAGER,
        )

    def may(self, verb: str, kind: Kind, name: str | None = None, subresource: str = "") -> bool:
        """Whether we have that right in this namespace (SelfSubjectAccessReview)."""
        attributes = {"verb": verb, "group": kind.group, "resource": kind.plural}
        if kind.namespaced:
            attributes["namespace"] = self.namespace
        if name:
            attributes["name"] = name
        if subresource:
            attributes["subresource"] = subresource
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = self.request("post", path, f"ask for the right to {verb} {kind.resource}", body=body)
        return bool(answer.get("status", {}).get("allowed"))

    def request(self, method: str, path: str, what: str, **options: Any) -> Object:
        """Ask the API server, and wait for it while it is away.

        Args:
            method: In small letters.
            path: Below its address.
            what: What is asked, for messages: `get Pod shop/x`.
            options: As `DynamicClient.request` takes them.

        Raises:
            NotFound, Denied, Busy, Blocked, Uncertain, Unavailable: As told at the verbs above.
        """
        from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential
        from urllib3.exceptions import HTTPError

        tries = Retrying(
            retry=retry_if_exception(lambda error: is_transient(error) or isinstance(error, _Starting)),
            stop=stop_after_delay(self.patience),
            wait=wait_random_exponential(multiplier=0.2, max=3.0),
            reraise=True,
        )
        unanswered: list[BaseException] = []

        def ask() -> Object:
            try:
                return self._ask(method, path, options)
            except Exception as error:
                if is_transient(error):
                    unanswered.append(error)
                raise

        try:
            return tries(ask)
        except (HTTPError, _NoObject) as error:
            raise away(self.name, method, what, first_line(error)) from None
        except Exception as error:
            if not isinstance(getattr(error, "status", None), int):
                raise
            told = refused(self.name, method, what, error)
            if isinstance(error, _Starting):
                raise away(self.name, method, what, f"it is not ready, and says: {told.message}") from None
            if method == "get" or not unanswered or isinstance(told, Busy | Uncertain):
                raise told from None
            # What became of the tries before this one is not known.
            raise away(self.name, method, what, f"and later it said: {told.message}") from None

    def _ask(self, method: str, path: str, options: Mapping[str, Any]) -> Object:
        renewed = ready = False
        while True:
            try:
                return _object(self._send(method, path, **options).data)
            except Exception as error:
                status = getattr(error, "status", None)
                if status == UNAUTHORIZED and not renewed:
                    renewed = True
                    self.close()  # a token may have been renewed beside us since the client was made
                elif status in _DOUBTED and not ready and not is_by_policy(error):
                    if not self._is_ready():
                        raise _Starting(error) from None
                    ready = True  # what it says from now on counts
                else:
                    raise

    def _send(self, method: str, path: str, **options: Any) -> Any:
        timeout = tuple(min(seconds, self.patience) for seconds in _TIMEOUT)
        return self._connection.client().request(
            method, path, **{"serialize": False, "_request_timeout": timeout, **options}
        )

    def _is_ready(self) -> bool:
        """Whether the API server says that it has started; one that never tells us counts as ready after a while."""
        connection = self._connection
        try:
            _ = self._send("get", "/readyz").data  # what is read is let go of
        except Exception as error:
            if is_transient(error):
                return False
            if getattr(error, "status", None) not in _DOUBTED:
                raise
            connection.hidden_since = connection.hidden_since or time.monotonic()
            return time.monotonic() - connection.hidden_since >= _HIDDEN
        connection.hidden_since = None
        return True

    def stream(self, kind: Kind, resource_version: str, seconds: float) -> Iterator[tuple[str, str]]:
        """Type of each event of a watch and the version to go on from, until it ends.

        Args:
            kind: What to watch.
            resource_version: From which to go on.
            seconds: After which the API server ends it.

        Raises:
            Gone: That version is too old: list again.
            Unavailable: It broke off.
        """
        from kubernetes.dynamic.exceptions import DynamicApiError
        from urllib3.exceptions import HTTPError

        try:
            answer = self._send(
                "get",
                kind.path(self.namespace),
                _request_timeout=(_TIMEOUT[0], seconds + _TIMEOUT[1]),
                watch="true",
                resource_version=resource_version,
                timeout_seconds=int(seconds),
                allow_watch_bookmarks="true",
            )
            with answer:
                rest = b""
                for chunk in answer.stream(amt=None, decode_content=False):
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            raise Gone(f"watch of {kind.resource}: {event['object'].get('message', '')}")
                        yield str(event["type"]), str(event["object"]["metadata"].get("resourceVersion", ""))
        except DynamicApiError as error:
            if error.status == 410:  # noqa: PLR2004
                raise Gone(f"watch of {kind.resource}: its version is too old") from None
            raise Unavailable(f"watch of {kind.resource}: {first_line(error)}") from None
        except (HTTPError, ValueError, OSError) as error:
            raise Unavailable(f"watch of {kind.resource} broke off: {first_line(error)}") from None

    def close(self) -> None:
        """Let go of the connections; the next question opens new ones."""
        self._connection.close()


class _Starting(Exception):
    """An answer of an API server that may still be starting."""

    def __init__(self, answer: Any) -> None:
        super().__init__(str(answer))
        self.status, self.body, self.reason = answer.status, answer.body, answer.reason


class _NoObject(Exception):
    """What answers is no API server."""


def _object(data: bytes) -> Object:
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _NoObject(f"what it says is no object: {data[:60]!r}")
    return found
