"""Arrays of the host go to a device while the host goes on."""

from __future__ import annotations

import torch


def send(array: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """Return an array on a device; the host does not wait until it is there."""
    device = torch.device(device)
    if array.device.type == device.type:
        return array
    if device.type != "cuda":
        return array.to(device)
    # From other memory than this the GPU cannot copy while the host goes on; and a part of an array
    # would be locked with all that lies between its voxels, and gathered while the host waits.
    locked = array.contiguous().pin_memory()
    return locked.to(device, non_blocking=True)
