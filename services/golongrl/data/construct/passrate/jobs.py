"""The Job of a pool of engines: it is made suspended, so that it has no GPUs before its model is asked.

Two calls to the API server of the pod's own cluster, with the token of its service account: a look at the Job, and
`suspend: false`. The official client is not in the image; it is larger than all of this package.
"""

import asyncio
import json
import os
import ssl
from pathlib import Path
from typing import Any, Final

import httpx
import structlog

from golongrl.data.construct.errors import PipelineError

log = structlog.get_logger(__name__)

# Where the kubelet mounts the token, the authority and the namespace.
ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_CALL_S: Final = 10.0
# An API server that is upgraded is away for some minutes.
_TRIES: Final = 30
_PAUSE_S: Final = 10.0
_ENDED: Final = frozenset({"Complete", "Failed", "FailureTarget", "SuccessCriteriaMet"})


class PoolJob:
    """One Job, by name."""

    def __init__(self, name: str, account: Path | None = None, server: str = "", pause_s: float = _PAUSE_S) -> None:
        self._name = name
        self._account = account or ACCOUNT
        self._server = server or _server()
        self._pause_s = pause_s

    async def start(self) -> None:
        """Let it make its pods.

        Raises:
            PipelineError: it has ended or is not there, or the API server refuses, or does not answer for minutes.
        """
        for tried in range(_TRIES):
            try:
                job = await self._call("GET")
                self._refuse_ended(job)
                if (job.get("spec") or {}).get("suspend"):
                    await self._call("PATCH", {"spec": {"suspend": False}})
                    log.info("the pool of engines is started", job=self._name)
            except JobSilentError as error:
                log.warning("the API server does not answer; trying again", job=self._name, error=str(error))
                if tried + 1 == _TRIES:
                    raise PipelineError(f"Job {self._name}: {error}") from error
                await asyncio.sleep(self._pause_s)
            else:
                return

    async def check(self) -> None:
        """See that its pods are wanted still. No answer is no news.

        Raises:
            PipelineError: it has ended, so nobody answers the prompts.
        """
        try:
            self._refuse_ended(await self._call("GET"))
        except JobSilentError as error:
            log.warning("the API server does not answer", job=self._name, error=str(error))

    def _refuse_ended(self, job: dict[str, Any]) -> None:
        for condition in (job.get("status") or {}).get("conditions") or []:
            if condition.get("type") in _ENDED and condition.get("status") == "True":
                why = " ".join(str(condition.get(key) or "") for key in ("type", "reason", "message")).strip()
                raise PipelineError(
                    f"Job {self._name}: the pool of engines has ended ({' '.join(why.split())}); look at its pods, "
                    "then delete the Job and install it again"
                )

    async def _call(self, method: str, change: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            # Read each time: the kubelet renews the token.
            token = (self._account / "token").read_text("utf-8").strip()
            namespace = (self._account / "namespace").read_text("utf-8").strip()
            trust = (
                ssl.create_default_context(cafile=str(self._account / "ca.crt"))
                if self._server.startswith("https")
                else False
            )
        except OSError as error:
            raise PipelineError(
                f"--pool-job {self._name}: {error.filename}: {error.strerror}; it is for pods with a service account"
            ) from error
        url = f"{self._server}/apis/batch/v1/namespaces/{namespace}/jobs/{self._name}"
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        if change is not None:
            headers["Content-Type"] = "application/merge-patch+json"
        try:
            async with httpx.AsyncClient(verify=trust, timeout=_CALL_S, trust_env=False) as client:
                answer = await client.request(
                    method, url, headers=headers, content=None if change is None else json.dumps(change)
                )
            found = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise JobSilentError(f"API server {self._server}: {type(error).__name__} {error}") from error
        if answer.is_server_error or answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise JobSilentError(f"API server {self._server}: {answer.status_code}")
        if not answer.is_success or not isinstance(found, dict):
            said = found.get("message", "") if isinstance(found, dict) else ""
            why = f"{answer.status_code} {' '.join(str(said).split())}".rstrip()
            raise PipelineError(f"Job {self._name}: API server {self._server}: {why}")
        return found


class JobSilentError(PipelineError):
    """It may answer the next time."""


def _server() -> str:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise PipelineError("--pool-job: is for pods of Kubernetes, which have KUBERNETES_SERVICE_HOST")
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
