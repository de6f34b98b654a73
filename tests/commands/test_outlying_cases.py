"""One case that lies apart is named by check, plan, train and evaluate, and drags no plan along."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support.bundles import content, made_spec, write_json

import medseg
from medseg.datasets.dataset import open_dataset
from medseg.events import Event, Notice
from medseg.testing import write_dataset

ODD = "phantom_002"
CASES = 5


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(
        tmp_path_factory.mktemp("apart") / "data",
        CASES,
        shape=(36, 32, 26),
        spacing=6.0,
    )


@pytest.fixture
def data(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "data"))


def change_image(
    data: Path, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    file = data / "imagesTr" / f"{ODD}.nii.gz"
    image = nib.load(file)
    voxels = change(image.get_fdata().astype(np.float32))
    nib.save(nib.Nifti1Image(voxels, image.affine), file)


def shift(data: Path) -> None:
    change_image(data, lambda hu: hu + 1024)


def scale(data: Path) -> None:
    change_image(data, lambda hu: (hu + 1000) / 2000)


def measure_in_metres(data: Path) -> None:
    for folder in ("imagesTr", "labelsTr"):
        file = data / folder / f"{ODD}.nii.gz"
        image = nib.load(file)
        affine = np.diag([1e-3, 1e-3, 1e-3, 1]) @ image.affine
        voxels = np.asanyarray(image.dataobj)
        nib.save(nib.Nifti1Image(voxels, affine), file)


def hear(heard: list[Event]) -> list[str]:
    return [each.message for each in heard if isinstance(each, Notice)]


def draft(data: Path, out: Path) -> tuple[medseg.Plan, list[str]]:
    heard: list[Event] = []
    plan = medseg.plan(data, out, device="cpu", listeners=[heard.append])
    return plan, hear(heard)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (shift, "HU more than in the other cases"),
        (scale, "its intensities span"),
    ],
)
def test_a_ct_on_a_scale_of_its_own_is_named_by_check_train_and_plan(
    data: Path,
    sound: Path,
    tmp_path: Path,
    damage: Callable[[Path], None],
    said: str,
) -> None:
    damage(data)
    bundle = write_json(tmp_path / "bundle", content())
    checked = medseg.check(bundle, data=data)
    assert checked.cases == CASES
    _, planned = draft(data, tmp_path / "plan.json")
    told = [checked.warnings, planned]
    for _ in range(2):
        # The second time from the cache.
        heard: list[Event] = []
        cache = tmp_path / "cache"
        open_dataset(data, made_spec(), None, cache, listeners=[heard.append])
        told.append(hear(heard))
    for texts in told:
        (text,) = [each for each in texts if said in each]
        assert text.startswith(f"{ODD}: ")


@pytest.mark.parametrize("damage", [shift, scale, measure_in_metres])
def test_a_plan_is_that_of_the_other_cases(
    data: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damage(data)
    plan, said = draft(data, tmp_path / "with.json")
    assert any(
        "1 of 5 cases lie apart" in text and text.endswith(ODD) for text in said
    )
    for folder in ("imagesTr", "labelsTr"):
        (data / folder / f"{ODD}.nii.gz").unlink()
    listing = json.loads((data / "dataset.json").read_text())
    listing["training"] = [
        each for each in listing["training"] if ODD not in each["image"]
    ]
    (data / "dataset.json").write_text(json.dumps(listing))
    without, _ = draft(data, tmp_path / "without.json")
    assert plan.spec.preprocessing == without.spec.preprocessing
    assert "1 more lie apart" in plan.spec.notes["data.root"]
    assert "data.root" not in without.spec.notes
    assert ODD not in (tmp_path / "with.json").read_text()


def test_a_case_in_metres_is_a_fault_where_the_voxel_size_is_known(
    data: Path, tmp_path: Path
) -> None:
    measure_in_metres(data)
    made = content(preprocessing={"spacing_mm": [6, 6, 6]})
    bundle = write_json(tmp_path / "bundle", made)
    report = medseg.check(bundle, data=data)
    (fault,) = report.faults
    assert fault.where == ODD
    assert "check that its header gives lengths in mm" in fault.what
    with pytest.raises(medseg.DatasetError, match="gives lengths in mm"):
        medseg.train(bundle, data=data, out=tmp_path / "run", device="cpu")


def test_a_constant_case_is_no_case_of_a_plan(
    data: Path, tmp_path: Path
) -> None:
    change_image(data, lambda hu: hu * 0 + 5)
    plan, said = draft(data, tmp_path / "bundle.json")
    assert len(plan.fingerprint.cases) == CASES - 1
    assert any(
        text.startswith(f"left out: {ODD}: every voxel has the value 5")
        for text in said
    )


def test_a_reference_in_metres_is_named_by_evaluate(
    data: Path, tmp_path: Path
) -> None:
    measure_in_metres(data)
    heard: list[Event] = []
    masks = data / "labelsTr"
    medseg.evaluate(masks, masks, listeners=[heard.append])
    texts = [text for text in hear(heard) if text.startswith(ODD)]
    assert len(texts) == 2
    assert any("measures less than 2 mm in all" in text for text in texts)
    assert any("its voxels measure 0.006 mm" in text for text in texts)
    spec = made_spec(preprocessing={"spacing_mm": [6, 6, 6]})
    scored = medseg.evaluate(masks, masks, labels=spec)
    (fault,) = scored.faults
    assert fault.where == ODD
    assert "check that its header gives lengths in mm" in fault.what


def test_sound_cases_are_named_by_none(sound: Path, tmp_path: Path) -> None:
    bundle = write_json(tmp_path / "bundle", content())
    assert medseg.check(bundle, data=sound).warnings == ()
    plan, said = draft(sound, tmp_path / "plan.json")
    assert not plan.fingerprint.apart
    assert not said
