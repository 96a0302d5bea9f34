"""Jobs that run the verbs a pipeline would run, in the cluster and with the gate's ServiceAccount."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from parallelchange.emit.kubernetes.source import Request
from parallelchange.emit.kubernetes.workloads import add_pull_secrets
from parallelchange.layout import CHANGE, SERVICE_ACCOUNT
from parallelchange.model import format_weight

__all__ = ["DATABASE_KEY", "DATABASE_SECRET", "about_job", "jobs"]

DATABASE_SECRET = "parallelchange-database"  # noqa: S105 - the Secret's name; what is in it never comes here
DATABASE_KEY = "url"

_RETRIES = {"rollout": 20}
_GATE_RETRIES = 3
_CONTAINER = "parallelchange"


def jobs(request: Request) -> dict[str, dict[str, Any]]:
    """The Jobs, by the name of their file: verify, a gate for each stage, and the whole rollout."""
    reference = request.options.reference
    made = {"verify": ["verify", reference]}
    for stage in request.change.traffic.stages:
        share = format_weight(stage)
        made[f"gate-{share.removesuffix('%').replace('.', '-')}"] = ["gate", reference, "--to", share]
    # Should another process run it, this one waits and then goes on.
    made["rollout"] = ["rollout", reference, "--stand-by"]
    return {name: _job(request, name, arguments) for name, arguments in made.items()}


def about_job(request: Request, name: str) -> str:
    """What the reader of a Job should know."""
    what = {
        "verify": "Measures both versions on the live data, and records the evidence that gates read.",
        "rollout": "The whole loop, from wherever the change stands. A pod that is lost is replaced, and goes on.",
    }.get(name, "Says whether traffic may advance; it moves none itself.")
    codes = (
        "Exit codes: 0 passed or done; 1 blocked by a gate and 2 wrong usage fail the Job at once; 3, something "
        "needed is not there, is tried again. A Job runs once; to run it again:"
    )
    return "\n".join((what, codes, request.kubectl(f"replace --force -f gates/{name}.yaml")))


def _job(request: Request, name: str, arguments: list[str]) -> dict[str, Any]:
    pod: dict[str, Any] = {
        "serviceAccountName": SERVICE_ACCOUNT,
        "restartPolicy": "Never",
        "enableServiceLinks": False,
        # The image names its user by number, and has that user in its /etc/passwd: the rehearsal's PostgreSQL asks.
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [_container(request, arguments)],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    add_pull_secrets(pod, request)
    # A proxy beside it would keep the Job from ending.
    metadata = {
        "labels": {"sidecar.istio.io/inject": "false"},
        "annotations": {"linkerd.io/inject": "disabled", CHANGE: request.change.name},
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": request.metadata(f"{request.change.name}-{name}"),
        "spec": {
            "backoffLimit": _RETRIES.get(name, _GATE_RETRIES),
            "podFailurePolicy": {"rules": _failures()},
            "template": {"metadata": metadata, "spec": pod},
        },
    }


def _failures() -> list[dict[str, Any]]:
    refused = {"containerName": _CONTAINER, "operator": "In", "values": [1, 2]}
    return [
        {"action": "FailJob", "onExitCodes": refused},
        # A drained node is nobody's failure.
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]


def _container(request: Request, arguments: list[str]) -> dict[str, Any]:
    images: Mapping[str, str | None] = {
        # The change must speak of the very images that these manifests run.
        "PARALLELCHANGE_IMAGE_OLD": request.change.old.image,
        "PARALLELCHANGE_IMAGE_NEW": request.change.new.image,
        # The only place that can be written to.
        "PARALLELCHANGE_STATE_DIR": "/tmp/parallelchange",  # noqa: S108 - a volume of the pod's own
        "HOME": "/tmp",  # noqa: S108
    }
    secret = {"secretKeyRef": {"name": DATABASE_SECRET, "key": DATABASE_KEY}}
    return {
        "name": _CONTAINER,
        "image": request.options.gate_image,
        "command": ["parallelchange", *arguments],
        "env": [
            {"name": "PARALLELCHANGE_DATABASE_URL", "valueFrom": secret},
            *({"name": name, "value": value} for name, value in images.items()),
        ],
        "resources": {
            "requests": {"cpu": "100m", "memory": "256Mi"},
            # A rehearsal runs a PostgreSQL of its own.
            "limits": {"memory": "1Gi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }
