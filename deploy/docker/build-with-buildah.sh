#!/bin/sh
# build-with-buildah.sh STORE TAG [TARGET]: builds the image where there is neither a Docker engine nor a registry, as
# root, from a Debian root file system that mmdebstrap makes. STORE is a folder for buildah's and podman's storage
# (--root STORE/root --runroot STORE/run --storage-driver vfs). TARGET: production (default) or dev.
#
# Debian packages: buildah mmdebstrap runc. pip's settings of this machine (PIP_CERT, PIP_INDEX_URL) are respected.
set -eu
store=$1 tag=$2 target=${3:-production}
cd "$(dirname "$0")/../.."
mkdir -p "$store/tmp"
export TMPDIR="$store/tmp"

buildah() {
  command buildah --root "$store/root" --runroot "$store/run" --storage-driver vfs "$@"
}

build() {
  buildah bud --quiet --isolation chroot --network host "$@" >/dev/null
}

# The two bases: Python alone, and with ensurepip for the build.
base() {
  name=$1 packages=$2
  buildah inspect --type image "localhost/$name" >/dev/null 2>&1 && return
  folder=$(mktemp -d "$TMPDIR/base.XXXXXX")
  mmdebstrap --quiet --variant=minbase --include="$packages" --aptopt='Acquire::Languages "none"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' bookworm "$folder/rootfs.tar"
  printf 'FROM scratch\nADD rootfs.tar /\n' >"$folder/Dockerfile"
  build --tag "localhost/$name" "$folder"
  rm -r "$folder"
}

base keybroker-base:bookworm python3
base keybroker-build:bookworm python3,python3-venv

certificates=${PIP_CERT:-/etc/ssl/certs/ca-certificates.crt}
pip_conf=$(mktemp "$TMPDIR/pip.conf.XXXXXX")
trap 'rm -f "$pip_conf"' EXIT
printf '[global]\ncert = /run/ca.crt\n%s\n' "${PIP_INDEX_URL:+index-url = $PIP_INDEX_URL}" >"$pip_conf"
build --file deploy/docker/Dockerfile --target "$target" --tag "$tag" \
  --build-arg BASE_IMAGE=localhost/keybroker-base:bookworm \
  --build-arg BUILD_IMAGE=localhost/keybroker-build:bookworm \
  --volume "$certificates:/run/ca.crt:ro" --secret "id=pip.conf,src=$pip_conf" .
