#!/usr/bin/env bash
# Build the images with the container engine that is here: docker, podman or buildah.
#
#   scripts/images.sh                         # golongrl-{reward,rollout,operator,learner}:dev
#   scripts/images.sh reward rollout          # some of them
#   TAG=e2e ENGINE=docker scripts/images.sh   # another tag, a certain engine
#   BUILD_FLAGS='--build-arg BASE=...' scripts/images.sh   # more arguments of `docker build`, split at spaces
set -euo pipefail
cd "$(dirname "$0")/.."

# The learner's is last, because it is the longest.
[ $# -gt 0 ] || set -- reward rollout operator learner

find_engine() {
    # A docker without its daemon is no engine.
    if docker info >/dev/null 2>&1; then echo docker; return; fi
    for name in podman buildah; do
        if command -v "$name" >/dev/null; then echo "$name"; return; fi
    done
    echo "error: no container engine: install docker, podman or buildah" >&2
    exit 1
}
ENGINE=${ENGINE:-$(find_engine)}

command=("$ENGINE" build)
case $ENGINE in
    docker) export DOCKER_BUILDKIT=1 ;;
    # Both write OCI images, whose SHELL they would ignore; layers of an earlier build are taken again.
    podman | buildah) command+=(--format docker --layers) ;;
esac
read -r -a more <<<"${BUILD_FLAGS:-}"
for image in "$@"; do
    echo "building golongrl-$image:${TAG:-dev} with $ENGINE"
    "${command[@]}" "${more[@]}" -f images/Dockerfile --target "$image" -t "golongrl-$image:${TAG:-dev}" .
done
