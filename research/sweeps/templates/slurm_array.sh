#!/bin/bash
#
# The sweep @name@: one point a task, whose number is that of the point in the plan.
#
# `research sweep submit` has written this script. A task that is stopped (out of time, preempted)
# saves its training and is requeued, and goes on from there. The job after this array submits again
# what is missing, and writes the report.
#
#SBATCH --job-name=@name@
#SBATCH --array=@indices@
#SBATCH --output="@logs@/slurm-%A_%a.log"
#SBATCH --open-mode=append
#SBATCH --requeue
# USR1 comes so many seconds before the time limit:
#SBATCH --signal=B:USR1@@warning@
@resources@

# where `sweep submit` was typed: paths in the sweep's command start there
cd @here@ || exit 1
@setup@

python=@python@
# the sweep's folder, and copies of its YAML and its plan as they were when it was submitted
folder=@folder@
sweep=@file@
plan=@plan@
seed=@seed@
# how often a task may be killed without a warning
attempts=@attempts@

export SLURM_EXPORT_ENV=ALL # srun's steps see this environment

task="${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
restarts=${SLURM_RESTART_COUNT:-0}
echo "== $(date -Is) $task on $(hostname), start $((restarts + 1))"

command=(
  @launch@
  "$python" -m research sweep worker "$sweep"
  --folder "$folder"
  --plan "$plan"
  --seed "$seed"
  @of@
  --index "$SLURM_ARRAY_TASK_ID"
)
"${command[@]}" &
child=$!

# Before its time limit (USR1), and when it is preempted (TERM), the training is told: it saves and
# exits with 85. TERM comes of scancel as well, and then the task is not requeued.
told=
cancelled=
@is_cancelled@
trap 'told=1; kill -USR1 $child 2>/dev/null' USR1
trap 'kill -@term@ $child 2>/dev/null; [ $told ] || ! is_cancelled || cancelled=1; told=1' TERM
while true; do # a trapped signal interrupts wait
  wait $child
  code=$?
  kill -0 $child 2>/dev/null || break
done
echo "== $(date -Is) $task ends with $code"

# Saved, or killed: this very task again. Other codes would come again: 2 is wrong input, 3 a
# training that diverged, and a point that has crashed was tried $attempts times.
again=
deaf="$folder/logs/$task.deaf" # a line for each time that it was told before it listened
if [ $code -eq 85 ]; then
  again=1
  rm -f "$deaf"
elif [ $code -gt 128 ] && [ $told ]; then
  echo $code >>"$deaf"
  [ "$(wc -l <"$deaf")" -gt "$attempts" ] || again=1
elif [ $code -gt 128 ] && [ "$restarts" -lt "$attempts" ]; then
  again=1
fi
if [ $again ] && [ ! $cancelled ]; then
  scontrol requeue "$task" && exit 0
fi
exit $code
