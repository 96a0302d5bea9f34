"""A real Kubernetes control plane for the tests: etcd, kube-apiserver and kube-controller-manager on this machine.

There are no nodes; `helpers.kubelet` stands in for them. `python -m helpers.controlplane` only builds the programs.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import re
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from parallelchange.errors import Unavailable
from parallelchange.local.process import LOOPBACK, Child, ReservedPort, last_lines, tied_to_us

__all__ = ["Cluster", "ControlPlane", "NoControlPlane", "cache_folder", "find_tools", "wait_until"]

MODULE = Path(__file__).parents[1] / "controlplane"
"""The Go module that names the programs and pins their versions."""
CRDS = MODULE / "crds"
TOOLS = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
}
STARTED = 60.0
"""Seconds a server may take to answer; it takes a few, and many more on a busy machine."""

NODE = "stand-in"
"""The one node there is, in name only."""

_CONTROLLERS = (
    # what makes pods, and finds them behind Services
    *("deployment", "replicaset", "job", "disruption", "endpoints", "endpointslice"),
    # accounts and roles
    *("serviceaccount", "serviceaccount-token", "root-ca-certificate-publisher", "clusterrole-aggregation"),
    # what clears up
    *("namespace", "garbage-collector", "ttl-after-finished"),
    "validatingadmissionpolicy-status",
)
KUBELET_USER = f"system:node:{NODE}"
_USERS = {
    # Each user writes under its own name, so that policies and the audit log can tell them apart.
    "admin": ["system:masters"],
    "system:kube-controller-manager": [],
    KUBELET_USER: ["system:nodes", "system:masters"],
}
_AUDIT_POLICY: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "users": [KUBELET_USER]},
        {
            "level": "None",
            "resources": [
                {"group": "", "resources": ["events"]},
                {"group": "events.k8s.io", "resources": ["events"]},
                {"group": "coordination.k8s.io", "resources": ["leases"]},
            ],
        },
        # Secrets and tokens are none of a log's business, here either.
        {"level": "Metadata", "resources": [{"group": "", "resources": ["secrets", "serviceaccounts/token"]}]},
        {"level": "Metadata", "verbs": ["get", "list", "watch"]},
        {"level": "RequestResponse"},
    ],
}


_KINDLY = ("nice", "-n", "15")
"""Nobody waits for a control plane in milliseconds; the apps of a demo, which run beside it, are timed in them."""


class NoControlPlane(Exception):
    """There is none to be had on this machine, for the reason it says."""


def wait_until(condition: Callable[[], Any], *, seconds: float = 30.0, what: str = "the condition") -> Any:
    """Ask again until the answer is true, and give that answer."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{what} has not come about in {seconds:g} s")
        time.sleep(0.05)
    return answer


# --- the programs ---------------------------------------------------------------------------------------------------


def find_tools() -> dict[str, Path]:
    """Where each program is; what is nowhere is built, once for this version.

    Raises:
        NoControlPlane: One is missing and cannot be built.
    """
    given = os.environ.get("KUBEBUILDER_ASSETS")
    tools: dict[str, Path] = {}
    for tool in TOOLS:
        candidates = [cache_folder() / tool]
        if given:
            candidates.insert(0, Path(given).resolve() / tool)
        tools[tool] = next((path for path in candidates if path.is_file()), None) or _build(tool, cache_folder())
    return tools


def cache_folder() -> Path:
    """Where built programs are kept: one folder for each state of the Go module."""
    state = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        state.update((MODULE / name).read_bytes())
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "parallelchange" / "controlplane" / state.hexdigest()[:16]


def _build(tool: str, folder: Path) -> Path:
    """Build one program. It gets its name only when it is whole, so a build that is killed leaves none behind."""
    go = shutil.which("go")
    if go is None:
        raise NoControlPlane(f"there is no {tool}, and no Go to build it with: install Go, or set KUBEBUILDER_ASSETS")
    folder.mkdir(parents=True, exist_ok=True)
    built = folder / tool
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel gives it back when we are killed
        if built.is_file():
            return built
        for abandoned in folder.glob("building-*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        _say(f"building {tool} for the tests, once for this version; this takes minutes")
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="building-", dir=folder) as workplace:
            half_made = Path(workplace) / tool
            _run_go(go, tool, half_made)
            half_made.replace(built)
        _say(f"built {tool} in {time.monotonic() - began:.0f} s")
    return built


def _run_go(go: str, tool: str, output: Path) -> None:
    # A build from a module does not know its version, and clients look at it.
    version = re.search(r"k8s\.io/kubernetes (v\S+)", (MODULE / "go.mod").read_text(encoding="utf-8"))
    stamp = f"-X k8s.io/component-base/version.gitVersion={version[1]}" if version else ""
    command = [go, "build", "-mod=readonly", "-trimpath", "-ldflags", f"-s -w {stamp}", "-o", str(output), TOOLS[tool]]
    ended = subprocess.run(
        [*tied_to_us(), *command],
        cwd=MODULE,
        env=os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        lines = ended.stderr.strip().splitlines()[-3:]
        raise NoControlPlane(f"{tool} cannot be built: {'; '.join(lines) or f'go ended with {ended.returncode}'}")


def _say(message: str) -> None:
    print(f"control plane: {message}", file=sys.stderr, flush=True)  # noqa: T201 - minutes of silence look like a hang


# --- the servers ----------------------------------------------------------------------------------------------------


class ControlPlane:
    """The three servers, on free ports of the loopback interface, with data of their own.

    They are killed with the thread that started them, so start this one from the main thread.

    Args:
        folder: Where data, certificates and logs go; empty, and the caller's to delete.
        tools: Where the programs are, as `find_tools` says.
    """

    def __init__(self, folder: Path, tools: Mapping[str, Path]) -> None:
        self.folder = folder
        self.tools = tools
        self.tokens = {user: secrets.token_hex() for user in _USERS}
        self.kubeconfig = folder / "admin.json"
        self._numbers = count(1)
        self._api: Child | None = None
        self._api_port, self._etcd_port, self._peer_port = (ReservedPort() for _ in range(3))
        self.url = f"https://{LOOPBACK}:{self._api_port.number}"
        self.certificate = folder / "certificates" / "apiserver.crt"
        self._controllers_kubeconfig = folder / "controllers.json"
        self._audit_log = folder / "audit.log"
        self._etcd: Child | None = None
        self._controllers: Child | None = None
        self._write_settings()

    def start(self) -> None:
        """Start everything, and wait until it can be used.

        Raises:
            Unavailable: A server does not come up; the message has the end of its log.
        """
        try:
            self._etcd = Child([*_KINDLY, *self._etcd_command()], log=self.folder / "etcd.log")
            self.start_api()
            if any(CRDS.glob("*.yaml")):
                self.kubectl("create", "-f", str(CRDS))
                self.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End everything at once: nothing of it is kept."""
        for child in (self._controllers, self._api, self._etcd):
            if child is not None:
                _kill(child)
        self._controllers = self._api = self._etcd = None
        for port in (self._api_port, self._etcd_port, self._peer_port):
            port.release()

    # Outages. The data stays in etcd, and the port stays ours.

    def stop_api(self) -> None:
        """Kill the API server: connections break, new ones are refused."""
        if self._api is not None:
            _kill(self._api)
            self._api = None

    def start_api(self) -> None:
        """Start the API server, and wait until it is ready.

        The controllers are started anew: after an outage they would wait for up to half a minute by themselves.
        """
        log = self.folder / "apiserver.log"
        api = self._api = Child([*_KINDLY, *self._api_command()], log=log)

        def ready() -> bool:
            if api.exit_code is not None:
                raise Unavailable(f"kube-apiserver ended with {api.exit_code}:\n{last_lines(log)}")
            return self._answers("/readyz")

        try:
            wait_until(ready, seconds=STARTED)
        except TimeoutError:
            raise Unavailable(f"kube-apiserver is not ready after {STARTED:g} s:\n{last_lines(log)}") from None
        if self._controllers is not None:
            _kill(self._controllers)
        self._controllers = Child([*_KINDLY, *self._controllers_command()], log=self.folder / "controllers.log")

    def pause_api(self) -> None:
        """Stop the API server in its tracks: connections stay open and nothing is answered."""
        assert self._api is not None
        os.kill(self._api.pid, signal.SIGSTOP)

    def resume_api(self) -> None:
        """Let the API server go on."""
        assert self._api is not None
        os.kill(self._api.pid, signal.SIGCONT)

    def heal(self) -> None:
        """End whatever outage a test has left.

        Raises:
            Unavailable: A server has died that no test may stop.
        """
        for name, child in (("etcd", self._etcd), ("controllers", self._controllers)):
            if child is None or child.exit_code is not None:
                raise Unavailable(f"{name} has died:\n{last_lines(self.folder / f'{name}.log')}")
        if self._api is None or self._api.exit_code is not None:
            self.start_api()
        else:
            self.resume_api()

    def audit(self, namespace: str | None = None) -> list[dict[str, Any]]:
        """What was asked of the API server so far, one event a request, oldest first; of one namespace, or of all.

        Reads have no bodies. What the kubelet stand-in does is left out.
        """
        if not self._audit_log.exists():
            return []
        lines = self._audit_log.read_text(encoding="utf-8").splitlines(keepends=True)
        events = [json.loads(line) for line in lines if line.endswith("\n")]  # the last one may still be written
        return [each for each in events if namespace in (None, each.get("objectRef", {}).get("namespace"))]

    def new_cluster(self) -> Cluster:
        """A fresh namespace."""
        return Cluster(self, f"test-{next(self._numbers)}")

    def kubectl(
        self,
        *args: str,
        input: str | None = None,  # noqa: A002 - as subprocess has it
        check: bool = True,
        kubeconfig: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl, as the administrator unless told otherwise."""
        ended = subprocess.run(
            [*_KINDLY, str(self.tools["kubectl"]), "--kubeconfig", str(kubeconfig or self.kubeconfig), *args],
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env=os.environ | {"KUBECACHEDIR": str(self.folder / "kubectl"), "KUBERC": "off"},
        )
        if check and ended.returncode:
            raise AssertionError(f"kubectl {' '.join(args)} ended with {ended.returncode}: {ended.stderr.strip()}")
        return ended

    def write_kubeconfig(
        self,
        path: Path,
        *,
        user: str | None = None,
        token: str | None = None,
        namespace: str = "default",
        impersonate: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a kubeconfig for one of our users, or for whoever a token is of."""
        account = {"token": token or self.tokens[user or "admin"], **(impersonate or {})}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "test", "cluster": {"server": self.url, "certificate-authority": str(self.certificate)}}
            ],
            "users": [{"name": "test", "user": account}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
            "current-context": "test",
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(document), encoding="utf-8")  # JSON is YAML

    def _write_settings(self) -> None:
        self.write_kubeconfig(self.kubeconfig, user="admin")
        self.write_kubeconfig(self._controllers_kubeconfig, user="system:kube-controller-manager")
        lines = [f'{self.tokens[user]},{user},{user},"{",".join(groups)}"' for user, groups in _USERS.items()]
        users = self.folder / "users.csv"
        users.touch(mode=0o600)
        users.write_text("\n".join(lines) + "\n", encoding="utf-8")
        (self.folder / "audit-policy.json").write_text(json.dumps(_AUDIT_POLICY), encoding="utf-8")

    def _answers(self, path: str) -> bool:
        if not self.certificate.exists():
            return False
        connection = None
        try:
            trust = ssl.create_default_context(cafile=str(self.certificate))
            connection = http.client.HTTPSConnection(LOOPBACK, self._api_port.number, timeout=5, context=trust)
            connection.request("GET", path, headers={"Authorization": f"Bearer {self.tokens['admin']}"})
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            if connection is not None:
                connection.close()

    def _etcd_command(self) -> list[str]:
        client, peer = (f"http://{LOOPBACK}:{port.number}" for port in (self._etcd_port, self._peer_port))
        return [
            str(self.tools["etcd"]),
            "--name=test",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=test={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def _api_command(self) -> list[str]:
        # Its own self-signed certificate is what clients trust, and its key signs the ServiceAccounts' tokens.
        key = self.certificate.with_suffix(".key")
        return [
            str(self.tools["kube-apiserver"]),
            f"--etcd-servers=http://{LOOPBACK}:{self._etcd_port.number}",
            f"--bind-address={LOOPBACK}",
            f"--advertise-address={LOOPBACK}",
            f"--secure-port={self._api_port.number}",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.96.0.0/16",
            f"--cert-dir={self.certificate.parent}",
            f"--token-auth-file={self.folder / 'users.csv'}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            f"--audit-policy-file={self.folder / 'audit-policy.json'}",
            f"--audit-log-path={self._audit_log}",
        ]

    def _controllers_command(self) -> list[str]:
        controllers = ",".join(f"{name}-controller" for name in _CONTROLLERS)
        return [
            str(self.tools["kube-controller-manager"]),
            f"--kubeconfig={self._controllers_kubeconfig}",
            "--leader-elect=false",
            "--secure-port=0",
            "--use-service-account-credentials",
            f"--root-ca-file={self.certificate}",
            f"--service-account-private-key-file={self.certificate.with_suffix('.key')}",
            f"--controllers={controllers}",
        ]


class Cluster:
    """What a test gets: a fresh namespace on the shared control plane.

    Args:
        plane: The control plane; a test may stop and pause its API server.
        namespace: Name of the namespace, which is made.
    """

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.plane = plane
        self.namespace = namespace
        self.kubeconfig = self._kubeconfig("admin", user="admin")
        self.kubectl("create", "namespace", namespace)
        # Until its ServiceAccount is there no pod can be made.
        wait_until(
            lambda: self.kubectl("get", "serviceaccount", "default", check=False).returncode == 0,
            what=f"the ServiceAccount of {namespace}",
        )

    def close(self) -> None:
        """Delete the namespace. Nobody waits for that; its pods go at once, as they have no kubelet any more."""
        self.plane.heal()
        self.kubectl("delete", "namespace", self.namespace, "--wait=false", "--ignore-not-found")
        self.kubectl("delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false")

    def kubectl(
        self,
        *args: str,
        input: str | None = None,  # noqa: A002 - as subprocess has it
        check: bool = True,
        kubeconfig: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl in this namespace, as the administrator unless told otherwise."""
        return self.plane.kubectl(*args, input=input, check=check, kubeconfig=kubeconfig or self.kubeconfig)

    def apply(self, manifest: str | Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """Apply YAML, an object, or several."""
        self.kubectl("apply", "-f", "-", input=_as_text(manifest))

    def get(self, resource: str, name: str) -> dict[str, Any]:
        """An object, as it is now; `resource` may name a version: `trafficsplits.v1alpha2.split.smi-spec.io`."""
        found: dict[str, Any] = json.loads(self.kubectl("get", resource, name, "--output=json").stdout)
        return found

    def list(self, resource: str, selector: str = "") -> list[dict[str, Any]]:
        """All objects of a kind, or those with these labels."""
        found = self.kubectl("get", resource, f"--selector={selector}", "--output=json")
        items: list[dict[str, Any]] = json.loads(found.stdout)["items"]
        return items

    def kubeconfig_for_service_account(self, name: str, duration: str = "1h") -> Path:
        """A kubeconfig with a token of a ServiceAccount of this namespace; ten minutes is the shortest there is."""
        token = self.kubectl("create", "token", name, f"--duration={duration}").stdout.strip()
        return self._kubeconfig(f"account-{name}", token=token)

    def kubeconfig_for(self, user: str, groups: Iterable[str] = ()) -> Path:
        """A kubeconfig that makes the administrator speak as somebody else; kubectl heeds it, Python's client not."""
        who = {"as": user, "as-groups": list(groups)}
        name = "".join(letter if letter.isalnum() else "-" for letter in user)
        return self._kubeconfig(f"user-{name}", user="admin", impersonate=who)

    def audit(self) -> list[dict[str, Any]]:
        """What was asked of the API server about this namespace."""
        return self.plane.audit(self.namespace)

    def _kubeconfig(self, name: str, **who: Any) -> Path:
        path = self.plane.folder / f"{self.namespace}-{name}.json"
        self.plane.write_kubeconfig(path, namespace=self.namespace, **who)
        return path


def _as_text(manifest: str | Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> str:
    if isinstance(manifest, str):
        return manifest
    if isinstance(manifest, Mapping):
        return json.dumps(manifest)
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifest)})


def _kill(child: Child) -> None:
    """End a server now: a gentle end waits for the watches that it serves."""
    with contextlib.suppress(ProcessLookupError):
        if child.exit_code is None:
            os.kill(child.pid, signal.SIGKILL)
    child.stop()


def main() -> None:
    """Build what is missing, so that no test has to wait for it."""
    try:
        find_tools()
    except NoControlPlane as reason:
        _say(f"none on this machine: {reason}")


if __name__ == "__main__":
    main()
