"""Which API server to call, and as whom: a pod's service account, or a kubeconfig. Errors are one line."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml
from kubernetes.aio import config
from kubernetes.aio.client import Configuration

from golongrl.kubernetes.cluster_errors import ClusterAccessError

_SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_DEFAULT_NAMESPACE: Final = "default"


@dataclass(frozen=True)
class Access:
    """An API server with credentials, and the namespace to work in."""

    configuration: Configuration
    namespace: str


async def find_access(namespace: str | None = None, context: str | None = None) -> Access:
    """A kubeconfig where --context or KUBECONFIG names one, else the pod's service account, else ~/.kube/config.

    Args:
        namespace: replaces the one of the pod or of the context.

    Raises:
        ClusterAccessError: none of them can be used.
    """
    configuration = Configuration()
    # Only a GET would be repeated, and each caller decides about repeats itself.
    configuration.retries = None
    named = context is not None or "KUBECONFIG" in os.environ
    if not named and (_SERVICE_ACCOUNT / "token").exists():
        return _of_pod(configuration, namespace)
    return await _of_kubeconfig(configuration, namespace, context)


def _of_pod(configuration: Configuration, namespace: str | None) -> Access:
    try:
        config.load_incluster_config(client_configuration=configuration)
        own = (_SERVICE_ACCOUNT / "namespace").read_text().strip()
    except (config.ConfigException, OSError) as error:
        raise ClusterAccessError(f"the service account in {_SERVICE_ACCOUNT} cannot be used: {error}") from error
    return Access(configuration, namespace or own)


async def _of_kubeconfig(configuration: Configuration, namespace: str | None, context: str | None) -> Access:
    paths = os.environ.get("KUBECONFIG") or config.KUBE_CONFIG_DEFAULT_LOCATION
    where = f"kubeconfig {paths}"
    if not _exists(paths):
        raise ClusterAccessError(
            f"{where}: no such file, and no service account of a pod: set KUBECONFIG to the cluster's file"
        )
    try:
        contexts, current = config.list_kube_config_contexts(paths)
        if context is not None and context not in (known := sorted(item["name"] for item in contexts)):
            raise ClusterAccessError(f"{where}: no context {context}; it has: {', '.join(known) or 'none'}")
        with _logged_errors() as failures:
            await config.load_kube_config(paths, context, configuration, persist_config=False)
    except yaml.YAMLError as error:
        raise ClusterAccessError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error
    # The loader meets a file of another shape with whatever Python raises there.
    except (TypeError, AttributeError, KeyError) as error:
        raise ClusterAccessError(f"{where} cannot be used: see what `kubectl config view` says of it") from error
    except (config.ConfigException, OSError, ValueError) as error:
        raise ClusterAccessError(f"{where} cannot be used: {' '.join(str(error).split())}") from error
    if failures:
        raise ClusterAccessError(f"{where} cannot be used: its user's login failed: {failures[0]}")
    chosen = current if context is None else next(item for item in contexts if item["name"] == context)
    own = (chosen["context"] or {}).get("namespace")
    return Access(configuration, namespace or own or _DEFAULT_NAMESPACE)


@contextmanager
def _logged_errors() -> Iterator[list[str]]:
    """What the loader only logs: it continues without credentials where a login program fails or is missing."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(" ".join(record.getMessage().split()))  # type: ignore[method-assign]
    handler.setLevel(logging.ERROR)
    logger = logging.getLogger(config.__name__)
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates


def _exists(paths: str) -> bool:
    return any(Path(path).expanduser().exists() for path in paths.split(os.pathsep) if path)
