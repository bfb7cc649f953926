"""GoLongRL: Kubernetes-native orchestration of training services for long-context reinforcement learning."""

from importlib.metadata import version

__version__ = version("golongrl")
