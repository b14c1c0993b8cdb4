"""Reading of our own JSON files, and of YAML files that users write."""

import json
from pathlib import Path

import yaml

from research.errors import UserError, suggest_file
from research.types import Json


def read_json(path: Path) -> Json:
    """Read one of our own JSON files.

    Raises:
        UserError: missing or damaged.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; the folder is not one this tool finished. Make it again.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} is not readable JSON ({error}); expected a file this tool wrote. Delete it and run again."
        ) from None
    except RecursionError:
        raise UserError(
            f"{path} is JSON nested too deeply to be read; expected a file this tool wrote. Delete it and run again."
        ) from None


def read_yaml(path: Path, what: str) -> Json:
    """Read a YAML file that a user has written.

    Args:
        path: of the file.
        what: it is, for messages.

    Raises:
        UserError: it cannot be read, is no YAML, or gives a name twice, of which the last would silently win.
    """
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Unique)
    except OSError as error:
        near = suggest_file(path) if isinstance(error, FileNotFoundError) else ""
        raise UserError(
            f"{what} {path} cannot be read ({error.strerror}); expected a YAML file. Check the path.{near}"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(
            f"{what} {path} is not readable YAML ({' '.join(str(error).split())[:300]}); expected `name: value` "
            "lines. Mend the file."
        ) from None
    except RecursionError:
        raise UserError(
            f"{what} {path} is nested too deeply to be read; expected `name: value` lines. Mend the file."
        ) from None


class _Unique(yaml.SafeLoader):
    """Refuse a key that is given twice, where YAML would take the last."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)  # as it is written: `<<: *other` puts names in that may stand here too
        keys = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        names = [self.construct_object(key, deep=True) for key in keys]
        if doubled := [name for i, name in enumerate(names) if name in names[:i]]:
            raise yaml.constructor.ConstructorError(None, None, f"{doubled[0]!r} is there twice", node.start_mark)
        return node
