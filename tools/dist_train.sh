#!/usr/bin/env bash
# Trains with one process a GPU, or on the CPU with gloo where there is no GPU.
#   tools/dist_train.sh CONFIG GPUS [flags of tools/train.py]
# Several machines: run it on each, with NNODES, NODE_RANK, PORT and MASTER_ADDR set. TORCHRUN_ARGS
# are further flags of torchrun, such as --max-restarts=3.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_torchrun.sh"

(($# >= 2)) || usage 'CONFIG GPUS [flags of tools/train.py]'
CONFIG=$1
GPUS=$2
launch train.py "$CONFIG" "${@:3}"
