#!/bin/bash
#SBATCH --job-name=depthsieve-plan
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=4:00:00
set -e
. ./site.sh
exec depthsieve plan "$PHOTOS" "$LABELS" --teacher "$TEACHER" --device "$DEVICE" --threads "$SLURM_CPUS_PER_TASK" \
    --write --allow-failed
