"""Where a result came from: versions, code state, device. No names, no paths."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from functools import cache
from pathlib import Path

import torch

PACKAGES = (
    "medseg",
    "torch",
    "monai",
    "pytorch-ignite",
    "numpy",
    "nibabel",
    "pydicom",
)


def collect_provenance(device: torch.device) -> dict[str, str]:
    """Return versions of what computes, the state of medseg's code, and the device."""
    versions = {
        f"version.{name}": importlib.metadata.version(name) for name in PACKAGES
    }
    return {
        **versions,
        "version.python": platform.python_version(),
        "device": get_device_name(device),
        "threads": str(torch.get_num_threads()),
        "git": read_git_state(),
    }


def get_device_name(device: torch.device) -> str:
    """Return what people call a device: its model for a GPU, else its processor type."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()})"


@cache
def read_git_state() -> str:
    """Return the commit medseg runs from, with ``+changes`` if edited; empty if not in git."""
    here = str(Path(__file__).parent)
    try:
        commit = _git(here, "rev-parse", "HEAD")
        is_edited = bool(_git(here, "status", "--porcelain", "--", here))
    except (OSError, subprocess.SubprocessError):
        return ""  # installed from a wheel, or git is not there
    return f"{commit}+changes" if is_edited else commit


def _git(folder: str, *arguments: str) -> str:
    command = ["git", "-C", folder, *arguments]
    result = subprocess.run(
        command, capture_output=True, check=True, timeout=10
    )
    return result.stdout.decode(errors="replace").strip()
