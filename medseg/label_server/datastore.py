"""``CaseDatastore``: cases and their labels as MONAI Label's datastore."""

from __future__ import annotations

import json
import tempfile
import threading
import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore

from medseg.bundle.hashes import hash_file
from medseg.bundle.spec import BundleSpec
from medseg.datasets.cases import Scan
from medseg.datasets.integrity import read_scan
from medseg.errors import DatasetError, MedsegError
from medseg.io import read_labels
from medseg.label_server.audit import AuditLog
from medseg.label_server.case_pictures import CasePictures
from medseg.label_server.cases import Cases, FolderCases
from medseg.label_server.dicomweb import DicomWebCases
from medseg.label_server.label_exchange import LabelExchange
from medseg.label_server.label_upload import (
    read_label_upload,
    select_segments,
)
from medseg.label_server.labels import FINAL, Labels, SavedLabel
from medseg.label_server.proposals import Proposals
from medseg.label_server.request_checks import check_offers
from medseg.label_server.state import StateFolder
from medseg.label_server.store import Store
from medseg.label_server.worklist import CaseState, Worklist
from medseg.names import split_suffix
from medseg.volume import Volume

MOST_INFO_CHARACTERS = 1 << 16
"""How much clients can have remembered of a case."""

_OWN_INFO = frozenset({"id", "path", "name", "checksum", "PatientID"})
"""What a client does not say of a case: viewers fetch, name and write files by it."""

_KEPT_INFO = (
    "label_info",
    "client_id",
    "label_names",
    "quality",
    "model",
    "params",
)
"""What is kept of what a client says about a label."""


class CaseDatastore(Datastore):  # type: ignore[misc]
    """MONAI Label's view of the cases.

    Nothing can be removed through it: originals are not ours, and labels are what people worked
    for.

    Args:
        state: The state folder.
        cases: Where the cases are.
        spec: The bundle's spec.
        stores_proposals: Whether proposals are stored in the DICOMweb server.
    """

    def __init__(
        self,
        state: StateFolder,
        cases: Cases,
        spec: BundleSpec,
        *,
        stores_proposals: bool = False,
    ) -> None:
        self.cases = cases
        self.labels = Labels(state)
        self.pictures = CasePictures(state, spec.label_set)
        self.proposals = Proposals(state, cases, spec, stored=stores_proposals)
        self.worklist = Worklist(Store(state))
        self._state = state
        self._spec = spec
        self._audit = AuditLog(state.audit_log)
        self._exchange = LabelExchange(
            state, cases, spec, self.labels, self.pictures
        )
        self._image_info: dict[str, dict[str, Any]] = {}
        self._hashes: dict[Path, tuple[tuple[int, ...], str]] = {}
        self._saving = threading.Lock()

    def name(self) -> str:
        """Return what people call it."""
        return self._spec.name

    def set_name(self, name: str) -> None:
        """Refuse: the bundle names it."""
        raise MedsegError(
            "the datastore has the bundle's name, which cannot be changed here"
        )

    def description(self) -> str:
        """Return what it holds."""
        return self._spec.description

    def set_description(self, description: str) -> None:
        """Refuse: the bundle describes it."""
        raise MedsegError(
            "the datastore has the bundle's description, which cannot be changed"
        )

    def list_images(self) -> list[str]:
        """Return the name of every case."""
        return list(self.cases.list_names())

    def get_labeled_images(
        self, label_tag: str | None = None, labels: Sequence[str] | None = None
    ) -> list[str]:
        """Return the names of the cases with a submitted label, each once."""
        submitted = self.labels.list_cases(FINAL)
        return [name for name in self.list_images() if name in submitted]

    def get_unlabeled_images(
        self, label_tag: str | None = None, labels: Sequence[str] | None = None
    ) -> list[str]:
        """Return the names of the cases without a submitted label."""
        submitted = self.labels.list_cases(FINAL)
        return [name for name in self.list_images() if name not in submitted]

    def read_volume(self, image_id: str) -> Volume:
        """Read a case as the bundle segments it."""
        scan = self.cases.get_scan(image_id)
        return read_scan(scan, self._spec.channels)

    def get_image(self, image_id: str, params: Any = None) -> BytesIO:
        """Return the file a viewer opens, as bytes."""
        file = self.cases.get_image_file(image_id)
        return BytesIO(file.read_bytes())

    def get_image_uri(self, image_id: str) -> str:
        """Return the path of the file a viewer opens; ``""`` if there is no such case."""
        try:
            return str(self.cases.get_image_file(image_id))
        except DatasetError:
            return ""

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """Return what is known of a case."""
        remembered = self._image_info.get(image_id, {})
        return {**remembered, **self.cases.get_info(image_id)}

    def hash_image(self, image_id: str) -> str:
        """Return the hash of the file a viewer opens, as 3D Slicer writes it.

        Slicer takes a file of the same name that it has fetched once, from whatever server, unless
        the hash tells it that it is another one.
        """
        file = self.cases.get_image_file(image_id)
        stat = file.stat()
        stamp = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        known, digest = self._hashes.get(file, (None, ""))
        if known != stamp:
            digest = hash_file(file)
            self._hashes[file] = stamp, digest
        return f"SHA256:{digest}"

    def update_image_info(self, image_id: str, info: Mapping[str, Any]) -> None:
        """Remember, until the server ends, who was shown a case.

        Raises:
            MedsegError: If what is said of it is malformed; others choose their cases by it.
        """
        self.cases.get_scan(image_id)
        check_offers(info.get("strategy", {}))
        told = {key: info[key] for key in info if key not in _OWN_INFO}
        known = {**self._image_info.get(image_id, {}), **told}
        if len(json.dumps(known, default=str)) > MOST_INFO_CHARACTERS:
            raise MedsegError(
                f"of a case, {MOST_INFO_CHARACTERS} characters can be remembered"
            )
        self._image_info[image_id] = known

    def add_image(
        self, image_id: str, image_filename: str, image_info: Mapping[str, Any]
    ) -> str:
        """Make an uploaded image a case."""
        if not isinstance(self.cases, FolderCases):
            raise MedsegError(
                "send images to the DICOM server, not to medseg label"
            )
        file = Path(image_filename)
        self.cases.add_image(image_id, file)
        self._audit.write("image added", case=image_id)
        return image_id

    def remove_image(self, image_id: str) -> None:
        """Refuse: the originals are not ours to remove."""
        raise MedsegError("medseg label removes no images")

    def save_label(
        self,
        image_id: str,
        label_filename: str,
        label_tag: str,
        label_info: Mapping[str, Any],
    ) -> str:
        """Save a label that a client sent, on the scan's own grid and with label indices."""
        volume = self.read_volume(image_id)
        segments = select_segments(label_info.get("label_info"))
        info = _select_info(label_info)
        file = Path(label_filename)
        label = read_label_upload(file, volume, self._spec.label_set, segments)
        labels = label.indices
        if label.warnings:
            info["warnings"] = list(label.warnings)
        with self._saving:
            self.labels.save(image_id, label_tag, labels, volume, info)
            if label_tag == FINAL:
                self.pictures.draw(image_id, volume, labels)
                self._exchange.publish(image_id, labels, volume)
        return image_id

    @property
    def has_dicom(self) -> bool:
        """Whether the cases are series of a DICOMweb server, which OHIF opens."""
        return isinstance(self.cases, DicomWebCases)

    def restore_label(self, image_id: str, number: int) -> None:
        """Make an earlier label of a case the current one again.

        Args:
            image_id: The case.
            number: The label's, in ``labels.history``.

        Raises:
            DatasetError: If the case has no such label.
        """
        with self._saving:
            label = self.labels.restore(image_id, number)
            if label.tag == FINAL:
                labels = read_labels(label.file).array[0]
                volume = self.read_volume(image_id)
                self.pictures.draw(image_id, volume, labels)
                self._exchange.publish(image_id, labels, volume)

    def exchange(self) -> None:
        """With a DICOM server: store labels it lacks, and take over corrections made elsewhere."""
        if not isinstance(self.cases, DicomWebCases):
            return
        with self._saving:
            for case in self.get_labeled_images():
                self._exchange.publish_if_missing(case)
            self._exchange.take_over(self.proposals.list_series())

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Refuse: a better label replaces a worse one, and the worse one is kept beside."""
        raise MedsegError("medseg label removes no labels; submit a better one")

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        """Return the labels of a case, by tag; a label is called as its case."""
        return dict.fromkeys(self.labels.find_all(image_id), image_id)

    def get_label_by_image_id(self, image_id: str, tag: str) -> str:
        """Return the label of a case that has this tag, or ``""``."""
        return image_id if self.labels.find(image_id, tag) else ""

    def get_label(
        self, label_id: str, label_tag: str, params: Any = None
    ) -> BytesIO:
        """Return a label map as bytes."""
        label = self._get_label(label_id, label_tag)
        return BytesIO(label.file.read_bytes())

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """Return the path of a label map; ``""`` if there is none."""
        label = self.labels.find(label_id, label_tag)
        return str(label.file) if label else ""

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        """Return what was said of a label."""
        return dict(self._get_label(label_id, label_tag).info)

    def update_label_info(
        self, label_id: str, label_tag: str, info: Mapping[str, Any]
    ) -> None:
        """Remember more of a label."""
        self._get_label(label_id, label_tag)
        self.labels.update_info(label_id, label_tag, _select_info(info))

    def _get_label(self, case: str, tag: str) -> SavedLabel:
        label = self.labels.find(case, tag)
        if label is None:
            raise DatasetError(
                "the case has no label of this tag", detail=f"{case}, {tag}"
            )
        return label

    def datalist(self, full_path: bool = True) -> list[dict[str, str]]:
        """Return image and label of each case with a submitted label, as named in the archive."""
        entries = []
        for case in self.get_labeled_images():
            entries.append(
                {"image": self._name_image(case), "label": _name_label(case)}
            )
        return entries

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        """Write images and submitted labels into a ZIP file; return its path."""
        labelled = self.get_labeled_images()[: limit_cases or None]
        if not labelled:
            raise DatasetError(
                "no label was submitted yet, so there is nothing to download"
            )
        self._state.uploads.mkdir(parents=True, exist_ok=True)
        folder = self._state.uploads
        with (
            tempfile.NamedTemporaryFile(
                dir=folder, suffix=".zip", delete=False
            ) as file,
            zipfile.ZipFile(file, "w") as archive,
        ):
            for case in labelled:
                image = self.cases.get_image_file(case)
                label = self._get_label(case, FINAL)
                archive.write(image, self._name_image(case))
                archive.write(label.file, _name_label(case))
        return file.name

    def _name_image(self, case: str) -> str:
        file = self.cases.get_image_file(case)
        _, suffix = split_suffix(file.name)
        return f"images/{case}{suffix}"

    def refresh(self) -> None:
        """Do nothing: cases and labels are looked up each time."""

    def status(self) -> dict[str, Any]:
        """Count cases and labels; a case with several labels counts once."""
        label_tags = {}
        for tag in self.labels.list_tags():
            label_tags[tag] = len(self.labels.list_cases(tag))
        return {
            "total": len(self.list_images()),
            "completed": len(self.get_labeled_images()),
            "label_tags": label_tags,
        }

    def json(self) -> dict[str, Any]:
        """Return everything, in the shape that MONAI Label's clients know."""
        objects = {}
        for case in self.list_images():
            objects[case] = self._describe_case(case)
        return {
            "name": self.name(),
            "description": self.description(),
            "images_dir": "",
            "labels_dir": "labels",
            "objects": objects,
        }

    def _describe_case(self, case: str) -> dict[str, Any]:
        labels = {}
        saved = self.labels.find_all(case)
        for tag, label in saved.items():
            labels[tag] = {
                "ext": ".nii.gz",
                "info": dict(label.info),
            }
        image = {
            "ext": "",
            "info": self.get_image_info(case),
        }
        return {"image": image, "labels": labels}

    def list_labelled_scans(self) -> list[tuple[Scan, Path]]:
        """Return the scan and label file of each case with a submitted label that is not rejected.

        These are trained on.
        """
        labelled = []
        rejected = self.worklist.list_names(CaseState.REJECTED)
        accepted = [
            case for case in self.get_labeled_images() if case not in rejected
        ]
        for case in accepted:
            scan = self.cases.get_scan(case)
            label = self._get_label(case, FINAL)
            labelled.append((scan, label.file))
        return labelled


def _name_label(case: str) -> str:
    return f"labels/{case}.nii.gz"


def _select_info(info: Mapping[str, Any]) -> dict[str, Any]:
    return {key: info[key] for key in _KEPT_INFO if key in info}
