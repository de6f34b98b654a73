"""Hashes of a bundle and of its files: what tells one trained network from another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from medseg._support.files import refuse_special
from medseg.bundle.bundle import REFINER_FILE, Assembly, Bundle
from medseg.bundle.spec import BundleSpec, TrainedSpec
from medseg.bundle.spec_files import format_spec
from medseg.errors import CheckpointError

_CHUNK = 1 << 20
_LATER_DATA_FIELDS = (
    "images",
    "labels",
    "columns",
    "split_4d",
    "splits",
    "background",
    "colour_coded",
    "made_up",
)
"""Fields of ``data`` that release 0.1.0 did not have."""

_LATER_FINDINGS = ("validated", "made_up")
"""Fields of ``trained.json`` that release 0.1.0 did not have."""


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, as hexadecimal digits.

    Raises:
        OSError: If it cannot be read.
        ScanError: If it is a device, a pipe or a socket.
    """
    refuse_special(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def hash_bundle(bundle: Bundle) -> str:
    """Return a hash of what a trained bundle, or each of an assembly's, says and has learned.

    Raises:
        CheckpointError: If its weights cannot be read.
    """
    if isinstance(bundle, Assembly):
        said = bundle.assembly.model_dump_json()
        inner = [hash_bundle(step.bundle) for step in bundle.steps]
        return hash_texts([said, *inner])
    spec = _format_as_at_first(bundle.spec)
    trained = _format_findings_as_at_first(bundle.trained)
    return hash_texts([spec, trained, *_hash_weights(bundle)])


def hash_network(bundle: Bundle) -> str:
    """Return a hash of what a bundle's networks compute: kind, sizes and all weights.

    Raises:
        CheckpointError: If its weights cannot be read.
    """
    spec = bundle.spec
    texts = [spec.network.model_dump_json()]
    if spec.refinement is not None:
        texts.append(spec.refinement.model_dump_json())
    sizes = [spec.input_channels, spec.label_set.channels, *spec.training.patch]
    texts.append(str(sizes))
    return hash_texts([*texts, *_hash_weights(bundle)])


def hash_texts(texts: Iterable[str]) -> str:
    """Return the SHA-256 of texts, one per line, as hexadecimal digits."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def _format_as_at_first(spec: BundleSpec) -> str:
    """Return a spec's text without later fields that say nothing.

    So a bundle keeps its hash, and its results stay valid, when a release knows more fields.
    """
    content = json.loads(format_spec(spec))
    defaults = type(spec.data)().model_dump(mode="json")
    for field in _LATER_DATA_FIELDS:
        if content["data"][field] == defaults[field]:
            del content["data"][field]
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _format_findings_as_at_first(trained: TrainedSpec) -> str:
    """Return the text of findings without later fields that say nothing."""
    defaults = type(trained)()
    unsaid = set()
    for field in _LATER_FINDINGS:
        if getattr(trained, field) == getattr(defaults, field):
            unsaid.add(field)
    return trained.model_dump_json(exclude=unsaid)


def _hash_weights(bundle: Bundle) -> list[str]:
    files = list(bundle.members)
    refiner = bundle.folder / REFINER_FILE
    if refiner.is_file():
        files.append(refiner)
    # What is read in their place where trained.json states it; older bundles have none.
    for name in sorted(bundle.trained.files):
        file = bundle.weights.with_name(name)
        if file not in files and file.is_file():
            files.append(file)
    hashes = []
    for file in files:
        try:
            hashes.append(hash_file(file))
        except OSError as error:
            raise CheckpointError(
                "the weights cannot be read; train the bundle, or restore the file",
                source=file,
                detail=error.strerror,
            ) from error
    return hashes
