"""What the benches and gpu_check share. Importing it makes `research` importable from a checkout that is not installed."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
