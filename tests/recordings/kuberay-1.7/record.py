"""Record KubeRay's CRDs from a checkout of its repository: `record.py KUBERAY/ray-operator/config/crd/bases`.

Keeps what the tests read, which is the version v1 of RayJob and RayCluster, as JSON: 0.4 MB where the YAML has 2.3 MB.
"""

import json
import sys
from pathlib import Path

import yaml

KINDS = ("rayjobs", "rayclusters")


def main(source: Path) -> None:
    for kind in KINDS:
        crd = yaml.load((source / f"ray.io_{kind}.yaml").read_text("utf-8"), Loader=yaml.CSafeLoader)
        crd["spec"]["versions"] = [version for version in crd["spec"]["versions"] if version["name"] == "v1"]
        target = Path(__file__).with_name(f"{kind}.json")
        target.write_text(json.dumps(crd, separators=(",", ":")) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
