#!/bin/bash
#
# The sweep @name@ by W&B's agents: one trial a task, which W&B's server chooses.
#
# `research sweep submit --wandb` has written this script. The agent tells W&B how its trial ended,
# and ends with 0 all the same; W&B hands a trial out once. So a task that is stopped is requeued,
# and goes on with the trial that it has: as the same W&B run, without an agent.
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
programs=@programs@
# the sweep on W&B's server, and a copy of its YAML as it was when it was submitted
id=@sweep@
target=@target@
sweep=@file@
folder=@folder@
# how often a task may be killed without a warning
attempts=@attempts@

export SLURM_EXPORT_ENV=ALL  # srun's steps see this environment
export PATH="$programs:$PATH" # the agent starts `python`

task="${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
restarts=${SLURM_RESTART_COUNT:-0}
echo "== $(date -Is) $task on $(hostname), start $((restarts + 1))"

# the agent writes the parameters of its trial there: where they are, this task has begun it before
export WANDB_DIR="$folder/agents/$id/$task"
agent=
if [ -n "$(find "$WANDB_DIR" -path "*/sweep-$id/config-*.yaml" 2>/dev/null)" ]; then
  command=("$python" -m research sweep trial "$sweep" --folder "$WANDB_DIR" --wandb "$target")
else
  agent=1
  mkdir -p "$WANDB_DIR" || exit 1
  command=("$python" -m wandb agent --count 1 --forward-signals "$target")
fi
"${command[@]}" &
child=$!

# Before its time limit (USR1), and when it is preempted (TERM), the training is told: it saves and
# exits with 85. TERM comes of scancel as well, and then the task is not requeued.
told=
cancelled=
@is_cancelled@
trap 'told=1; kill -USR1 $child 2>/dev/null' USR1
trap 'kill -TERM $child 2>/dev/null; [ $told ] || ! is_cancelled || cancelled=1; told=1' TERM
while true; do # a trapped signal interrupts wait
  wait $child
  code=$?
  kill -0 $child 2>/dev/null || break
done
echo "== $(date -Is) $task ends with $code"

# Saved, or killed: this very task again. An agent that was told says nothing of what its trial
# ended with.
again=
if [ $code -eq 85 ] || { [ $told ] && [ $agent ]; }; then
  again=1
elif [ $code -gt 128 ] && { [ $told ] || [ "$restarts" -lt "$attempts" ]; }; then
  again=1
fi
if [ $again ] && [ ! $cancelled ]; then
  scontrol requeue "$task" && exit 0
fi
exit $code
