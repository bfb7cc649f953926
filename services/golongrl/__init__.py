"""GoLongRL: Kubernetes-native orchestration of training services for long-context reinforcement learning."""

__version__ = "0.1.0"
