#!/bin/bash
# A batch as a Slurm array: sbatch --array=1-16 slurm.sh BUNDLE SCANS RESULTS [OPTIONS]
# Then the report: sbatch --dependency=afterany:JOB --wrap "medseg report RESULTS"
#SBATCH --job-name=medseg
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --requeue
#SBATCH --open-mode=append
# With a GPU for each: sbatch --gres=gpu:1 …
set -eu
exec medseg segment "$@" --shard auto --threads "${SLURM_CPUS_PER_TASK:-1}" --quiet
