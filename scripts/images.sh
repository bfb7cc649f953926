#!/usr/bin/env bash
# Build the images with the container engine that is here: docker, podman or buildah.
#
#   scripts/images.sh                         # golongrl-{reward,rollout,operator,learner}:dev
#   scripts/images.sh reward rollout          # some of them
#   TAG=e2e ENGINE=docker scripts/images.sh   # another tag, a certain engine
#   BUILD_FLAGS='--build-arg BASE=...' scripts/images.sh   # more arguments of `docker build`, split at spaces
#   STAND_IN=1 scripts/images.sh              # where the base cannot be pulled, make one (images/make_base.sh, as root)
#
# podman and buildah give the build this machine's certificates, its configuration of pip, and the wheels that pip finds
# in PIP_FIND_LINKS: a mirror, or an authority of one's own, holds inside too.
set -euo pipefail
cd "$(dirname "$0")/.."

# The learner's is last, because it takes longest.
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
export ENGINE

command=("$ENGINE" build)
if [ "$ENGINE" = docker ]; then
    export DOCKER_BUILDKIT=1
else
    # Format docker, because OCI has no SHELL; chroot and the host's network work inside a container too.
    export BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot}
    command+=(--format docker --layers --network host)
    uv=$(mktemp)
    trap 'rm -f "$uv"' EXIT
    echo 'system-certs = true' >"$uv"
    if [ -d "${PIP_FIND_LINKS:-}" ]; then
        printf '[pip]\nfind-links = ["%s"]\n' "$PIP_FIND_LINKS" >>"$uv"
        command+=(-v "$PIP_FIND_LINKS:$PIP_FIND_LINKS:ro")
        # A CPU wheel of torch among them is taken before any that an index has.
        if compgen -G "$PIP_FIND_LINKS/torch-*+cpu-*.whl" >/dev/null; then
            command+=(--build-arg TORCH_INDEX="file://$PIP_FIND_LINKS")
        fi
    fi
    command+=(-v "$uv:/etc/uv/uv.toml:ro")
    for path in /etc/pip.conf /etc/ssl/certs; do
        [ ! -e "$path" ] || command+=(-v "$path:$path:ro")
    done
fi
read -r -a more <<<"${BUILD_FLAGS:-}"

if [ "${STAND_IN:-0}" = 1 ]; then
    base=$(sed -n 's/^ARG BASE=//p' images/Dockerfile)
    "$ENGINE" inspect --type image "$base" >/dev/null 2>&1 || "$ENGINE" pull --quiet "$base" 2>/dev/null \
        || images/make_base.sh "$base"
fi
for image in "$@"; do
    echo "building golongrl-$image:${TAG:-dev} with $ENGINE"
    "${command[@]}" "${more[@]}" -f images/Dockerfile --target "$image" -t "golongrl-$image:${TAG:-dev}" .
done
