#!/bin/bash
# ./slurm-submit.sh PARTS: a plan, then an array of parts, then what is left and the index. Run it again to resume.
set -e
parts=${1:?say how many parts}
plan=$(sbatch --parsable slurm-plan.sh)
array=$(sbatch --parsable --kill-on-invalid-dep=yes --dependency="afterok:$plan" --array="1-$parts" slurm-label.sh)
last=$(sbatch --parsable --kill-on-invalid-dep=yes --dependency="afterok:$plan,afterany:$array" slurm-label.sh)
echo "plan: slurm-$plan.out; parts: slurm-${array}_1.out to slurm-${array}_$parts.out; the rest: slurm-$last.out"
