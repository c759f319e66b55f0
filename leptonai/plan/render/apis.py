"""Which versions of the APIs a cluster serves: from its own list, or from the number of its version."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import NamedTuple

from leptonai.errors import Denied, PlatformError, SpecError

OLDEST = 20  # of Kubernetes 1.x: startup probes are stable since, and tested against its schemas
_VERSION = re.compile(r"v?1\.(\d{1,3})\+?([.-].*)?")
# Newest first, with the first minor version that serves it and the first that does not (None: all later ones do):
# kubernetes.io's deprecation guide. Gateway API 1.0 checks its objects by rules (CEL) that a cluster has since 1.25;
# the release 0.5, which brought v1beta1, supported 1.20. Istio serves v1beta1 beside v1 to this day.
_KINDS: dict[str, tuple[tuple[str, int, int | None], ...]] = {
    "PodDisruptionBudget": (("policy/v1", 21, None), ("policy/v1beta1", 5, 25)),
    "HorizontalPodAutoscaler": (("autoscaling/v2", 23, None), ("autoscaling/v2beta2", 12, 26)),
    "HTTPRoute": (("gateway.networking.k8s.io/v1", 25, None), ("gateway.networking.k8s.io/v1beta1", 20, None)),
    "VirtualService": (("networking.istio.io/v1", 1000, None), ("networking.istio.io/v1beta1", 0, None)),
    "ScaledObject": (("keda.sh/v1alpha1", 0, None),),  # KEDA 2.8 runs on 1.20
}


class Apis(NamedTuple):
    """Kubernetes 1.``minor`` and the API version for each kind that has had several. ``withheld``: kinds that are
    served, but not for us, each with a right that our account lacks, as "create scaledobjects.keda.sh"."""

    minor: int
    versions: dict[str, str]
    withheld: Mapping[str, str] = MappingProxyType({})

    @staticmethod
    def of(version: str) -> Apis:
        """What Kubernetes ``version`` ("1.20") serves, and of Gateway API, Istio and KEDA what runs on it.

        SpecError when it is no version, PlatformError when it is older than 1.20.
        """
        minor = _minor(version)
        versions = {}
        for kind, known in _KINDS.items():
            fit = [api for api, since, until in known if since <= minor and (until is None or minor < until)]
            if fit:
                versions[kind] = fit[0]
        return Apis(minor, versions)

    @staticmethod
    def served(version: str, groups: Collection[str]) -> Apis:
        """The newest that a cluster of ``version`` serves: ``groups`` as it lists them, ("policy/v1", ...)."""
        found = {kind: [api for api, _, _ in known if api in groups] for kind, known in _KINDS.items()}
        return Apis(_minor(version), {kind: apis[0] for kind, apis in found.items() if apis})

    def version(self, kind: str) -> str:
        """PlatformError when the cluster has no such kind, Denied ``rbac`` when our account may not make it."""
        if kind in self.versions:
            return self.versions[kind]
        if kind in self.withheld:
            raise Denied(
                f"our account may not {self.withheld[kind]}, and a {kind} is wished for",
                hint="leptonai export rbac writes a Role that allows it; then start the platform again",
                code="rbac",
            )
        wanted = " or ".join(api for api, _, _ in _KINDS[kind])
        hint = {
            "HTTPRoute": "install the Gateway API, or choose traffic istio or service",
            "VirtualService": "install Istio, or choose traffic gateway or service",
            "ScaledObject": "install KEDA, or choose scale.owner kubernetes or leptonai",
        }.get(kind, "is the API switched off there?")
        raise PlatformError(f"the cluster (Kubernetes 1.{self.minor}) serves no {kind} of {wanted}", hint=hint)

    def require(self, minor: int, what: str, hint: str) -> None:
        """PlatformError when the cluster is older than 1.``minor``, which ``what`` needs."""
        if self.minor < minor:
            raise PlatformError(f"{what} needs Kubernetes 1.{minor}; the cluster is 1.{self.minor}", hint=hint)


def _minor(version: str) -> int:
    match = _VERSION.fullmatch(version)
    if match is None:
        raise SpecError(f"{version!r} is no version of Kubernetes", hint="write it as 1.20")
    minor = int(match[1])
    if minor < OLDEST:
        raise PlatformError(
            f"Kubernetes 1.{minor} is older than 1.{OLDEST}, the oldest that objects are made for",
            hint="upgrade the cluster",
        )
    return minor
