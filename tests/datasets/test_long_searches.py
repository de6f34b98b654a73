"""A search through very many files finds what one finds that holds all of them in memory."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from support import dicom as made

from medseg._support import long_sort, spool
from medseg.bundle.spec import ChannelSpec
from medseg.datasets.scans import ScanList, find_scans
from medseg.inference.shards import Shard
from medseg.io.dicom import header_parts
from medseg.names import hash_text

FOLDERS = ("a", "A", "a/b", "masks", "a/masks", "c-1", "c-1/x")
STEMS = ("b", "B", "a_b", "b_seg", "label_1", "x", "masks_x", "c.1", "é")
CHANNELS = [
    ChannelSpec(name="T1", modality="MR"),
    ChannelSpec(name="FLAIR", modality="MR"),
]


def write_nifti(file: Path, voxels: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), file)


def make_images(root: Path, chance: random.Random) -> dict[Path, bool]:
    """Write images; return whether each holds labels."""
    noise = np.random.default_rng(chance.randrange(1 << 32))
    files = {}
    for _ in range(chance.randint(2, 16)):
        folder = root / chance.choice(("", *FOLDERS))
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{chance.choice(STEMS)}.nii.gz"
        voxels = noise.integers(0, 1000, (10, 10, 10)).astype(np.int16)
        is_mask = chance.random() < 0.4
        if is_mask:
            voxels = np.zeros_like(voxels)
            voxels[2:6, 2:6, 2:6] = 1
        write_nifti(file, voxels)
        files[file] = is_mask
    return files


def is_called_labels(file: Path, root: Path) -> bool:
    words = file.relative_to(root).parts[:-1]
    stem = file.name.removesuffix(".nii.gz")
    return "masks" in words or stem in ("b_seg", "label_1", "masks_x")


def list_plainly(root: Path, files: dict[Path, bool]) -> list[tuple[str, Path]]:
    """Name the scans among images, with everything in memory."""
    called = {file for file in files if is_called_labels(file, root)}
    others = [file for file in files if file not in called]
    sizes: Counter[Path] = Counter()
    for file in others:
        sizes[file.parent] = max(sizes[file.parent], file.stat().st_size)
    alike = set()
    for file in others:
        near = max(sizes[file.parent], sizes[file.parent.parent])
        if files[file] and file.stat().st_size * 8 <= near:
            alike.add(file)
    with_scans = {file.parent for file in others if file not in alike}
    labels = {file for file in called if files[file]}
    for file in alike:
        if with_scans & {file.parent, file.parent.parent}:
            labels.add(file)
    scans = sorted(file for file in files if file not in labels)
    places = [file.relative_to(root).as_posix() for file in scans]
    plain = [place[: -len(".nii.gz")].replace("/", "_") for place in places]
    names = plain
    for digits in (6, 16, 64):
        counts = Counter(name.casefold() for name in names)
        names = [
            f"{text}-{hash_text(place)[:digits]}"
            if counts[name.casefold()] > 1
            else name
            for name, text, place in zip(names, plain, places, strict=True)
        ]
    return list(zip(names, scans, strict=True))


def limit_memory(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(spool, "FEWEST_ON_DISK", 2)
    patch.setattr(spool, "BLOCK_ITEMS", 3)
    patch.setattr(long_sort, "MOST_IN_MEMORY", 4)
    patch.setattr(header_parts, "MOST_IN_MEMORY", 2)
    patch.setattr(header_parts, "PARTS", 3)


@pytest.mark.parametrize("seed", range(12))
def test_names_and_order_are_those_of_a_search_that_holds_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    files = make_images(tmp_path, random.Random(seed))
    limit_memory(monkeypatch)
    expected = list_plainly(tmp_path, files)
    found = find_scans(tmp_path, 1, allow_empty=True)
    assert [(scan.name, scan.files[0]) for scan in found.scans] == expected
    shards = [Shard(3, number) for number in (1, 2, 3)]
    parts = [found.choose(shard.holds).scans for shard in shards]
    for shard, part in zip(shards, parts, strict=True):
        own = [pair for pair in expected if shard.holds(pair[0])]
        assert [(scan.name, scan.files[0]) for scan in part] == own
    last = found.scans[len(found.scans) // 2 :]
    assert [scan.name for scan in last] == [
        name for name, _ in expected[len(expected) // 2 :]
    ]


def make_tree(root: Path, chance: random.Random) -> None:
    """Write DICOM series over several folders, channels, and what is neither."""
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    places = [root / folder for folder in FOLDERS]
    for name in ("one", "two", "three"):
        slices = made.series(made.voxels((6, 5, 4)), name=name)
        if chance.random() < 0.3:
            slices = slices[chance.randint(1, 3) :]
        if chance.random() < 0.3:
            made_up = "1.2.840.10008.5.1.4.1.1.4"
            slices[0].SOPClassUID = made_up
            slices[0].file_meta.MediaStorageSOPClassUID = made_up
        for number, ds in enumerate(slices):
            made.save(chance.choice(places), [ds], f"{name}{number}")
    torn = chance.choice(places) / "torn.dcm"
    torn.write_bytes(b"\0" * 128 + b"DICM")
    voxels = np.arange(512, dtype=np.int16).reshape(8, 8, 8)
    for stem in ("p_T1", "p_FLAIR", "q_0000", "q_0001", "r_T1"):
        if chance.random() < 0.8:
            write_nifti(chance.choice(places) / f"{stem}.nii.gz", voxels)
    (chance.choice(places) / "notes.txt").touch()
    (root / "a" / "link").symlink_to(root / "nowhere")


def describe(found: ScanList) -> list[Any]:
    scans = [
        (scan.name, scan.parts, scan.volume, scan.warnings)
        for scan in found.scans
    ]
    return [scans, found.left_out, found.skipped, found.notes]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("specs", [(), CHANNELS])
def test_what_lies_on_the_disk_is_found_as_what_is_in_memory(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    specs: list[ChannelSpec],
) -> None:
    make_tree(tmp_path, random.Random(seed))
    channels = len(specs) or 1
    in_memory = find_scans(tmp_path, channels, channel_specs=specs)
    limit_memory(monkeypatch)
    on_disk = find_scans(tmp_path, channels, channel_specs=specs)
    assert describe(on_disk) == describe(in_memory)
    assert list(on_disk.former_names) == list(in_memory.former_names)
    for known in ((), [*in_memory.former_names][::2]):
        kept = on_disk.keep_former_names(known)
        assert describe(kept) == describe(in_memory.keep_former_names(known))


def touch_channels(root: Path, chance: random.Random) -> None:
    """Write empty files of channels in all the ways that these may lie."""
    for _ in range(chance.randint(5, 9)):
        case = chance.choice(("k", "K", "k_2", "k_post", "sub-01", "sub-02"))
        folder = root / chance.choice(FOLDERS)
        way = chance.randrange(4)
        for number, name in enumerate(("T1", "FLAIR", "T2")):
            place = (
                folder / f"{case}_{name}.nii.gz",
                folder / case / f"{name.lower()}.nii.gz",
                folder / name / f"{case}.nii.gz",
                folder / f"{case}_{number:04d}.nii.gz",
            )[way]
            if chance.random() < 0.8:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.touch()
    if chance.random() < 0.5:
        (root / "dataset_description.json").write_text("{}")


@pytest.mark.parametrize("seed", range(6))
def test_channels_are_found_on_the_disk_as_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    touch_channels(tmp_path, random.Random(seed))
    in_memory = find_scans(tmp_path, 2, channel_specs=CHANNELS)
    limit_memory(monkeypatch)
    on_disk = find_scans(tmp_path, 2, channel_specs=CHANNELS)
    assert describe(on_disk) == describe(in_memory)
    places = [scan.parts[0][0] for scan in in_memory.scans]
    assert len(set(places)) == len(places)


def test_a_scan_of_several_channels_takes_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "FEWEST_ON_DISK", 20)
    monkeypatch.setattr(spool, "BLOCK_ITEMS", 16)
    monkeypatch.setattr(long_sort, "MOST_IN_MEMORY", 50)
    monkeypatch.setattr(long_sort, "_BLOCK_ITEMS", 8)
    peaks = []
    for cases in (150, 450):
        root = tmp_path / str(cases)
        for case in range(cases):
            folder = root / f"case_{case}"
            folder.mkdir(parents=True)
            for name in ("T1", "FLAIR"):
                (folder / f"{name}.nii.gz").touch()
        tracemalloc.start()
        found = find_scans(root, 2, channel_specs=CHANNELS)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(found.scans) == cases
        peaks.append(peak)
    few, many = peaks
    assert many - few < 300 * 1000
