"""The approvals that the API server's policies hold every write of the split against."""

from __future__ import annotations

from datetime import UTC, datetime

from parallelchange.adapters.kubernetes.client import Cluster
from parallelchange.adapters.kubernetes.kinds import CONFIG_MAP
from parallelchange.adapters.kubernetes.routers.base import ClusterRouter
from parallelchange.change import Change
from parallelchange.errors import Busy, Unavailable
from parallelchange.layout import LAYOUTS, Approval, Role, approvals_name

__all__ = ["Approvals"]

_TRIES = 5
_RELEASED = {Approval.APPROVED: "1000", Approval.STANDING: "1000", Approval.UNTIL: "", Approval.CONTRACTED: "true"}


class Approvals:
    """Keeps the ConfigMap with the approvals for a root Service in step with what gates say.

    Where there is no such ConfigMap, no policy was installed, and there is nothing to tell; `doctor` says so.

    Args:
        cluster: The namespace.
        change: The change.
        router: Tells which backends run the old version.
    """

    def __init__(self, cluster: Cluster, change: Change, router: ClusterRouter) -> None:
        self.cluster, self.change, self.router = cluster, change, router
        self.name = approvals_name(change.traffic.service)

    def allow(self, weight: int, *, until: float | None = None) -> None:
        """Let the split be written with a canary share up to that weight, and not above.

        Args:
            weight: Thousandths.
            until: When that ends and what stood before holds again, seconds since the epoch; None: it stands.

        Raises:
            Unavailable: It cannot be written; the policies go on as they were.
        """
        for _ in range(_TRIES):
            live = self.cluster.find(CONFIG_MAP, self.name)
            if live is None:
                return
            old, seen = self.router.old_backends(), self.router.running.look()
            service = self.change.traffic.service
            baseline = LAYOUTS[self.change.traffic.layout].service(service, Role.BASELINE)
            # The baseline goes and comes with a pipeline's increments; it brings nothing back.
            kept = {name for each in old if each != baseline for name in seen.behind(each).deployments}
            data = {
                Approval.CHANGE: self.change.name,
                Approval.SERVICE: service,
                Approval.APPROVED: str(weight),
                Approval.UNTIL: _rfc3339(until),
                Approval.OLD_IMAGE: self.change.old.image or "",
                Approval.NEW_IMAGE: self.change.new.image or "",
                # None, once a pipeline has rolled the new version out as stable: then all traffic is the new one's.
                Approval.OLD_BACKENDS: ",".join(old),
                Approval.CONTRACTED: "false",
            }
            told = {
                Approval.OLD_DEPLOYMENTS: ",".join(sorted(kept)),
                Approval.SELECTOR: ",".join(f"{key}={value}" for key, value in sorted(seen.selector(service).items())),
            }
            # A Service that is gone or a Deployment that is changing must not open the door: what was known stays.
            data |= {key: value for key, value in told.items() if value}
            if until is None:
                data[Approval.STANDING] = str(weight)
            if self._write(live["metadata"]["resourceVersion"], data):
                return
        raise self._contended()

    def release(self) -> None:
        """Nothing old may come back any more: everything may be deleted.

        Raises:
            Unavailable: It cannot be written.
        """
        for _ in range(_TRIES):
            live = self.cluster.find(CONFIG_MAP, self.name)
            if live is None or self._write(live["metadata"]["resourceVersion"], _RELEASED):
                return
        raise self._contended()

    def _write(self, resource_version: str, data: dict[Approval, str]) -> bool:
        body = {
            "metadata": {"resourceVersion": resource_version},
            "data": {key.value: value for key, value in data.items()},
        }
        try:
            self.cluster.patch(CONFIG_MAP, self.name, body)
        except Busy:
            return False
        return True

    def _contended(self) -> Unavailable:
        return Busy(
            f"{self.cluster.full(CONFIG_MAP, self.name)} is being written by somebody else all the time",
            hint="see who writes it: only the gate's ServiceAccount should",
        )


def _rfc3339(when: float | None) -> str:
    return "" if when is None else datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
