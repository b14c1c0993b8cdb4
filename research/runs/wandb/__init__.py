"""Runs that W&B keeps, in its logs on the disk or on its server → records like those of run folders: `runs.read_wandb`."""
