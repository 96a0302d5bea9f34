"""Stands in for the scheduler, the nodes and their kubelets: pods are said to run, and nothing does.

A test that wants something to run for each pod gives callbacks that start and stop it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import count
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self

from kubernetes import client, config
from urllib3.exceptions import HTTPError

from helpers.controlplane import KUBELET_USER, NODE, Cluster
from parallelchange.local.process import LOOPBACK

__all__ = ["Kubelet", "Pod", "image_id"]

Pod = dict[str, Any]

_ROUND = 0.1
"""Seconds between two looks at the pods."""
_PATIENCE = 3
"""Seconds a request may take: an API server that is paused must not keep `stop` waiting."""
_LASTING = {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.UNSUPPORTED_MEDIA_TYPE}
"""Answers that say that we are wrong; all others pass, with an outage or because the pod has changed."""
_addresses = count(1)


def image_id(image: str) -> str:
    """What an image's name resolves to here: always the same, and another one for every other name."""
    name = image.partition("@")[0].rpartition("/")
    repository = f"{name[0]}{name[1]}{name[2].partition(':')[0]}"
    return f"{repository}@sha256:{hashlib.sha256(image.encode()).hexdigest()}"


class Kubelet:
    """Runs the pods of one namespace, in a thread of its own, until `stop`. It outlasts an outage of the API server.

    All callbacks are called in that thread, one at a time. One that raises ends the kubelet, and `stop` raises
    the error again. Processes that `on_start` starts as a `Child` end with the thread.

    Attributes:
        on_start: Called once for each pod, with its address in `status.podIP`, before the pod is said to run.
        on_stop: Called once for each started pod that ends, is deleted, or is still there in the end.
        exit_code: How a pod has ended, None while it runs. Pods that are restarted for ever are not asked about.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        on_start: Callable[[Pod], None] = lambda _: None,
        on_stop: Callable[[Pod], None] = lambda _: None,
        exit_code: Callable[[Pod], int | None] = lambda _: None,
    ) -> None:
        self.on_start, self.on_stop, self.exit_code = on_start, on_stop, exit_code
        self._namespace = cluster.namespace
        self._held: Callable[[Pod], bool] = lambda _: False
        self._started: dict[str, Pod] = {}
        self._failure: BaseException | None = None
        self._stopping = Event()
        kubeconfig = cluster.plane.folder / f"{cluster.namespace}-kubelet.json"
        cluster.plane.write_kubeconfig(kubeconfig, user=KUBELET_USER, namespace=cluster.namespace)
        settings = client.Configuration(no_proxy=LOOPBACK)
        config.load_kube_config(str(kubeconfig), client_configuration=settings)
        settings.retries = False  # the next round is the retry
        self._client = client.ApiClient(settings)
        self._api = client.CoreV1Api(self._client)
        self._thread = Thread(target=self._run, name=f"kubelet of {cluster.namespace}")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to look after the pods."""
        self._register_node()
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it still looks after its pods."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Stop running pods; those that ran are stopped, and stay in the cluster as they are."""
        self._stopping.set()
        self._thread.join()
        self._client.rest_client.pool_manager.clear()
        self._client.close()
        if self._failure is not None:
            raise self._failure

    def hold(self, predicate: Callable[[Pod], bool]) -> None:
        """Say of these pods, new ones and those that run, that they are not ready; replaces what was held before."""
        self._held = predicate

    def release(self) -> None:
        """Let every pod become ready."""
        self._held = lambda _: False

    def _run(self) -> None:
        self._note_failure(self._look_after_pods)
        for pod in list(self._started.values()):
            self._note_failure(lambda pod=pod: self._end(pod))

    def _note_failure(self, action: Callable[[], None]) -> None:
        """Keep the first failure for `stop`, and go on: all that was started has to be stopped."""
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - it is raised again where the test sees it
            self._failure = self._failure or error

    def _look_after_pods(self) -> None:
        while not self._stopping.wait(_ROUND):
            with _outage_passes():
                self._tend_all()

    def _tend_all(self) -> None:
        pods: list[Pod] = _ask(self._api.list_namespaced_pod, self._namespace)["items"]
        present = {pod["metadata"]["uid"] for pod in pods}
        for uid, pod in list(self._started.items()):
            if uid not in present:  # deleted by force
                self._end(pod)
        for pod in pods:
            with _outage_passes():  # of one pod, which may change while we look at it
                self._tend(pod)

    def _tend(self, pod: Pod) -> None:
        if "deletionTimestamp" in pod["metadata"]:
            self._end(pod)
            self._delete(pod)
        elif pod["status"].get("phase") not in ("Succeeded", "Failed"):
            if "nodeName" not in pod["spec"]:
                self._bind(pod)
            pod = self._started_pod(pod)
            status = self._status(pod)
            if _gist(status) != _gist(pod["status"]):
                self._write_status(pod, status)
            if status["phase"] != "Running":
                self._end(pod)  # not before that is written: what is not known to have ended is started again

    def _started_pod(self, pod: Pod) -> Pod:
        """The pod with its address; it is started if it was not yet."""
        started = self._started.get(pod["metadata"]["uid"])
        if started is None:
            number = next(_addresses)
            address = pod["status"].get("podIP") or f"10.99.{number // 250}.{number % 250 + 1}"
            started = self._started[pod["metadata"]["uid"]] = _with_address(pod, address)
            self.on_start(started)
        return _with_address(pod, started["status"]["podIP"])

    def _end(self, pod: Pod) -> None:
        started = self._started.pop(pod["metadata"]["uid"], None)
        if started is not None:
            self.on_stop(started)

    def _status(self, pod: Pod) -> dict[str, Any]:
        """What the pod's status should say."""
        code = None if pod["spec"]["restartPolicy"] == "Always" else self.exit_code(pod)
        ready = code is None and not self._held(pod)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ended = {"exitCode": code or 0, "reason": "Error" if code else "Completed", "startedAt": now, "finishedAt": now}
        state = {"running": {"startedAt": now}} if code is None else {"terminated": ended}
        conditions = {"Initialized": True, "ContainersReady": ready, "Ready": ready}
        address = pod["status"]["podIP"]
        return {
            "phase": "Running" if code is None else "Failed" if code else "Succeeded",
            "startTime": pod["status"].get("startTime", now),
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [
                {"type": kind, "status": str(holds), "lastTransitionTime": now} for kind, holds in conditions.items()
            ],
            "containerStatuses": [
                _container(each, state, ready=ready, started=code is None) for each in pod["spec"]["containers"]
            ],
            "initContainerStatuses": [
                _container(each, {"terminated": ended | {"exitCode": 0, "reason": "Completed"}}, ready=True)
                for each in pod["spec"].get("initContainers", [])
            ],
        }

    def _bind(self, pod: Pod) -> None:
        name = pod["metadata"]["name"]
        target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
        binding = {"metadata": {"name": name}, "target": target}
        _ask(self._api.create_namespaced_pod_binding, name, self._namespace, binding)

    def _write_status(self, pod: Pod, status: dict[str, Any]) -> None:
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        patch = {"metadata": {"uid": uid}, "status": status}  # the uid: never of a newer pod with the same name
        _ask(self._api.patch_namespaced_pod_status, name, self._namespace, patch)

    def _delete(self, pod: Pod) -> None:
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
        _ask(self._api.delete_namespaced_pod, name, self._namespace, body=options)

    def _register_node(self) -> None:
        with _outage_passes():  # it is there already
            _ask(self._api.create_node, {"metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}}})
        room = {"cpu": "64", "memory": "64Gi", "pods": "1000"}
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "there is no kubelet"}
        status = {"capacity": room, "allocatable": room, "conditions": [ready]}
        _ask(self._api.patch_node_status, NODE, {"status": status})


def _ask(method: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """The answer as JSON: the client's models would only be in the way."""
    answer = method(*args, **options, _preload_content=False, _request_timeout=_PATIENCE)
    return json.loads(answer.data)


def _with_address(pod: Pod, address: str) -> Pod:
    return pod | {"status": pod["status"] | {"podIP": address}}


def _container(spec: dict[str, Any], state: dict[str, Any], *, ready: bool, started: bool = False) -> dict[str, Any]:
    image = spec["image"]
    return {
        "name": spec["name"],
        "image": image,
        "imageID": image_id(image),
        "ready": ready,
        "started": started,
        "restartCount": 0,
        "state": state,
    }


def _gist(status: dict[str, Any]) -> tuple[Any, ...]:
    """What a status says apart from times, to see whether it has to be written."""
    conditions = {each["type"]: each["status"] for each in status.get("conditions", [])}
    containers = status.get("containerStatuses", [])
    return (
        status.get("phase"),
        conditions.get("Ready"),  # an address alone says nothing: we have added it ourselves
        sorted((each["name"], each["imageID"]) for each in containers),
    )


@contextlib.contextmanager
def _outage_passes() -> Any:
    """Leave what will pass to the next round: an outage, or something that has changed meanwhile."""
    try:
        yield
    except HTTPError:
        pass
    except client.ApiException as error:
        if error.status in _LASTING:
            raise
