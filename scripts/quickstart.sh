#!/usr/bin/env bash
# Set up .venv, then run the whole road on the embedded data and model. Arguments go to `research quickstart`.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh report
exec .venv/bin/research quickstart "$@"
