"""Whatever goes wrong, no result tells what files are called or what headers say."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import dicom

from medseg.commands.segment import segment
from medseg.errors import MedsegError
from medseg.events import Event, Notice
from medseg.inference import scan_work
from medseg.inference.bundle_predictor import BundlePredictor
from medseg.inference.failures import describe_error
from medseg.inference.result_files import RESULT_FORMATS, ResultFormat

PATIENT = "Qwertz^Zaphod"
SECRETS = ("Qwertz", "Zaphod", "ZX81-4711", "Sonnenstein")
HEADER = {
    "PatientName": PATIENT,
    "PatientID": "ZX81-4711",
    "InstitutionName": "Sonnenstein",
}


def kinds_of(base: type[MedsegError]) -> Iterator[type[MedsegError]]:
    yield base
    for kind in base.__subclasses__():
        yield from kinds_of(kind)


OURS = sorted(set(kinds_of(MedsegError)), key=lambda kind: kind.__qualname__)
FOREIGN = [
    ValueError,
    KeyError,
    RuntimeError,
    UnicodeError,
    OSError,
    IndexError,
    MemoryError,
]
KINDS: list[type[Exception]] = [*OURS, *FOREIGN]


def failure(
    kind: type[Exception], secret: str = f"/home/{PATIENT}/ZX81-4711.dcm"
) -> Exception:
    """Return an error that knows more than results may say."""
    if issubclass(kind, MedsegError):
        return kind(
            "the voxels end early; copy the file again",
            source=secret,
            detail=secret,
        )
    return kind(f"cannot read {secret}")


@given(
    st.sampled_from(KINDS),
    st.text(st.characters(min_codepoint=48), min_size=12),
)
def test_a_description_of_an_error_holds_neither_source_nor_detail(
    kind: type[Exception], secret: str
) -> None:
    error = failure(kind, secret)
    assert secret not in describe_error(error)
    assert len(describe_error(error)) > 20


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Return a DICOM series for each kind of error; folders, files and headers name a patient."""
    folder = tmp_path / f"{PATIENT} ZX81-4711"
    for number in range(len(KINDS) + 1):
        datasets = dicom.series(name=f"series {number}", **HEADER)
        for ds in datasets:
            ds.StudyDescription = PATIENT
        dicom.save(folder / f"Zaphod {number}", datasets, prefix="Qwertz_")
    return folder


def contents(out: Path) -> Iterator[tuple[str, bytes]]:
    for path in out.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            name = path.relative_to(out).as_posix()
            yield (
                name,
                gzip.decompress(content) if path.suffix == ".gz" else content,
            )


def fail_when_reading(
    monkeypatch: pytest.MonkeyPatch, fail: Callable[[str], None]
) -> None:
    read = scan_work.read_scan

    def read_scan(scan: Any, *args: Any, **options: Any) -> Any:
        fail(scan.name)
        return read(scan, *args, **options)

    monkeypatch.setattr(scan_work, "read_scan", read_scan)


def fail_when_segmenting(
    monkeypatch: pytest.MonkeyPatch, fail: Callable[[str], None]
) -> None:
    run = BundlePredictor.predict

    def predict(self: BundlePredictor, volume: Any, **options: Any) -> Any:
        fail(volume.source)
        return run(self, volume, **options)

    monkeypatch.setattr(BundlePredictor, "predict", predict)


def fail_when_writing(
    monkeypatch: pytest.MonkeyPatch, fail: Callable[[str], None]
) -> None:
    nifti = RESULT_FORMATS.get("nifti")

    def write(path: Path, labels: Any, like: Any, spec: Any) -> None:
        fail(path.name.removesuffix(".nii.gz"))
        nifti.write(path, labels, like, spec)

    monkeypatch.setitem(
        RESULT_FORMATS._shipped, "nifti", ResultFormat(".nii.gz", write)
    )


@pytest.mark.parametrize(
    "plant", [fail_when_reading, fail_when_segmenting, fail_when_writing]
)
def test_no_result_names_the_patient_whatever_is_raised_in_whichever_stage(
    plant: Callable[..., None],
    scans: Path,
    untrained_bundle: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    kinds: dict[str, type[Exception]] = {}

    def fail(name: str) -> None:
        if len(kinds) < len(KINDS):
            kinds[name] = KINDS[len(kinds)]
            raise failure(kinds[name])

    plant(monkeypatch, fail)
    told: list[Event] = []
    bundle = untrained_bundle(channels=[{"name": "any"}])
    with pytest.raises(
        ValueError, match="cannot read"
    ):  # the first bug, for the terminal
        segment(bundle, scans, out, device="cpu", listeners=[told.append])
    again = segment(bundle, scans, out, device="cpu", listeners=[told.append])
    assert len(kinds) == len(KINDS)
    assert len(again.results) == len(KINDS) + 1
    notices = [event.message for event in told if isinstance(event, Notice)]
    assert len(notices) >= len(FOREIGN) - 1
    recorded = [*contents(out), *((text, text.encode()) for text in notices)]
    assert {"ledger.jsonl", "volumes.csv", "report.html"} <= {
        name for name, _ in recorded
    }
    for name, content in recorded:
        named = [
            secret
            for secret in SECRETS
            if secret in name or secret.encode() in content
        ]
        assert not named, f"{name} holds {named}"
    ledger = (out / "ledger.jsonl").read_text()
    assert ledger.count("copy the file again") == len(OURS)
    assert ledger.count("bug in medseg") == len(FOREIGN) - 1
    assert ledger.count("not enough memory") == 1


def test_broken_scans_do_not_tell_who_they_are_of(
    scans: Path, untrained_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    series = sorted(folder for folder in scans.iterdir())
    torn = sorted(series[0].iterdir())[1]
    torn.write_bytes(torn.read_bytes()[:-40])
    unreadable = sorted(series[1].iterdir())[0]
    unreadable.write_bytes(
        unreadable.read_bytes().replace(b"1.0", PATIENT.encode()[:3])
    )
    (scans / "Qwertz.dcm").symlink_to(tmp_path / PATIENT / "Zaphod.dcm")
    odd = scans / "Zaphod, Qwertz" / "ZX81-4711"
    odd.mkdir(parents=True)
    for ending in ("", ".dcm", ".nii", ".nii.gz", ".nrrd", ".mha", ".png"):
        (odd / f"Zaphod{ending}").symlink_to(tmp_path / PATIENT)
    (odd / "Qwertz zero.nii.gz").symlink_to("/dev/zero")
    os.mkfifo(odd / "Qwertz pipe.nii.gz")
    orphaned = dicom.series(dicom.voxels((6, 5, 6)), name="orphaned", **HEADER)
    orphaned[5].SeriesInstanceUID = "1.2.3"
    torn_class = dicom.series(name="torn class", **HEADER)
    torn_class[0].SOPClassUID = PATIENT
    dicom.save(odd / "Zaphod 1", orphaned, prefix="Qwertz_")
    dicom.save(odd / "Zaphod 2", torn_class, prefix="Qwertz_")
    stubbed = dicom.series(name="stubbed", **HEADER)
    dicom.save(odd / "Zaphod 3", stubbed, prefix="Qwertz_")
    (odd / "Zaphod 3" / "Qwertz stub").write_bytes(b"\0" * 128 + b"DICM")
    # Files that are not DICOM give results their names, so these name nobody here.
    (scans / "link.nii.gz").symlink_to(tmp_path / PATIENT)
    (scans / "scan.nii.gz").write_bytes(zlib.compress(PATIENT.encode()))
    (scans / "scan.nrrd").write_bytes(
        b"NRRD0004\ntype: Qwertz\nZaphod:=ZX81-4711\n\n"
    )
    batch = segment(
        untrained_bundle(channels=[{"name": "any"}]), scans, tmp_path / "out"
    )
    assert len(batch.failed) >= 14
    for entry in batch.failed:
        assert not [secret for secret in SECRETS if secret in entry.error]
    # What the person who called is told says more.
    assert any("Zaphod" in text for text in batch.places.values())
    assert set(batch.full_errors) == {entry.scan for entry in batch.failed}
    for name, content in contents(tmp_path / "out"):
        named = [
            secret
            for secret in SECRETS
            if secret in name or secret.encode() in content
        ]
        assert not named, f"{name} holds {named}"
