"""Fetch a published model. Called only where the user wrote a remote name."""

from __future__ import annotations

from pathlib import Path

from clipvet.errors import MissingExtraError, UnreadableError, UsageError
from clipvet.models._open_clip import open_clip

__all__ = ["REMOTE", "fetch"]

REMOTE = ("hf-hub:", "openclip:")


def fetch(name: str) -> tuple[Path, bool | None]:
    """Fetch ``hf-hub:ORG/REPO`` or ``openclip:ARCHITECTURE/TAG``.

    Returns:
        Where it lies now, and whether its publisher says that it uses QuickGELU (None: see the files).

    Raises:
        UsageError: open_clip publishes nothing under the name.
        UnreadableError: the source cannot be reached, or has no such model.
        MissingExtraError: the hub's client is not installed.
    """
    scheme, _, rest = name.partition(":")
    try:
        return _tagged(rest) if scheme == "openclip" else (_repository(rest), None)
    except OSError as error:
        message = f"{name} cannot be fetched ({type(error).__name__}): check the name and the network, or use a local file"
        raise UnreadableError(message) from error


def _tagged(rest: str) -> tuple[Path, bool | None]:
    architecture, _, tag = rest.rpartition("/")
    config = open_clip.get_pretrained_cfg(architecture, tag)
    if not config:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)[:8]) or "none"
        raise UsageError(f"expected openclip:ARCHITECTURE/TAG, found '{rest}': tags known for '{architecture}': {tags}")
    return Path(open_clip.download_pretrained(config)), bool(config.get("quick_gelu") or architecture.endswith("-quickgelu"))


def _repository(rest: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingExtraError("hf-hub: names need huggingface_hub: pip install 'clipvet[hub]'") from error
    return Path(snapshot_download(rest, allow_patterns=["*.json", "*.safetensors", "*.bin"]))
