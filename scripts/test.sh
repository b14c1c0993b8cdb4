#!/usr/bin/env bash
# Set up .venv, lint, test. Arguments go to pytest (scripts/test.sh --slow, scripts/test.sh tests/unit).
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh report,test
.venv/bin/ruff check .
.venv/bin/ruff format --check .
exec .venv/bin/python -m pytest "$@"
