#!/bin/bash
# One trial of a W&B sweep a task; `research sweep submit --wandb` fills in what stands between @ signs.
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
export PATH=@programs@:"$PATH" # the agent starts `python`
job="${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
export WANDB_DIR=@folder@/agents/@sweep@/"$job" # the agent writes the parameters of its trial there
echo "== $(date -Is) $job on $(hostname), start $((${SLURM_RESTART_COUNT:-0} + 1))"

# The agent tells W&B how its trial ended, and ends with 0 all the same; W&B hands a trial out once. So a task that was
# stopped is requeued, and goes on with the trial that it has: as the same W&B run, without an agent.
agent=
if [ -n "$(find "$WANDB_DIR" -path '*/sweep-@sweep@/config-*.yaml' 2>/dev/null)" ]; then
  @python@ -m research sweep trial @file@ --folder "$WANDB_DIR" --wandb @entity@/@project@/@sweep@ &
else
  agent=1
  mkdir -p "$WANDB_DIR" || exit 1
  @python@ -m wandb agent --count 1 --forward-signals @entity@/@project@/@sweep@ &
fi
child=$!
# before its time limit (USR1) and when it is preempted (TERM) the training saves and exits with 85
told=
trap 'told=1; kill -USR1 $child 2>/dev/null' USR1
trap 'told=1; kill -TERM $child 2>/dev/null' TERM
while true; do # a trapped signal interrupts wait
  wait $child
  code=$?
  kill -0 $child 2>/dev/null || break
done
echo "== $(date -Is) $job ends with $code"
restarts=${SLURM_RESTART_COUNT:-0}
if [ $code -eq 85 ] || { [ $told ] && [ $agent ]; } ||
  { [ $code -gt 128 ] && { [ $told ] || [ "$restarts" -lt @attempts@ ]; }; }; then
  scontrol requeue "$job" && exit 0
fi
exit $code
