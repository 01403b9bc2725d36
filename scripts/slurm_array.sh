#!/usr/bin/env bash
# One task of a Slurm job array executes one shard of a plan file; docs/slurm.md walks through it.
#   shardmig plan … --out plan.msgpack                              # says how many shards there are
#   sbatch --array=1-40%8 slurm_array.sh plan.msgpack               # at most 8 at once
#   shardmig collect --plan plan.msgpack                            # when all have ended
# usage: slurm_array.sh PLAN [OPTION]...   options as of `shardmig execute-shard`
#SBATCH --job-name=shardmig
#SBATCH --cpus-per-task=1
#SBATCH --mem=2G
#SBATCH --time=12:00:00
#SBATCH --requeue
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }

plan=$1
shift
# --signal of sbatch or scancel reach shardmig itself, which then ends resumable; exec keeps its exit code for sacct.
exec shardmig execute-shard --plan "$plan" --shard "${SLURM_ARRAY_TASK_ID:?start it with sbatch --array}" --no-progress "$@"
