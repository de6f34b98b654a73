"""UIDs of DICOM objects made from a scan: the same object has the same UIDs each time."""

from __future__ import annotations

import hashlib
import uuid

import numpy as np

from medseg.dicom_labels.references import DicomSource, Labels


def hash_object(source: DicomSource, labels: Labels, *facts: object) -> bytes:
    """Return a hash of all that makes a derived object what it is, its time left out."""
    elements = []
    for element in source.patient_study:
        content = (element.tag, element.value)
        elements.append(content)
    frames = []
    for source_slice in source.slices:
        frame = source_slice.frame
        frame_identity = (frame.sop_uid, frame.index)
        frames.append(frame_identity)
    identity = (source.study, source.series, frames, labels.shape, facts)
    voxels = np.ascontiguousarray(labels)
    digest = hashlib.sha256()
    digest.update(repr(elements).encode())
    digest.update(repr(identity).encode())
    digest.update(voxels.tobytes())
    return digest.digest()


def derive_uid(object_hash: bytes, role: str) -> str:
    """Return the UID of one role in an object; the same object has the same UIDs each time.

    Written as DICOM PS3.5 B.2 allows: ``2.25.`` and a UUID as one number.

    Args:
        object_hash: As ``hash_object`` returns it.
        role: What has the UID: ``instance``, ``series``, …
    """
    named_hash = object_hash + role.encode()
    digest = hashlib.sha256(named_hash).digest()
    derived = uuid.UUID(bytes=digest[:16], version=5)
    return f"2.25.{derived.int}"
