#!/usr/bin/env bash
# What a GPU says of this code: correctness against the CPU, and speed against the field's libraries; 25 minutes in parts.
# Needs torch, transformers, peft, lightning and sentence-transformers (and pytest for the part "tests"), no network, no model
# file and no data. Run it again to go on where it was stopped; then `--table` prints the results.
#   scripts/gpu_check.sh [--part device|tests|training|language|inference|packing] [--out runs/gpu_check] [--dry-run] [--table]
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-}"
if [ -z "$python" ]; then
  if [ -x .venv/bin/python ]; then python=.venv/bin/python; else python=python3; fi
fi
exec "$python" scripts/gpu_check.py "$@"
