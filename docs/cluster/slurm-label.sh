#!/bin/bash
#SBATCH --job-name=depthsieve
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
# In an array: this task's part of the plan. On its own: all that is left, and the index.
set -e
. ./site.sh
part=()
if [ -n "$SLURM_ARRAY_TASK_ID" ]; then part=(--part "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"); fi
exec depthsieve label "$PHOTOS" "$LABELS" --device "$DEVICE" --threads "$SLURM_CPUS_PER_TASK" --grace 60 --allow-failed \
    "${part[@]}"
