"""The default release's pods, run: their own commands, environment and configuration, as the kubelet would start them.

Not a cluster: one network instead of Services, one file system instead of volumes. But the user is 1000 and no other
group, the root is read-only, and /tmp, /dev/shm, /store, /weights and Redis' /data are all there is to write, as the
chart's security contexts and mounts say. A path that a process wants beyond them fails the loop here.
"""

import base64
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from golongrl.local.redis_command import find_server
from support.helm import ROOT, Helm, Manifest, Rendered, containers, pod_specs

STEPS = 2
# All pods share one network here, and two of them serve at 8090.
WORKER_PORT = "8091"

# A private view of this machine: an overlay to make mount points in, the pods' volumes, then read-only.
SANDBOX = r"""
set -e
new=$1; files=$2; shift 2
mount -t tmpfs tmpfs "$new"
mkdir "$new"/up "$new"/work "$new"/root
mount -t overlay overlay -o lowerdir=/,upperdir="$new"/up,workdir="$new"/work "$new"/root
root=$new/root
chmod 755 "$root"/root
for volume in tmp store weights data; do
  mkdir -p "$root"/$volume
  mount -t tmpfs -o mode=1777 tmpfs "$root"/$volume
done
mount --rbind /dev "$root"/dev
mount -t tmpfs -o mode=1777,size=2g tmpfs "$root"/dev/shm
mount -t proc proc "$root"/proc
read_only() { mkdir -p "$2"; mount --bind "$1" "$2"; mount -o remount,bind,ro "$2"; }
for folder in "$@"; do read_only "$folder" "$root$folder"; done
for name in golongrl valkey smoke; do read_only "$files" "$root"/etc/$name; done
mount --bind "$files"/hosts "$root"/etc/hosts
mount -o remount,ro "$root"
ip link set lo up
exec chroot --userspec=1000:1000 --groups= "$root" env -i PATH="$PATH" HOME=/tmp bash /etc/golongrl/pods.sh
"""
PODS = """
cd /tmp
export PYTHONDONTWRITEBYTECODE=1
container() { bash /etc/golongrl/$1.sh >/tmp/$1.log 2>&1; }
answers() { python -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=1)' "$1" 2>/dev/null; }
if touch /written 2>/dev/null; then echo "the root can be written"; exit 1; fi
container redis & container reward &
(container prepare-data && container learner; echo "learner: $?") &
learner=$!
(container wait-for-weights && { container engine & until answers http://127.0.0.1:30000/health; do sleep 1; done
  container worker; }) &
for second in $(seq 1200); do sleep 1; kill -0 $learner 2>/dev/null || break; done
bash /etc/golongrl/smoke.sh 2>&1
echo "steps: $(wc -l </store/run/metrics.jsonl)"
for log in /tmp/*.log; do echo "--- $log"; tail -n 15 $log; done
"""


@pytest.mark.full
@pytest.mark.timeout(1500)
def test_the_default_release_trains_as_its_pods_are_confined(helm4: Helm, tmp_path: Path) -> None:
    _needs_namespaces()
    objects = helm4.template({"learner": {"mode": "job"}, "recipe": {"learner": {"steps": STEPS}}})
    files = tmp_path / "files"
    files.mkdir()
    for name, text in {**_scripts(objects), **_configuration(objects), "pods.sh": PODS}.items():
        (files / name).write_text(text)
    (tmp_path / "sandbox").mkdir()
    tmp_path.chmod(0o755)
    needed = sorted({str(ROOT), sys.prefix, sys.base_prefix, str(Path(find_server()).parent)})
    path = f"{sys.prefix}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    command = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "bash", "-c", SANDBOX, "sandbox"]
    done = subprocess.run(
        [*command, str(tmp_path / "sandbox"), str(files), *needed],
        env={"PATH": path}, capture_output=True, text=True, timeout=1400, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert "learner: 0" in said, said
    assert f"steps: {STEPS}" in said, said
    assert said.count("ok: ") == 2, said  # what `helm test` runs


def _needs_namespaces() -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare, for a read-only root and a network of its own")
    tried = subprocess.run(["unshare", "--mount", "--pid", "--net", "--fork", "true"], check=False, timeout=20)
    if tried.returncode:
        pytest.skip("this machine lets nobody make namespaces")


def _scripts(objects: Rendered) -> dict[str, str]:
    """Each container's command line with its environment, by the container's name."""
    secret = {key: base64.b64decode(value).decode() for key, value in objects.one("Secret")["data"].items()}
    scripts = {}
    for _, _, spec in pod_specs(objects):
        for item in containers(spec):
            words = [*item.get("command", []), *item.get("args", [])]
            words = [word.replace("valkey-server", str(find_server())) for word in words]
            if item["name"] == "worker":
                words[words.index("--port") + 1] = WORKER_PORT
            settings = [f"{name}={value}" for name, value in _environment(item, secret).items()]
            scripts[f"{item['name']}.sh"] = f"exec env {shlex.join([*settings, *words])}\n"
    return scripts


def _environment(container: Manifest, secret: dict[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in container.get("env", []):
        source = entry.get("valueFrom", {})
        value = secret[source["secretKeyRef"]["key"]] if "secretKeyRef" in source else entry.get("value", "a")
        # The kubelet puts in what stands before.
        found[entry["name"]] = re.sub(r"\$\((\w+)\)", lambda name: found.get(name[1], name[0]), value)
    return found


def _configuration(objects: Rendered) -> dict[str, str]:
    """What the ConfigMaps mount, and names for what Services would resolve."""
    names = [service["metadata"]["name"] for service in objects.of("Service")]
    data = {key: text for item in objects.of("ConfigMap") for key, text in item["data"].items()}
    wanted = {name: data[name] for name in ("recipe.yaml", "valkey.conf", "smoke.py")}
    return {**wanted, "hosts": f"127.0.0.1 localhost {os.uname().nodename} {' '.join(names)}\n"}
