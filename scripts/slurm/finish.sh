#!/bin/bash
# After a sweep's array: submits again what is missing, and when nothing is, writes the report.
#SBATCH --job-name=@name@-finish
#SBATCH --dependency=afterany:@array@
#SBATCH --output="@logs@/slurm-finish-%j.log"
#SBATCH --open-mode=append
@resources@
cd @here@ || exit 1
@setup@
exec @python@ -m research sweep finish @file@ --folder @folder@ --plan @plan@ --seed @seed@ --round @round@ --options @options@
