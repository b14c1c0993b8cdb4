#!/bin/bash
#
# After the array @array@ of the sweep @name@: submits again what is missing, and when nothing is,
# writes the report.
#
# `research sweep submit` has written this script. It asks for no GPU.
#
#SBATCH --job-name=@name@-finish
#SBATCH --dependency=afterany:@array@
#SBATCH --output="@logs@/slurm-finish-%j.log"
#SBATCH --open-mode=append
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
# how often it was submitted, and what was said of the cluster, for another time
round=@round@
options=@options@

exec "$python" -m research sweep finish "$sweep" \
  --folder "$folder" \
  --plan "$plan" \
  --seed "$seed" \
  --array @array@ \
  --round "$round" \
  --options "$options"
