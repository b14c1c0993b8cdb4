#!/usr/bin/env bash
# Set up .venv, lint, test.
#   scripts/test.sh              every room, in ten minutes on two cores: without the longest tests, families sampled by the commit
#   scripts/test.sh --all        everything; more arguments go to pytest (scripts/test.sh --all --slow)
#   scripts/test.sh tests/unit   what pytest is told, whole
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh report,test
.venv/bin/ruff check .
.venv/bin/ruff format --check .
tier=()
if [ $# = 0 ]; then tier=(--quick); elif [ "$1" = --all ]; then shift; fi
# a process a core, each with one thread: tiny models gain nothing from a second one, and two times two would wait for each other
cores=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc) # which would take that number for the cores
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec .venv/bin/python -m pytest -n $((cores < 4 ? cores : 4)) --dist loadgroup "${tier[@]}" "$@"
