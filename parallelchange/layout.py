"""Names and labels in the cluster: who is stable, baseline and canary, and where approvals are kept.

Two deployment tools made these names; pipelines that are built on either keep working
(facts: Azure's KubernetesManifest task, and the GitHub action k8s-deploy).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "APPROVALS",
    "BREAK_GLASS",
    "CHANGE",
    "GUARDED",
    "LAYOUTS",
    "REPLICAS",
    "SERVICE_ACCOUNT",
    "STAMP",
    "VERSION",
    "Approval",
    "Layout",
    "Role",
    "approvals_name",
]

SERVICE_ACCOUNT = "parallelchange"
"""The gate's ServiceAccount, one in each namespace: nobody else may approve."""
APPROVALS = "parallelchange/approvals"
"""Label of the ConfigMaps that hold approvals; its value is the root Service."""
BREAK_GLASS = "parallelchange/break-glass"
"""Annotation that lets a write pass the policies; its value is the reason, which is recorded."""
GUARDED = "parallelchange/guarded"
"""Label of the namespaces in which the policies act: `"true"`."""
CHANGE = "parallelchange/change"
"""Annotation of what was made for a change; its value is the change's name."""
REPLICAS = "parallelchange/replicas"
"""Annotation of a Deployment that was retired: how many copies it had."""
STAMP = "parallelchange/written-as"
"""Annotation that tells which of our writes an object shows: whether one went through is told by it."""
VERSION = "app.kubernetes.io/version"
"""Pod label that names the app version, where the change file names no image."""


class Role(StrEnum):
    """What a Deployment or Service is in the split."""

    STABLE = "stable"
    BASELINE = "baseline"
    CANARY = "canary"


@dataclass(frozen=True)
class Layout:
    """How one deployment tool names things.

    Args:
        name: As the change file has it.
        label: Label and annotation that tells the role, on the object, its selector and its pods.
        split_suffix: What the traffic split's name adds to the root Service's.
        stable_suffix: What the stable Deployment's name adds to the app's.
        quantity: Whether the tool writes weights as quantities (`900m`), else as whole numbers.
    """

    name: str
    label: str
    split_suffix: str
    stable_suffix: str
    quantity: bool

    def service(self, root: str, role: Role) -> str:
        """Name of a backend Service."""
        return f"{root}-{role}"

    def deployment(self, app: str, role: Role) -> str:
        """Name of a Deployment."""
        return f"{app}{self.stable_suffix}" if role is Role.STABLE else f"{app}-{role}"

    def split(self, root: str) -> str:
        """Name of the traffic split."""
        return f"{root}{self.split_suffix}"


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("azure", "azure-pipelines/version", "-azure-pipelines-rollout", "", quantity=True),
        Layout("k8s-deploy", "workflow/version", "-workflow-rollout", "-stable", quantity=False),
    )
}


class Approval(StrEnum):
    """Keys of an approvals ConfigMap. The admission policies read them, the gate writes them.

    Lists are joined by commas; all values are text.
    """

    CHANGE = "change"  # name of the change
    SERVICE = "service"  # the root Service
    APPROVED = "approved"  # the largest canary share that may be written, in thousandths
    UNTIL = "approved-until"  # when that ends and `standing` holds again, in RFC 3339; empty: it does not end
    STANDING = "standing"  # the share that the gate knows of, which may be written at any time
    OLD_IMAGE = "old-image"  # empty where the change file names none: then images are not looked at
    NEW_IMAGE = "new-image"
    OLD_BACKENDS = "old-backends"  # Services whose pods run the old version; every other backend counts as canary
    OLD_DEPLOYMENTS = "old-deployments"  # Deployments that bring the old version back, and so must stay
    SELECTOR = "selector"  # the root Service's selector as k=v pairs: a Deployment whose pods match is behind it
    CONTRACTED = "contracted"  # "true" once nothing old may come back, and everything may be deleted


def approvals_name(service: str) -> str:
    """Name of the ConfigMap with the approvals for a root Service."""
    return f"parallelchange-{service}"
