"""Where the folders that belong to the service but are no Python lie: `sql` and `workflows`."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

_PACKAGE: Final = Path(__file__).parent


def resource_path(folder: Literal["sql", "workflows"]) -> Path:
    """Return the folder: beside the package in a checkout, inside it in an installed wheel."""
    installed = _PACKAGE / folder
    return installed if installed.is_dir() else _PACKAGE.parent / folder
