#!/usr/bin/env bash
# Tests with one process a GPU, or on the CPU with gloo where there is no GPU.
#   tools/dist_test.sh CONFIG CHECKPOINT GPUS [flags of tools/test.py]
# Several machines: run it on each, with NNODES, NODE_RANK, PORT and MASTER_ADDR set. TORCHRUN_ARGS
# are further flags of torchrun, such as --max-restarts=3.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_torchrun.sh"

(($# >= 3)) || usage 'CONFIG CHECKPOINT GPUS [flags of tools/test.py]'
CONFIG=$1
CHECKPOINT=$2
GPUS=$3
launch test.py "$CONFIG" "$CHECKPOINT" "${@:4}"
