# What the Slurm scripts beside this file share. Edit it once; they read it from the folder in which sbatch is run.
. /shared/depthsieve/bin/activate    # the environment; or: module load ..., conda activate ...

PHOTOS=/data/photos                  # under the same name on all nodes; s3://bucket/prefix works too
LABELS=/data/labels
TEACHER=depth-anything-v2-small      # or the folder of a checkpoint
DEVICE=cuda

export HF_HOME=/shared/huggingface   # filled once, on a machine with internet access: hf download ...
export HF_HUB_OFFLINE=1              # compute nodes then ask no server

# Keys of a bucket, as lines `export AWS_ACCESS_KEY_ID=...`, in a file that only you can read (chmod 600).
if [ -f ~/.depthsieve-bucket ]; then . ~/.depthsieve-bucket; fi
