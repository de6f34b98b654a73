#!/bin/bash
# A batch over Ray, as one Slurm job of several nodes: sbatch --nodes=2 ray.sh BUNDLE SCANS RESULTS [OPTIONS]
# Elsewhere: on one machine the line with --head, on the others that with --address, and then the last.
#SBATCH --job-name=medseg
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
# With GPUs: sbatch --gpus-per-node=4 …
set -eu
# A port of its own: other jobs may run on this machine.
head=$(hostname):$((20000 + ${SLURM_JOB_ID:-0} % 10000))
export RAY_USAGE_STATS_ENABLED=0
# Without a token, all who reach the head run programs as this user. srun passes it on.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
# Ray would take all CPUs of a machine, those of other jobs, too.
cpus=${SLURM_CPUS_PER_TASK:-$(nproc)}
ray start --head --port="${head##*:}" --num-cpus="$cpus" --include-dashboard=false --block > /dev/null &
ray=$!
# Not by `ray stop`, which ends the Ray of other jobs as well.
trap 'kill $ray' EXIT
until ray health-check --address "$head" 2> /dev/null; do
    kill -0 $ray
    sleep 1
done
others=$((${SLURM_NNODES:-1} - 1))
[ "$others" = 0 ] || srun --nodes="$others" --ntasks="$others" --cpus-per-task="$cpus" --exclude="${SLURMD_NODENAME:-$(hostname)}" \
    ray start --address="$head" --num-cpus="$cpus" --block > /dev/null &
medseg segment "$@" --on "ray=$head" --quiet
