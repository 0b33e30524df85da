#!/bin/bash
#SBATCH --job-name=depthsieve-ray
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
set -e
. ./site.sh

export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$HOME/.depthsieve-token-$SLURM_JOB_ID   # HOME is on all nodes
(umask 077; python -c 'import secrets; print(secrets.token_hex(32), end="")' > "$RAY_AUTH_TOKEN_PATH")
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0                  # else the nodes stay busy for 30 s after the end

head=$SLURMD_NODENAME                    # the batch script runs on the first node of the job
ip=$(python -c 'import ray; print(ray.util.get_node_ip_address())')
place=(--cpus-per-task="$SLURM_CPUS_PER_TASK" --ntasks-per-node=1)
size=(--num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --disable-usage-stats --block)
srun --nodes=1 --ntasks=1 --nodelist="$head" "${place[@]}" ray start --head --node-ip-address="$ip" --port=6379 "${size[@]}" &
until (exec 3<>"/dev/tcp/$ip/6379") 2>/dev/null; do kill -0 $!; sleep 1; done    # ends the job if the head did not start
workers=$((SLURM_JOB_NUM_NODES - 1))
[ $workers = 0 ] || srun --nodes="$workers" --ntasks="$workers" --exclude="$head" "${place[@]}" ray start --address="$ip:6379" "${size[@]}" &

depthsieve label "$PHOTOS" "$LABELS" --teacher "$TEACHER" --device "$DEVICE" --address "$ip:6379" --grace 60 --allow-failed &
label=$!
trap 'kill -TERM $label' TERM
code=0; wait $label || code=$?
if [ $code -gt 128 ]; then code=0; wait $label || code=$?; fi    # the first wait ended because of the signal
exit $code                               # Slurm ends the srun steps with the job
