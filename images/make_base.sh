#!/usr/bin/env bash
# A stand-in for the images' base where no registry can be reached: Debian bookworm by debootstrap, with this machine's
# Python 3.11 in /usr/local, where Docker's python images have theirs. Needs root and docker, podman or buildah.
#
#   images/make_base.sh docker.io/library/python:3.11.14-slim-bookworm   # the name that images/Dockerfile asks for
set -euo pipefail

name=${1:?usage: images/make_base.sh NAME}
engine=${ENGINE:?set ENGINE to docker, podman or buildah}
python=$("${PYTHON:-python3.11}" -c 'import sys; print(sys.base_prefix)')
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

# What Docker's python:slim has, and the libraries that Python's own extensions load.
debootstrap --variant=minbase \
    --include=ca-certificates,netbase,tzdata,libbz2-1.0,libffi8,liblzma5,libncursesw6,libnsl2,libreadline8,libsqlite3-0,libssl3,libuuid1,zlib1g \
    bookworm "$root" >&2
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb "$root"/var/log/* \
    "$root"/usr/share/{doc,man,info,locale}/*

mkdir -p "$root"/usr/local/{bin,lib,include}
cp -a "$python"/bin/{python3.11,python3,python} "$root"/usr/local/bin/
cp -a "$python"/lib/libpython3.11.so* "$python"/lib/libpython3.so "$root"/usr/local/lib/ 2>/dev/null || true
cp -a "$python"/include/python3.11 "$root"/usr/local/include/
tar -C "$python"/lib --exclude=__pycache__ --exclude=site-packages --exclude=test --exclude=tests --exclude=idle_test \
    --exclude='config-3.11-*' --exclude='*.a' -cf - python3.11 | tar -C "$root"/usr/local/lib -xf -
mkdir -p "$root"/usr/local/lib/python3.11/site-packages
chroot "$root" ldconfig
chroot "$root" /usr/local/bin/python -m ensurepip >&2
printf '#!/bin/sh\nexec /usr/local/bin/python -m pip "$@"\n' >"$root"/usr/local/bin/pip
chmod 755 "$root"/usr/local/bin/pip
strip --strip-unneeded "$root"/usr/local/lib/libpython3.11.so* "$root"/usr/local/lib/python3.11/lib-dynload/*.so
find "$root"/usr/local -name __pycache__ -prune -exec rm -rf {} +
chown -R 0:0 "$root"/usr/local

if [ "$engine" = buildah ]; then
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$root" / >&2
    buildah config --env PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin --env LANG=C.UTF-8 --cmd python3 "$container"
    buildah commit --quiet --rm "$container" "$name"
else
    tar -C "$root" -cf - . | "$engine" import --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' \
        --change 'ENV LANG=C.UTF-8' --change 'CMD ["python3"]' - "$name"
fi
