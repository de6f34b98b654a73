"""A bundle's networks as its held-out cases decided that a CPU may compute them."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from medseg.bundle.bundle import Bundle
from medseg.bundle.hashes import hash_network
from medseg.bundle.spec import (
    SPEEDS,
    BundleSpec,
    SpeedFinding,
    SpeedSetting,
)
from medseg.bundle.spec.speed import Arithmetic
from medseg.errors import CheckpointError, MedsegError, recordable_text
from medseg.inference.backends import openvino
from medseg.inference.backends.compiled_models import (
    keep_compiled,
    make_key,
    read_compiled,
)
from medseg.inference.backends.openvino import CompiledMember
from medseg.inference.backends.processor import (
    describe_processor,
    fit_to_processor,
)
from medseg.inference.backends.quantised import (
    check_quantised,
    get_quantised_file,
    read_quantised,
)
from medseg.names import make_printable
from medseg.networks.loading import get_output_layout, load_network

_HINTS: dict[Arithmetic, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "int8": torch.float32,
    "int8_bf16": torch.bfloat16,
}
"""In what is computed what is not quantised."""

EXACT = "exact"

_log = logging.getLogger(__name__)


def check_speed(speed: str | None, spec: BundleSpec) -> str:
    """Return the speed asked for; the bundle's unless given.

    Raises:
        MedsegError: If there is no such speed.
    """
    if speed is None:
        return spec.inference.speed
    if speed not in SPEEDS:
        raise MedsegError(
            f"speed takes {', '.join(SPEEDS)}; got '{make_printable(speed)}'"
        )
    return speed


def set_overlap(spec: BundleSpec, overlap: float) -> BundleSpec:
    """Return a bundle whose windows overlap by another share."""
    inference = spec.inference.model_copy(update={"overlap": overlap})
    return spec.model_copy(update={"inference": inference})


def find_decided_speed(bundle: Bundle) -> SpeedFinding | None:
    """Return what held-out cases decided for the weights that a bundle has; ``None`` if nothing.

    What was decided for others is not used, which is said once.

    Raises:
        CheckpointError: If its weights cannot be read.
    """
    finding = bundle.trained.speed
    if finding is None or finding.network == hash_network(bundle):
        return finding
    _log.warning(
        "the bundle's speed was decided for other weights, so it is computed in fp32; "
        "medseg calibrate decides anew"
    )
    return None


def find_decided_setting(
    bundle: Bundle, speed: str, device: torch.device
) -> SpeedSetting | None:
    """Return what held-out cases decided for a speed; ``None`` for ``exact``, or if nothing.

    The precision is the nearest to what was decided that this processor is fast in.
    """
    if speed == EXACT or device.type != "cpu":
        return None
    finding = find_decided_speed(bundle)
    if finding is None:
        return None
    setting = finding.get_setting(speed)
    if setting is None:
        return None
    precision = fit_to_processor(setting.precision)
    return setting.model_copy(update={"precision": precision})


def load_at_speed(
    bundle: Bundle, files: Sequence[Path], setting: SpeedSetting
) -> list[CompiledMember] | None:
    """Load networks to be computed as was decided.

    Args:
        bundle: A trained bundle.
        files: The weights to use, of its members.
        setting: From ``find_decided_setting``.

    Returns:
        The networks; ``None``, which is said in one line, where OpenVINO is not installed or
        cannot compute them here.

    Raises:
        CheckpointError: If weights, or networks in int8, are absent or damaged.
    """
    if not openvino.is_installed():
        _log.warning(
            "OpenVINO is not installed, so PyTorch computes in fp32, several times more slowly; "
            "pip install openvino"
        )
        return None
    try:
        return [_load_member(bundle, file, setting.precision) for file in files]
    except CheckpointError:
        raise
    except (MedsegError, RuntimeError) as error:
        _log.warning(
            "OpenVINO cannot compute the network on this processor (%s), so PyTorch computes in "
            "fp32; --backend openvino says why",
            recordable_text(error),
        )
        return None


def load_for_clicks(bundle: Bundle, file: Path) -> CompiledMember | None:
    """Load a network to answer clicks, for which people wait, as fast as this processor can.

    Args:
        bundle: A trained bundle.
        file: The weights to use, of one of its members.

    Returns:
        The network; ``None`` where OpenVINO is not installed or cannot compute it.

    Raises:
        CheckpointError: If the weights are absent or damaged.
    """
    if not openvino.is_installed():
        return None
    precision = fit_to_processor("bf16")
    setting = SpeedSetting(precision=precision)
    members = load_at_speed(bundle, [file], setting)
    return members[0] if members else None


def _load_member(
    bundle: Bundle, file: Path, precision: Arithmetic
) -> CompiledMember:
    if precision.startswith("int8"):
        check_quantised(bundle, file)
    settings = openvino.get_settings(_HINTS[precision])
    core = openvino.require().Core()
    key = _make_key(bundle, file, precision, settings)
    shown = torch.int8 if precision.startswith("int8") else _HINTS[precision]
    kept = read_compiled(key)
    if kept is not None:
        try:
            compiled = core.import_model(io.BytesIO(kept), "CPU", settings)
            return CompiledMember(compiled, shown)
        except RuntimeError as error:
            _log.info(
                "a compiled network is not used: %s", recordable_text(error)
            )
    model = _build_model(bundle, file, precision)
    compiled = core.compile_model(model, "CPU", settings)
    keep_compiled(key, compiled.export_model().getvalue())
    return CompiledMember(compiled, shown)


def _build_model(bundle: Bundle, file: Path, precision: Arithmetic) -> Any:
    if precision.startswith("int8"):
        return read_quantised(bundle, file)
    channels = get_output_layout(bundle).channels
    return openvino.convert(load_network(bundle, file), bundle.spec, channels)


def _make_key(
    bundle: Bundle,
    file: Path,
    precision: Arithmetic,
    settings: dict[str, Any],
) -> str:
    """Return a hash of all that a compiled network follows from."""
    content = hash_network(bundle)
    finding = bundle.trained.speed
    if precision.startswith("int8") and finding is not None:
        model = get_quantised_file(bundle, file)
        names = (model.name, model.with_suffix(".bin").name)
        content = "-".join(finding.files.get(name, "") for name in names)
    told = [f"{name}={value}" for name, value in sorted(settings.items())]
    version = openvino.get_version()
    texts = [content, file.name, precision, version, describe_processor()]
    return make_key([*texts, *told])
