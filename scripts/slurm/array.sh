#!/bin/bash
# One point of a sweep a task; `research sweep submit` fills in what stands between @ signs.
#SBATCH --job-name=@name@
#SBATCH --array=@indices@
#SBATCH --output="@logs@/slurm-%A_%a.log"
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@@warning@
@resources@
cd @here@ || exit 1
@setup@
export SLURM_EXPORT_ENV=ALL
job="${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
echo "== $(date -Is) $job on $(hostname), start $((${SLURM_RESTART_COUNT:-0} + 1))"

@launch@ @python@ -m research sweep worker @file@ --folder @folder@ --plan @plan@ --seed @seed@ @of@ --index "$SLURM_ARRAY_TASK_ID" &
child=$!
# before its time limit (USR1) and when it is preempted (TERM) the training saves and exits with 85
told=
trap 'told=1; kill -USR1 $child 2>/dev/null' USR1
trap 'told=1; kill -@term@ $child 2>/dev/null' TERM
while true; do # a trapped signal interrupts wait
  wait $child
  code=$?
  kill -0 $child 2>/dev/null || break
done
echo "== $(date -Is) $job ends with $code"
restarts=${SLURM_RESTART_COUNT:-0}
if [ $code -eq 85 ] || { [ $code -gt 128 ] && { [ $told ] || [ "$restarts" -lt @attempts@ ]; }; }; then
  # preempted, out of time, or killed: this very task again, which goes on from its checkpoint
  scontrol requeue "$job" && exit 0
fi
exit $code # 2: the input is wrong, and would be again; 3: it has diverged, and would again; 1: it has crashed @attempts@ times
