"""The kinds of object that are read or written in the cluster."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = [
    "CONFIG_MAP",
    "DEPLOYMENT",
    "ENDPOINT_SLICE",
    "EVENT",
    "FEATURE_FLAG",
    "HTTP_ROUTE",
    "INGRESS",
    "LEASE",
    "NAMESPACE",
    "POD",
    "POLICY",
    "POLICY_BINDING",
    "SERVICE",
    "SERVICE_PROFILE",
    "TRAFFIC_METRICS",
    "TRAFFIC_SPLIT",
    "VIRTUAL_SERVICE",
    "Kind",
]


@dataclass(frozen=True)
class Kind:
    """One kind of object.

    Args:
        name: As people call it.
        group: API group; empty for the core.
        version: API version.
        plural: As paths and rights have it.
        namespaced: Whether it lives in a namespace.
    """

    name: str
    group: str
    version: str
    plural: str
    namespaced: bool = True

    def at(self, version: str) -> Kind:
        """The same kind in another API version."""
        return replace(self, version=version)

    @property
    def resource(self) -> str:
        """As rights and messages name it: `plural.group`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        """As objects name it: `group/version`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str, name: str | None = None) -> str:
        """Path below the API server's address."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        where = f"/namespaces/{namespace}" if self.namespaced else ""
        return f"{root}{where}/{self.plural}" + (f"/{name}" if name else "")


POD = Kind("Pod", "", "v1", "pods")
SERVICE = Kind("Service", "", "v1", "services")
CONFIG_MAP = Kind("ConfigMap", "", "v1", "configmaps")
EVENT = Kind("Event", "", "v1", "events")
NAMESPACE = Kind("Namespace", "", "v1", "namespaces", namespaced=False)
DEPLOYMENT = Kind("Deployment", "apps", "v1", "deployments")
ENDPOINT_SLICE = Kind("EndpointSlice", "discovery.k8s.io", "v1", "endpointslices")
LEASE = Kind("Lease", "coordination.k8s.io", "v1", "leases")
INGRESS = Kind("Ingress", "networking.k8s.io", "v1", "ingresses")
TRAFFIC_SPLIT = Kind("TrafficSplit", "split.smi-spec.io", "v1alpha2", "trafficsplits")
SERVICE_PROFILE = Kind("ServiceProfile", "linkerd.io", "v1alpha2", "serviceprofiles")
HTTP_ROUTE = Kind("HTTPRoute", "gateway.networking.k8s.io", "v1", "httproutes")
VIRTUAL_SERVICE = Kind("VirtualService", "networking.istio.io", "v1", "virtualservices")
FEATURE_FLAG = Kind("FeatureFlag", "core.openfeature.dev", "v1beta1", "featureflags")
TRAFFIC_METRICS = Kind("TrafficMetrics", "metrics.smi-spec.io", "v1alpha1", "deployments")
POLICY = Kind(
    "ValidatingAdmissionPolicy", "admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", namespaced=False
)
POLICY_BINDING = Kind(
    "ValidatingAdmissionPolicyBinding",
    "admissionregistration.k8s.io",
    "v1",
    "validatingadmissionpolicybindings",
    namespaced=False,
)
