#!/bin/sh
# Prepare a 64-bit Arm Python with the agent's official wheels, for QEMU's user emulation. No root, no Arm code run.
# Usage: prepare.sh FOLDER. Done once per version of the packages; about 1 minute and 250 MB.
set -eu

folder=$1
python=3.11
# What the agent runs with; tests/aarch64/test_aarch64.py checks them against pyproject.toml.
packages='ai-edge-litert==2.1.6 apache-tvm-ffi==0.1.14.post0 numpy>=1.26 pydantic>=2.9 psutil>=5.9 paho-mqtt>=2.2'
tvm='apache-tvm==0.27.0.post1'
stamp="$folder/stamp-$(cat "$0" | sha256sum | cut -c1-12)"
[ -e "$stamp" ] && exit 0

for tool in mmdebstrap qemu-aarch64-static; do
    command -v "$tool" >/dev/null || { echo "$tool is missing: apt-get install mmdebstrap qemu-user-static" >&2; exit 69; }
done

rm -rf "$folder"
mkdir -p "$folder/wheels"

# Unpacked, not installed: no maintainer script runs, so neither root nor binfmt is needed.
mmdebstrap --quiet --variant=extract --architectures=arm64 --components=main \
    --include="python$python-minimal,libpython$python-stdlib,libstdc++6,libgomp1,libffi8,libssl3" \
    bookworm "$folder/sysroot" "${NONN_DEBIAN_MIRROR:-http://deb.debian.org/debian}"

# One tag alone finds no wheel: every package was built against another glibc.
platforms=''
for tag in 2_34 2_28 2_27 2_17; do platforms="$platforms --platform manylinux_${tag}_aarch64"; done
set -- --python-version "$python" --implementation cp --abi cp311 --abi abi3 --abi none --only-binary=:all: \
    $platforms --platform manylinux2014_aarch64 --platform any
# shellcheck disable=SC2086 # a list
"${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --target "$folder/packages" "$@" $packages
"${PYTHON:-python3}" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$folder/wheels" "$@" $tvm
repository=$(cd "$(dirname "$0")/../.." && pwd)
PYTHONPATH="$repository" "${PYTHON:-python3}" -m edge_agent.runtimes.tvm_library "$folder"/wheels/apache_tvm-*.whl "$folder/tvm"
rm -r "$folder/wheels"
touch "$stamp"
