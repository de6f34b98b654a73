"""Phantoms: the same seed gives the same one, and a data set of them can be read."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import numpy as np

from medseg.io import read_image, read_labels
from medseg.testing import KIDNEY, LIVER, make_phantom, write_dataset


def test_a_phantom_is_that_of_its_seed() -> None:
    first, labels = make_phantom(3, (28, 24, 20), 8.0)
    again, _ = make_phantom(3, (28, 24, 20), 8.0)
    other, _ = make_phantom(4, (28, 24, 20), 8.0)
    assert np.array_equal(first.array, again.array)
    assert not np.array_equal(first.array, other.array)
    assert set(np.unique(labels)) == {0, LIVER, KIDNEY}
    # Demos, benchmarks and trained examples rely on these very voxels.
    assert (
        hashlib.sha256(labels.tobytes()).hexdigest()[:16] == "87efe68a7903a0d6"
    )
    rounded = np.rint(first.array[0]).astype(np.int16)
    assert (
        hashlib.sha256(rounded.tobytes()).hexdigest()[:16] == "5c5f2eaff0767188"
    )


def test_organs_stand_out_from_each_other() -> None:
    volume, labels = make_phantom(0)
    image = volume.array[0]
    liver, kidney, rest = (
        image[labels == index].mean() for index in (LIVER, KIDNEY, 0)
    )
    assert kidney > liver + 30 > rest + 60
    assert volume.spacing == (4, 4, 4)


def test_a_data_set_holds_every_case_on_one_grid(tmp_path) -> None:
    root = write_dataset(
        tmp_path / "data", 2, seed=5, shape=(14, 12, 10), spacing=16.0
    )
    listing = json.loads((root / "dataset.json").read_text())
    assert [case["image"] for case in listing["training"]] == [
        "./imagesTr/phantom_000.nii.gz",
        "./imagesTr/phantom_001.nii.gz",
    ]
    for number, case in enumerate(listing["training"]):
        image, label = (
            read_image(root / case["image"]),
            read_labels(root / case["label"]),
        )
        image.require_same_grid(label, "a case's image and its label map")
        volume, labels = make_phantom(5 + number, (14, 12, 10), 16.0)
        assert np.array_equal(image.array, np.rint(volume.array))
        assert np.array_equal(label.array[0], labels)


def test_test_data_needs_no_test_runner() -> None:
    code = "import sys, medseg.testing; sys.exit('pytest' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], check=False).returncode
        == 0
    )
