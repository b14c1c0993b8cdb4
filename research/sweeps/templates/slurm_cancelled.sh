is_cancelled() { # it ends, and SLURM has neither preempted nor requeued it
  local facts
  facts="$(scontrol show job "$task" --oneliner 2>/dev/null) "
  [[ $facts =~ JobState=(CANCELLED|COMPLETING) && $facts == *" PreemptTime=None "* ]] &&
    [[ $facts == *" Restarts=$restarts "* ]]
}
