"""The command that installs an extra of clipstep into the installation at hand."""

import json
import shlex
from pathlib import Path
from typing import Any


def install_extra(extra: str) -> str:
    """Return the command that adds `extra` to this installation, from the folder or wheel that it was installed from if that is known (PEP 610)."""
    return f"pip install {_requirement(extra)}"


def _requirement(extra: str) -> str:
    from importlib.metadata import distributions  # Every command imports this module, and few need the hint.
    from urllib.parse import unquote, urlsplit

    found = list(distributions(name="clipstep"))
    urls = (each.read_text("direct_url.json") for each in found)  # An egg-info folder that a build left in a checkout is found first, and lacks it.
    text = next(filter(None, urls), None) if found else "{}"
    if text is None:  # It came from an index.
        return shlex.quote(f"clipstep[{extra}]")
    values: dict[str, Any] = json.loads(text)
    url = str(values.get("url", ""))
    if "vcs_info" in values:
        return shlex.quote(f"clipstep[{extra}] @ {values['vcs_info']['vcs']}+{url}@{values['vcs_info']['commit_id']}")
    path = Path(unquote(urlsplit(url).path))
    if not url.startswith("file:") or not path.exists():
        return shlex.quote(f".[{extra}]") + " in a checkout of clipstep"
    editable = "--editable " if values.get("dir_info", {}).get("editable") else ""
    return editable + shlex.quote(f"{path}[{extra}]")
