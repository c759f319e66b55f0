"""Replicas as pods of a Kubernetes cluster. Nothing of lightkube is imported until a platform is started."""

from leptonai.platforms.kubernetes.platform import KubernetesPlatform

__all__ = ["KubernetesPlatform"]
