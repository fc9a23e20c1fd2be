#!/bin/sh
# Run the agent's runtimes as an emulated Cortex-A53 and compare with this machine: what `make test-aarch64` does.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
export NONN_AARCH64="${NONN_AARCH64:-${XDG_CACHE_HOME:-$HOME/.cache}/nonn-edge/aarch64}"
sh "$here/prepare.sh" "$NONN_AARCH64"
exec "${PYTHON:-python3}" -m pytest "$here" "$@"
