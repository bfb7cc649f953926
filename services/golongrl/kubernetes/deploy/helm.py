"""`golongrl deploy`: installs the chart with the helm on PATH, through pyhelm3."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from pyhelm3 import Command
from pyhelm3 import errors as helm_errors

from golongrl import recipe as recipes
from golongrl.kubernetes import kinds
from golongrl.kubernetes.cluster import connect
from golongrl.kubernetes.cluster_errors import ClusterError, ClusterMissingError
from golongrl.kubernetes.deploy import diff
from golongrl.kubernetes.deploy.crd import keep_definition
from golongrl.kubernetes.forms import fit, text
from golongrl.kubernetes.helm import HelmError, answers, call, helm_path, reason, rendered
from golongrl.kubernetes.rayjob.load import load_values, read_trees, recipe_of
from golongrl.kubernetes.rayjob.render import chart

T = TypeVar("T")
_RECORD: Final = {"info!": {"status!": text, "last_deployed!": text}}
# Of a command that only reads. helm itself would ask a busy API server ten times, each time after what it asks for.
_READ_S: Final = 120.0
# Of a look at what helm waits for.
_ASK_S: Final = 3.0
# Helm 4's words before the objects that it did not remove.
_LEFT: Final = "were not deleted"
# What helm says if its first call fails.
_UNREACHABLE: Final = "kubernetes cluster unreachable"
# helm ends by itself at its own --timeout; what it does before and after that takes seconds.
_SLACK_S: Final = 60.0


class DeployError(HelmError):
    """helm failed, or cannot reach the cluster; the message is helm's own, in one line."""


def user_values(files: Iterable[Path], settings: Iterable[str]) -> dict[str, Any]:
    """The values of files and `--set a.b=c`, later ones over earlier ones, checked together with their recipe.

    Raises:
        InputError: a file, key or value is wrong.
    """
    tree = read_trees(files)
    for item in settings:
        recipes.override(tree, item)
    values = load_values(overrides=tree)
    recipe_of(values)
    recipes.plain_json(tree, "values")
    return tree


class _Helm(Command):  # type: ignore[misc]
    """pyhelm3 with a deadline for each call, and without a shell."""

    def __init__(self, timeout: str, namespace: str, context: str | None) -> None:
        super().__init__(default_timeout=timeout)
        self._access = namespace, context
        self._context = ["--kube-context", context] if context else []
        units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
        self._deadline_s = _SLACK_S + sum(
            float(number) * units[unit] for number, unit in re.findall(r"([0-9.]+)(ms|h|m|s)", timeout)
        )

    async def run(self, command: list[Any], input: bytes | None = None) -> bytes:
        words = [*map(str, command), *self._context]
        # Only what changes something is told how long it may take.
        deadline_s = self._deadline_s if "--timeout" in words else _READ_S
        done = call(words, input, deadline_s, self.waits_for)
        if done.returncode == 0:
            return done.stdout
        said = reason(done.stderr, done.returncode).encode()
        kind = helm_errors.ReleaseNotFoundError if b"release: not found" in said else helm_errors.Error
        raise kind(done.returncode, done.stdout, said)

    def waits_for(self) -> str:
        """Why the API server answers nothing; empty if it answers."""
        # In a thread with a loop of its own: this one is blocked by helm.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, _refusal(*self._access)).result()


async def _refusal(namespace: str, context: str | None) -> str:
    """Why the API server answers nothing; empty if it answers."""
    try:
        # The call has its own deadline; the rest is for the login of the kubeconfig's user.
        async with asyncio.timeout(2 * _ASK_S), connect(namespace, context, call_s=_ASK_S) as calls:
            await calls.version()
    except ClusterError as error:
        return str(error)
    except TimeoutError:
        return "the login of the kubeconfig's user has not ended"
    return ""


async def _left_behind(release: str, namespace: str, context: str | None) -> str:
    """What still holds nodes of a release that is gone: helm does not know what people have made for it."""
    ours = f"app.kubernetes.io/instance={release}"
    left, told = list[str](), list[str]()
    try:
        async with connect(namespace, context) as calls:
            for kind, labels in ((kinds.TRAINING_RUN, None), (kinds.RAY_JOB, ours), (kinds.JOB, ours)):
                with suppress(ClusterMissingError):
                    found = await calls.list_objects(kind, labels)
                    left += [f"{kind.name.lower()}/{name}" for name in _still_used(found, release)]
    except ClusterError as error:
        told.append(f"not checked what else is left: {error}")
    if left:
        told.insert(0, f"still there, with their pods: kubectl -n {namespace} delete {' '.join(left)}")
    return "\n".join(told)


def _still_used(found: Iterable[Mapping[str, Any]], release: str) -> Iterator[str]:
    """Names of those that do not go by themselves: what is deleted, or is a TrainingRun's, does."""
    for item in found:
        metadata = item["metadata"]
        another = item["kind"] == "TrainingRun" and item["spec"]["release"] != release
        if not (another or metadata.get("deletionTimestamp") or metadata.get("ownerReferences")):
            yield metadata["name"]


class Deployment:
    """One release on one cluster."""

    def __init__(self, release: str, namespace: str, context: str | None = None, timeout: str = "10m") -> None:
        self.release = release
        self.namespace = namespace
        self._context = context
        self._timeout = timeout
        self._helm = _Helm(timeout, namespace, context)

    def apply(self, values: Mapping[str, Any], wait: bool = False) -> str:
        """Install or upgrade; returns the chart's NOTES.

        Raises:
            HelmError, ClusterError: helm is missing or failed, or the API server refused.
        """
        warning = ""
        if (values.get("operator") or {}).get("enabled"):
            helm_path()
            warning = keep_definition(Path(chart()), self.namespace, self._context)
        done = self._call(
            lambda: self._helm.install_or_upgrade(
                self.release,
                chart(),
                dict(values),
                namespace=self.namespace,
                wait=wait,
                create_namespace=True,
                # It is kept above; Helm 4 would replace a newer one.
                skip_crds=True,
            )
        )
        with answers("helm upgrade"):
            notes = str(dict(done)["info"].get("notes", "")).strip()
        return "\n\n".join(filter(None, [warning, notes]))

    def preview(self, values: Mapping[str, Any]) -> list[str]:
        """What `apply` would change in the cluster, in lines.

        Raises:
            HelmError: helm is missing or failed.
        """
        # Not pyhelm3's dry_run: in Helm 4 that is client-side, without the cluster's kinds and without `lookup`.
        command = ["upgrade", self.release, chart(), "--install", "--dry-run=server", "--namespace", self.namespace]
        given = json.dumps(dict(values)).encode()
        planned = self._call(lambda: self._helm.run([*command, "--output", "json", "--values", "-"], given))
        with answers("helm upgrade --dry-run"):
            return list(diff.changes(self._installed(), rendered(json.loads(planned)["manifest"])))

    def status(self) -> Mapping[str, Any]:
        """Helm's own record of the release.

        Raises:
            HelmError: helm is missing or failed, or there is no such release.
        """
        record = fit(self._call(lambda: self._helm.status(self.release, namespace=self.namespace)), _RECORD)
        with answers("helm status"):
            return dict(record)

    def uninstall(self) -> str:
        """Remove the release; its volumes and the Secret are kept. Returns what people have made for it and is left.

        Raises:
            HelmError: helm is missing or failed, there is no such release, or objects of it are left.
        """
        command = ["uninstall", self.release, "--timeout", self._timeout, "--namespace", self.namespace]
        said = self._call(lambda: self._helm.run(command)).decode(errors="replace")
        # Helm 4 looks at each object first, leaves those that it cannot read, forgets the release, and ends well.
        _, _, left = said.partition(_LEFT)
        if left:
            lines = (" ".join(line.split()) for line in left.splitlines() if line.startswith("["))
            raise DeployError(
                f"helm, release {self.release} in namespace {self.namespace}: removed, but objects of it are left, "
                f"which helm no longer knows; delete them with kubectl: {'; '.join(lines)}"
            )
        return asyncio.run(_left_behind(self.release, self.namespace, self._context))

    def _installed(self) -> list[dict[str, Any]]:
        command = ["get", "manifest", self.release, "--namespace", self.namespace]
        try:
            return rendered(self._call(lambda: self._helm.run(command)).decode())
        except DeployError as error:
            if isinstance(error.__cause__, helm_errors.ReleaseNotFoundError):
                return []
            raise

    def _call(self, ask: Callable[[], Awaitable[T]]) -> T:
        async def run() -> T:
            return await ask()

        # helm blocks the loop. asyncio.run would keep Ctrl-C for the loop's next turn, when helm has ended.
        try:
            with answers(f"helm, release {self.release}"), closing(asyncio.new_event_loop()) as loop:
                return loop.run_until_complete(run())
        except helm_errors.Error as error:
            why = error.stderr.decode()
            if _UNREACHABLE in why.lower():
                # helm names neither the server nor what it answered.
                why = self._helm.waits_for() or why
            raise DeployError(f"helm, release {self.release} in namespace {self.namespace}: {why}") from error
