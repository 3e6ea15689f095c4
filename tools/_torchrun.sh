# What dist_train.sh and dist_test.sh share; they source it.

usage() {
    echo "usage: $(basename "$0") $1" >&2
    exit 2
}

# launch TOOL ARGUMENTS...: starts $GPUS processes of a tool on this machine.
launch() {
    local tools
    tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
    [[ $GPUS =~ ^[1-9][0-9]*$ ]] || usage "...: GPUS is a number of processes, not '$GPUS'"
    # One thread a process, unless told otherwise: processes share the machine's cores.
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} MKL_NUM_THREADS=${MKL_NUM_THREADS:-1}
    export PYTHONPATH=$tools/..${PYTHONPATH:+:$PYTHONPATH}
    # With --rdzv-backend=c10d and --max-restarts, processes that are started again would meet in the
    # launcher's store, find the addresses of those before, and wait for them forever. Without it
    # the first of them makes a new store each time.
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=${TORCH_DISABLE_SHARE_RDZV_TCP_STORE:-1}
    # TORCHRUN_ARGS is a list of words.
    # shellcheck disable=SC2086
    exec python -m torch.distributed.run \
        --nnodes="${NNODES:-1}" \
        --node_rank="${NODE_RANK:-0}" \
        --master_addr="${MASTER_ADDR:-127.0.0.1}" \
        --master_port="${PORT:-29500}" \
        --nproc_per_node="$GPUS" \
        ${TORCHRUN_ARGS:-} \
        "$tools/$1" "${@:2}" --launcher pytorch
}
