#!/usr/bin/env bash
# Works on a sweep from a Slurm job array: every task of the array is a machine of its own.
#   [GPUS_PER_TASK=1] [CPUS_PER_TASK=5] [SBATCH_ARGS=...] \
#       tools/slurm_sweep.sh PARTITION JOB_NAME TASKS STORAGE [flags of tools/sweep.py run]
# STORAGE is the URL of a database that all machines reach. A task that is preempted or out of time
# gives back what it runs; with SBATCH_ARGS=--requeue it comes back.
set -euo pipefail

if (($# < 5)); then
    echo "usage: $(basename "$0") PARTITION JOB_NAME TASKS STORAGE [flags of tools/sweep.py run]" >&2
    exit 2
fi
PARTITION=$1
JOB_NAME=$2
TASKS=$3
STORAGE=$4
GPUS_PER_TASK=${GPUS_PER_TASK:-1}
TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

FLAGS=("--storage" "$STORAGE" "${@:5}")
if ((GPUS_PER_TASK > 0)); then
    FLAGS+=("--gpus" "$(seq -s, 0 $((GPUS_PER_TASK - 1)))")
    GRES=(--gres="gpu:$GPUS_PER_TASK")
else
    GRES=()
fi

export PYTHONPATH=$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}
# SBATCH_ARGS is a list of words. The shell that Slurm starts makes way for Python, so that the
# signal a minute before the end reaches it.
# shellcheck disable=SC2086
exec sbatch \
    --partition="$PARTITION" \
    --job-name="$JOB_NAME" \
    --array="1-$TASKS" \
    "${GRES[@]}" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --signal=B:TERM@60 \
    ${SBATCH_ARGS:-} \
    --wrap "exec python -u $(printf '%q ' "$TOOLS/sweep.py" run "${FLAGS[@]}")"
