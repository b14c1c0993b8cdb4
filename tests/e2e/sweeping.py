"""A finished sweep of a tiny language model, for the tests of reports."""

import json
import os
from pathlib import Path

from tests.conftest import Result
from tests.e2e.fitting import process
from tests.lm import rows, save_tiny


def finished(place: Path, config: str, write) -> Result:
    """Run a sweep in a folder.

    Args:
        place: empty.
        config: of its trainings, sft.yaml.
        write: writes the sweep's file there and returns its name.
    """
    here = Path.cwd()
    os.chdir(place)
    try:
        save_tiny(place / "lm")
        Path("sft.yaml").write_text(config)
        for name, count in (("rows", 16), ("val", 5)):
            Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(count)))
        result = process("sweep", "run", write(), "--threads", "1", "--json", env={"TANDEM_CACHE": "cache"})
        assert result.code == 0, result.err
        return result
    finally:
        os.chdir(here)
