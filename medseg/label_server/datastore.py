"""``CaseStore``: cases and their labels as MONAI Label's datastore."""

from __future__ import annotations

import tempfile
import threading
import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore

from medseg._support.files import PART
from medseg.bundle.spec import BundleSpec
from medseg.datasets.cases import Scan
from medseg.datasets.integrity import read_scan
from medseg.datasets.names import split_suffix
from medseg.errors import DatasetError, MedsegError, ScanError
from medseg.io import read_labels
from medseg.label_server.audit import Audit
from medseg.label_server.cases import Cases, FolderCases
from medseg.label_server.dicomweb import Correction, DicomWebCases, SeenSegmentations
from medseg.label_server.label_upload import read_submitted
from medseg.label_server.labels import FINAL, Labels, SavedLabel
from medseg.label_server.state import State
from medseg.volume import Array, Volume

_SAID = ("label_info", "client_id", "label_names", "quality", "model", "params")
"""What is kept of what a client says about a label."""

PUBLISHED = "sop_instance_uid"
"""Where a label's info names the DICOM SEG that holds the same."""


class CaseStore(Datastore):  # type: ignore[misc]
    """MONAI Label's view of the cases.

    Nothing can be removed through it: originals are not ours, and labels are what people worked
    for.

    Args:
        state: The state folder.
        cases: Where the cases are.
        spec: The bundle's spec.
    """

    def __init__(self, state: State, cases: Cases, spec: BundleSpec) -> None:
        self.cases = cases
        self.labels = Labels(state)
        self._state, self._spec = state, spec
        self._audit = Audit(state.audit)
        self._segmentations = SeenSegmentations(state)
        self._seen: dict[str, dict[str, Any]] = {}
        self._saving = threading.Lock()

    def name(self) -> str:
        """Return what people call it."""
        return self._spec.name

    def set_name(self, name: str) -> None:
        """Refuse: the bundle names it."""
        raise MedsegError("the bundle names the store")

    def description(self) -> str:
        """Return what it holds."""
        return self._spec.description

    def set_description(self, description: str) -> None:
        """Refuse: the bundle describes it."""
        raise MedsegError("the bundle describes the store")

    def list_images(self) -> list[str]:
        """Name every case."""
        return list(self.cases.names())

    def get_labeled_images(
        self, label_tag: str | None = None, labels: Sequence[str] | None = None
    ) -> list[str]:
        """Name the cases with a submitted label, each once."""
        submitted = self.labels.with_tag(FINAL)
        return [name for name in self.cases.names() if name in submitted]

    def get_unlabeled_images(
        self, label_tag: str | None = None, labels: Sequence[str] | None = None
    ) -> list[str]:
        """Name the cases without a submitted label."""
        submitted = self.labels.with_tag(FINAL)
        return [name for name in self.cases.names() if name not in submitted]

    def read(self, image_id: str) -> Volume:
        """Read a case as the bundle segments it."""
        scan = self.cases.scan(image_id)
        return read_scan(scan, len(self._spec.channels))

    def get_image(self, image_id: str, params: Any = None) -> BytesIO:
        """Return the file a viewer opens, as bytes."""
        return BytesIO(self.cases.image(image_id).read_bytes())

    def get_image_uri(self, image_id: str) -> str:
        """Return the path of the file a viewer opens; ``""`` where there is no such case."""
        try:
            return str(self.cases.image(image_id))
        except DatasetError:
            return ""

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """Say what is known of a case."""
        return {**self.cases.facts(image_id), **self._seen.get(image_id, {})}

    def update_image_info(self, image_id: str, info: Mapping[str, Any]) -> None:
        """Remember, until the server ends, who was shown a case."""
        self.cases.scan(image_id)
        self._seen.setdefault(image_id, {}).update(info)

    def add_image(self, image_id: str, image_filename: str, image_info: Mapping[str, Any]) -> str:
        """Take up an uploaded image."""
        if not isinstance(self.cases, FolderCases):
            raise MedsegError("send images to the DICOM server, not to medseg label")
        self.cases.add(image_id, Path(image_filename))
        self._audit.write("image added", case=image_id)
        return image_id

    def remove_image(self, image_id: str) -> None:
        """Refuse: the originals are not ours to remove."""
        raise MedsegError("medseg label removes no images")

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: Mapping[str, Any]
    ) -> str:
        """Save a label that a client sent, on the scan's own grid and with label indices."""
        volume = self.read(image_id)
        said = label_info.get("label_info")
        given = [one for one in said if isinstance(one, Mapping)] if isinstance(said, list) else []
        labels = read_submitted(Path(label_filename), volume, self._spec.label_set, given)
        kept = {key: label_info[key] for key in _SAID if key in label_info}
        with self._saving:
            self.labels.save(image_id, label_tag, labels, volume, kept)
            if label_tag == FINAL:
                self._publish(image_id, labels, volume)
        return image_id

    def exchange(self) -> None:
        """With a DICOM server: store labels it lacks, and take up corrections made elsewhere."""
        if not isinstance(self.cases, DicomWebCases):
            return
        with self._saving:
            for case in self.get_labeled_images():
                label = self._label(case, FINAL)
                if PUBLISHED not in label.info:
                    self._publish(case, read_labels(label.file).array[0], self.read(case))
            for found in self.cases.corrections(self._segmentations.read()):
                self._take_up(self.cases, found)

    def _publish(self, case: str, labels: Array, volume: Volume) -> None:
        if isinstance(self.cases, DicomWebCases):
            uid = self.cases.publish(case, labels, volume)
            self._segmentations.add(uid)
            self.labels.update_info(case, FINAL, {PUBLISHED: uid})

    def _take_up(self, cases: DicomWebCases, found: Correction) -> None:
        volume = self.read(found.case)
        with tempfile.TemporaryDirectory(dir=self._state.root, prefix=PART) as folder:
            file = Path(folder) / "correction.dcm"
            cases.fetch_correction(found, file)
            try:
                labels = read_submitted(file, volume, self._spec.label_set)
            except ScanError as error:
                self._audit.write(
                    "segmentation left out", case=found.case, uid=found.uid, why=str(error)
                )
            else:
                info = {PUBLISHED: found.uid, "client_id": "DICOM SEG"}
                self.labels.save(found.case, FINAL, labels, volume, info)
        self._segmentations.add(found.uid)

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Refuse: a better label replaces a worse one, and the worse one is kept beside."""
        raise MedsegError("medseg label removes no labels; submit a better one")

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        """Return the labels of a case, by tag; a label is called as its case."""
        return dict.fromkeys(self.labels.of(image_id), image_id)

    def get_label_by_image_id(self, image_id: str, tag: str) -> str:
        """Return the label of a case that has this tag, or ``""``."""
        return image_id if self.labels.find(image_id, tag) else ""

    def get_label(self, label_id: str, label_tag: str, params: Any = None) -> BytesIO:
        """Return a label map as bytes."""
        return BytesIO(self._label(label_id, label_tag).file.read_bytes())

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """Return the path of a label map; ``""`` where there is none."""
        found = self.labels.find(label_id, label_tag)
        return str(found.file) if found else ""

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        """Return what was said of a label."""
        return dict(self._label(label_id, label_tag).info)

    def update_label_info(self, label_id: str, label_tag: str, info: Mapping[str, Any]) -> None:
        """Remember more of a label."""
        self._label(label_id, label_tag)
        kept = {key: info[key] for key in _SAID if key in info}
        self.labels.update_info(label_id, label_tag, kept)

    def _label(self, case: str, tag: str) -> SavedLabel:
        found = self.labels.find(case, tag)
        if found is None:
            raise DatasetError(f"{case} has no label '{tag}'")
        return found

    def datalist(self, full_path: bool = True) -> list[dict[str, str]]:
        """Return image and label of each case with a submitted label."""
        return [
            {"image": str(self.cases.image(case)), "label": str(self._label(case, FINAL).file)}
            for case in self.get_labeled_images()
        ]

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        """Write images and submitted labels into a ZIP file; return its path."""
        listed = self.get_labeled_images()[: limit_cases or None]
        if not listed:
            raise DatasetError("no label was submitted yet, so there is nothing to download")
        self._state.uploads.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.NamedTemporaryFile(
                dir=self._state.uploads, suffix=".zip", delete=False
            ) as file,
            zipfile.ZipFile(file, "w") as archive,
        ):
            for case in listed:
                image = self.cases.image(case)
                archive.write(image, f"images/{case}{split_suffix(image.name)[1]}")
                archive.write(self._label(case, FINAL).file, f"labels/{case}.nii.gz")
        return file.name

    def refresh(self) -> None:
        """Do nothing: cases and labels are looked up each time."""

    def status(self) -> dict[str, Any]:
        """Count cases and labels; a case with several labels counts once."""
        return {
            "total": len(self.cases.names()),
            "completed": len(self.get_labeled_images()),
            "label_tags": {tag: len(self.labels.with_tag(tag)) for tag in self.labels.tags()},
        }

    def json(self) -> dict[str, Any]:
        """Return everything, in the shape that MONAI Label's clients know."""
        return {
            "name": self.name(),
            "description": self.description(),
            "images_dir": "",
            "labels_dir": "labels",
            "objects": {case: self._object(case) for case in self.cases.names()},
        }

    def _object(self, case: str) -> dict[str, Any]:
        return {
            "image": {"ext": "", "info": self.get_image_info(case)},
            "labels": {
                tag: {"ext": ".nii.gz", "info": dict(label.info)}
                for tag, label in self.labels.of(case).items()
            },
        }

    def labelled_scans(self) -> list[tuple[Scan, Path]]:
        """Return the scan and label file of each case with a submitted label."""
        return [
            (self.cases.scan(case), self._label(case, FINAL).file)
            for case in self.get_labeled_images()
        ]
