"""Masks as people have them are planned: colours, grey levels, palettes, borders, stray values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
from PIL import Image, ImageFilter
from support.street_scenes import (
    COLOURS,
    as_jpeg,
    make_scene,
    paint,
    photograph,
    write_class_dict,
    write_street_scenes,
)

from medseg.bundle.spec import BundleSpec
from medseg.datasets.cases import find_cases
from medseg.datasets.integrity import check_cases
from medseg.datasets.known_palettes import read_voc
from medseg.errors import DatasetError, MedsegError
from medseg.events import Event, Notice, Progress
from medseg.layouts import Selection
from medseg.planning import (
    LabelWishes,
    inspect_dataset,
    make_provisional_spec,
    parse_label_requests,
)
from medseg.planning.mask_labels import find_key

COUNT = 5
SHAPE = (60, 80)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # fingerprints are cached in ./runs


class Planned(NamedTuple):
    """What is planned of labels, and what was said."""

    labels: list[dict[str, Any]]
    data: dict[str, Any]
    note: str
    said: list[str]
    cases: int

    @property
    def names(self) -> list[str]:
        return [label["name"] for label in self.labels]

    def check(self, folder: Path) -> list[str]:
        """Check the data with what was planned; return the faults."""
        channels = 3 if "street" in folder.name else 1
        spec = make_provisional_spec(
            channels, {}, dims=2, label_fields=self.labels, data=self.data
        )
        content = spec.model_dump(
            mode="json", by_alias=True, exclude_unset=True
        )
        content["preprocessing"] = {"input": "picture"}
        pictures = BundleSpec.model_validate(content)
        report = check_cases(find_cases(folder, pictures), pictures)
        return [str(fault) for fault in report.faults]


def plan_labels(folder: Path, *requests: str, stray_voxels: int = 0) -> Planned:
    events: list[Event] = []
    wishes = LabelWishes(tuple(parse_label_requests(requests)), stray_voxels)
    dataset = inspect_dataset(folder, Selection(), [events.append], wishes)
    notes: dict[str, str] = {}
    description = dataset.description
    labels = description.describe_labels(dataset.fingerprint, notes)
    data: dict[str, Any] = {}
    if description.mask_labels is not None:
        data = description.mask_labels.list_data_fields()
    for label in labels:
        found = dataset.fingerprint.find_label_statistics(find_key(label))
        assert found, "what is planned has been measured"
    said = [event.message for event in events if isinstance(event, Notice)]
    count = len(dataset.fingerprint.cases)
    return Planned(labels, data, notes.get("labels", ""), said, count)


def write_masks(
    folder: Path,
    masks: Sequence[Image.Image | np.ndarray],
    suffix: str = ".png",
) -> Path:
    """Write pictures of noise, and their masks."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    random = np.random.default_rng(0)
    for number, mask in enumerate(masks):
        picture = (
            Image.fromarray(mask) if isinstance(mask, np.ndarray) else mask
        )
        rows, columns = picture.size[::-1]
        noise = random.integers(0, 255, (rows, columns), np.uint8)
        name = f"case_{number:02d}"
        Image.fromarray(noise).save(folder / "images" / f"{name}.png")
        options = {"quality": 90} if suffix == ".jpg" else {}
        picture.save(folder / "labels" / f"{name}{suffix}", **options)
    return folder


def disc(radius: float, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    rows, columns = shape
    y, x = np.mgrid[:rows, :columns]
    return np.hypot(y - rows / 2, x - columns / 2) < radius


def levels(outer: int, inner: int) -> list[np.ndarray]:
    """Masks of a disc in a disc."""
    masks = []
    for number in range(COUNT):
        mask = np.where(disc(15 + number), outer, 0)
        masks.append(np.where(disc(8 + number), inner, mask).astype(np.uint8))
    return masks


def with_palette(mask: np.ndarray, colours: dict[int, Any]) -> Image.Image:
    palette = [0] * 768
    for value, colour in colours.items():
        palette[3 * value : 3 * value + 3] = colour
    picture = Image.frombytes("P", mask.shape[::-1], mask.tobytes())
    picture.putpalette(palette)
    return picture


UNKNOWN = [(1, 2, 3), (9, 200, 9), (10, 10, 200), (200, 10, 10), (90, 90, 90)]
OF_BOTH = [
    (128, 0, 0), (128, 128, 0), (64, 0, 128), (192, 0, 128), (128, 128, 128),
]  # fmt: skip
"""Colours that PASCAL VOC and CamVid have, for different things."""


def paint_all(colours: Sequence[tuple[int, int, int]]) -> list[Image.Image]:
    named = dict(zip(COLOURS, colours, strict=True))
    return [paint(make_scene(seed), named) for seed in range(COUNT)]


VOC = {code.value: code.colour for code in read_voc().codes}


# --- colours ------------------------------------------------------------------------------


def test_a_table_beside_the_masks_names_their_colours(tmp_path: Path) -> None:
    data = write_street_scenes(tmp_path / "street", COUNT)
    write_class_dict(data, {**COLOURS, "Void": (0, 0, 0), "Tree": (9, 9, 200)})

    planned = plan_labels(data)

    assert planned.names == list(COLOURS)
    assert [label["colour"] for label in planned.labels] == [
        list(colour) for colour in COLOURS.values()
    ]
    assert planned.data == {"colour_coded": True}
    assert "Names by class_dict.csv" in planned.note
    assert "No mask has Tree; left out" in planned.note
    assert "other colours or grey levels are soft or JPEG edges" in planned.note
    (shares,) = [text for text in planned.said if "masks hold" in text]
    assert shares.startswith(f"{COUNT} of {COUNT} masks")
    assert "Most in frame_" in shares
    assert planned.check(data) == []


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_camvids_colours_are_known(tmp_path: Path, suffix: str) -> None:
    data = write_street_scenes(
        tmp_path / "street", COUNT, smooth=False, suffix=suffix
    )
    planned = plan_labels(data)

    assert sorted(planned.names) == [
        "Building", "Car", "Column_Pole", "Road", "Sky",
    ]  # fmt: skip
    assert "Names by CamVid" in planned.note
    assert "No mask has" not in planned.note
    assert planned.cases == COUNT
    assert planned.check(data) == []


def test_masks_with_an_opaque_alpha_are_planned(tmp_path: Path) -> None:
    masks = [paint(make_scene(seed)).convert("RGBA") for seed in range(COUNT)]
    assert len(plan_labels(write_masks(tmp_path / "data", masks)).labels) == 5


def test_masks_saved_as_jpeg_once_and_as_png_again(tmp_path: Path) -> None:
    masks = [as_jpeg(paint(make_scene(seed))) for seed in range(COUNT)]
    planned = plan_labels(write_masks(tmp_path / "data", masks))

    assert len(planned.labels) == 5
    assert "Names by CamVid" in planned.note


def test_colours_that_nobody_names_are_named_by_their_numbers(
    tmp_path: Path,
) -> None:
    data = write_masks(tmp_path / "data", paint_all(UNKNOWN))

    planned = plan_labels(data)

    assert "colour_9_200_9" in planned.names
    assert "Nothing names (1, 2, 3)" in planned.note
    assert planned.check(data) == []


def test_colours_of_two_palettes_are_named_by_neither(tmp_path: Path) -> None:
    planned = plan_labels(write_masks(tmp_path / "data", paint_all(OF_BOTH)))

    assert planned.names[0].startswith("colour_")
    assert "PASCAL VOC and CamVid" in planned.note


def test_a_person_names_colours_merges_them_and_says_what_is_nothing(
    tmp_path: Path,
) -> None:
    data = write_street_scenes(tmp_path / "street", COUNT)
    planned = plan_labels(
        data,
        "ground=128,64,128",
        "Ground=64,0,128",
        "background=128,128,128",
        "ignore=192,192,128",
    )

    assert planned.labels == [
        {
            "index": 1,
            "name": "ground",
            "colour": [[128, 64, 128], [64, 0, 128]],
        },
        {"index": 2, "name": "Building", "colour": [128, 0, 0]},
    ]
    assert planned.data["background"] == [[128, 128, 128]]
    assert planned.data["ignore"] == [[192, 192, 128]]
    assert planned.check(data) == []


def test_void_of_a_table_is_not_annotated(tmp_path: Path) -> None:
    data = write_street_scenes(tmp_path / "street", COUNT)
    write_class_dict(
        data, {**COLOURS, "Void": COLOURS["Pole"]} | {"Pole": (0, 0, 9)}
    )

    planned = plan_labels(data)

    assert planned.data["ignore"] == [list(COLOURS["Pole"])]
    assert "Nobody annotated (192, 192, 128)" in planned.note


def test_a_mask_that_cannot_be_told_is_left_out_with_its_reason(
    tmp_path: Path,
) -> None:
    masks = [paint(make_scene(seed)) for seed in range(COUNT)]
    masks.append(paint(make_scene(9)).filter(ImageFilter.GaussianBlur(5)))
    data = write_masks(tmp_path / "data", masks)
    write_class_dict(data)

    planned = plan_labels(data)

    assert planned.cases == COUNT
    (fault,) = [text for text in planned.said if text.startswith("left out")]
    assert fault.startswith(f"left out: case_{COUNT:02d}: ")
    assert "save it as PNG, without smoothing" in fault


def test_photographs_are_no_masks(tmp_path: Path) -> None:
    masks = [photograph(make_scene(seed, 160, 200), seed) for seed in range(2)]
    with pytest.raises(DatasetError, match=r"no labelled voxel|no case"):
        plan_labels(write_masks(tmp_path / "data", masks))


def test_a_colour_that_nobody_has_is_refused(tmp_path: Path) -> None:
    data = write_street_scenes(tmp_path / "street", 2)
    with pytest.raises(DatasetError, match=r"\(1, 2, 3\), which no mask holds"):
        plan_labels(data, "road=1,2,3")
    with pytest.raises(DatasetError, match="three numbers from 0 to 255"):
        plan_labels(data, "road=128,64")


def test_counting_is_shown(tmp_path: Path) -> None:
    data = write_street_scenes(tmp_path / "street", 2)
    events: list[Event] = []
    inspect_dataset(data, Selection(), [events.append])
    counted = [
        (event.done, event.total)
        for event in events
        if isinstance(event, Progress) and event.task == "counting label values"
    ]
    assert counted == [(0, 2), (1, 2), (2, 2)]


# --- grey levels and values ---------------------------------------------------------------


def test_a_grey_jpeg_mask_has_one_label(tmp_path: Path) -> None:
    data = write_masks(tmp_path / "data", levels(255, 255), ".jpg")
    planned = plan_labels(data)

    assert planned.labels == [{"index": 1, "name": "label_255", "value": 255}]
    assert planned.check(data) == []


def test_a_smoothed_grey_mask_has_one_label(tmp_path: Path) -> None:
    masks = []
    for number in range(COUNT):
        large = disc(40 + 4 * number, (480, 640)).astype(np.uint8) * 255
        masks.append(
            Image.fromarray(large).resize((160, 120), Image.Resampling.BOX)
        )
    assert len(np.unique(np.asarray(masks[0]))) > 10
    data = write_masks(tmp_path / "data", masks)

    planned = plan_labels(data)

    assert planned.labels == [{"index": 1, "name": "label_255", "value": 255}]
    assert planned.check(data) == []


def test_exact_values_are_planned_as_ever(tmp_path: Path) -> None:
    planned = plan_labels(write_masks(tmp_path / "data", levels(1, 2)))

    assert planned.labels == [
        {"index": 1, "name": "label_1"},
        {"index": 2, "name": "label_2"},
    ]
    assert planned.data == {}


def test_values_are_merged(tmp_path: Path) -> None:
    masks = levels(127, 255)
    masks[1] = levels(128, 255)[1]
    data = write_masks(tmp_path / "data", masks)

    assert plan_labels(data).names == ["label_127", "label_128", "label_255"]
    planned = plan_labels(data, "myelin=127,128 axon=255")

    assert planned.labels == [
        {"index": 1, "name": "myelin", "value": [127, 128]},
        {"index": 2, "name": "axon", "value": 255},
    ]
    assert planned.check(data) == []


def test_values_of_volumes_are_named_and_merged(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for folder in ("images", "labels"):
        (data / folder).mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(2):
        label = np.zeros((8, 8, 8), np.uint8)
        label[2:6, 2:6, 2:4] = 1
        label[2:6, 2:6, 4:6] = 2
        label[0, 0, 0] = 9
        image = random.normal(size=label.shape).astype(np.float32)
        for folder, array in (("images", image), ("labels", label)):
            file = data / folder / f"scan{number}.nii.gz"
            nib.save(nib.Nifti1Image(array, np.eye(4)), file)

    named = plan_labels(data, "1=liver,2=kidney", stray_voxels=2)
    merged = plan_labels(data, "organ=1,2,9")

    assert named.labels == [
        {"index": 1, "name": "liver", "value": 1},
        {"index": 2, "name": "kidney", "value": 2},
    ]
    assert named.data == {"background": [9]}
    assert merged.labels == [{"index": 1, "name": "organ", "value": [1, 2, 9]}]
    assert plan_labels(data).names == ["label_1", "label_2", "label_9"]


def test_a_value_that_nobody_has_is_refused(tmp_path: Path) -> None:
    data = write_masks(tmp_path / "data", levels(127, 255))
    with pytest.raises(
        DatasetError, match=r"names 225, which no mask holds.*127"
    ):
        plan_labels(data, "axon=225")
    with pytest.raises(MedsegError, match="127 to two labels"):
        plan_labels(data, "a=127", "b=127")


def test_stray_values_are_left_out_only_when_told_to(tmp_path: Path) -> None:
    masks = levels(1, 2)
    masks[3][0, :2] = 9
    data = write_masks(tmp_path / "data", masks)

    assert plan_labels(data).names == ["label_1", "label_2", "label_9"]
    assert plan_labels(data, stray_voxels=1).names[-1] == "label_9"
    planned = plan_labels(data, stray_voxels=2)

    assert planned.names == ["label_1", "label_2"]
    assert planned.data == {"background": [9]}
    assert "9 (2 voxels) is left out" in planned.note
    assert "case_03" not in planned.note
    (said,) = [text for text in planned.said if "stray" in text]
    assert said.endswith("9 (2 voxels), in case_03")
    assert planned.check(data) == []


@pytest.mark.parametrize(
    ("values", "ignored"),
    [((1, 1), True), ((1, 2), True), ((7, 14), False), ((127, 127), False)],
)
def test_255_beside_class_numbers_is_a_border(
    tmp_path: Path, values: tuple[int, int], ignored: bool
) -> None:
    masks = levels(*values)
    for mask in masks:
        mask[:5, :5] = 255
    data = write_masks(tmp_path / "data", masks)

    planned = plan_labels(data)

    assert planned.data == ({"ignore": 255} if ignored else {})
    assert ("label_255" in planned.names) is not ignored
    assert "axon" in plan_labels(data, "axon=255").names


def test_vocs_masks_are_known_by_palette_and_border(tmp_path: Path) -> None:
    masks = []
    for mask in levels(7, 15):
        rim = disc(26) & ~disc(24)
        masks.append(
            with_palette(np.where(rim, 255, mask).astype(np.uint8), VOC)
        )
    data = write_masks(tmp_path / "data", masks)

    planned = plan_labels(data)

    assert planned.labels == [
        {"index": 1, "name": "car", "value": 7, "colour": [128, 128, 128]},
        {"index": 2, "name": "person", "value": 15, "colour": [192, 128, 128]},
    ]
    assert planned.data == {"ignore": 255}
    assert planned.check(data) == []


def test_vocs_palette_alone_names_nothing(tmp_path: Path) -> None:
    masks = [with_palette(mask, VOC) for mask in levels(1, 2)]
    assert plan_labels(write_masks(tmp_path / "data", masks)).names == [
        "label_1",
        "label_2",
    ]


def test_a_table_names_the_values_of_a_palette(tmp_path: Path) -> None:
    masks = [with_palette(mask, VOC) for mask in levels(1, 2)]
    data = write_masks(tmp_path / "data", masks)
    table = "background:0,0,0::\nnerve:128,0,0::\nvessel:0,128,0::\n"
    (data / "labelmap.txt").write_text(table)

    planned = plan_labels(data)

    assert planned.names == ["nerve", "vessel"]
    assert planned.labels[0]["colour"] == [128, 0, 0]
    assert planned.check(data) == []


def test_palettes_that_differ_say_nothing(tmp_path: Path) -> None:
    masks = [with_palette(mask, VOC) for mask in levels(1, 2)]
    masks[2] = with_palette(levels(1, 2)[2], {**VOC, 1: (0, 128, 0)})
    with pytest.raises(
        DatasetError, match=r"the value 1 is \(128, 0, 0\) in one"
    ):
        plan_labels(write_masks(tmp_path / "data", masks))


def test_cityscapes_ids_are_known_by_the_files_names(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    rows = ["image,label"]
    for seed in range(COUNT):
        scene = make_scene(seed)
        image, label = f"c{seed}.png", f"c{seed}_gtFine_labelTrainIds.png"
        photograph(scene, seed).save(data / image)
        ids = np.where(scene == 5, 255, scene - 1).astype(np.uint8)
        Image.fromarray(ids).save(data / label)
        rows.append(f"{image},{label}")
    (data / "cases.csv").write_text("\n".join(rows))

    planned = plan_labels(data)

    assert planned.names == ["road", "sidewalk", "building", "wall"]
    assert [label["value"] for label in planned.labels] == [0, 1, 2, 3]
    assert planned.data == {"ignore": 255}
    assert "Cityscapes (training ids)" in planned.note


def test_black_is_background_whatever_a_table_calls_it(tmp_path: Path) -> None:
    masks = [
        disc(9 + n).astype(np.uint8)[..., None] * [[200, 10, 10]]
        for n in range(3)
    ]
    data = write_masks(
        tmp_path / "data", [mask.astype(np.uint8) for mask in masks]
    )
    write_class_dict(data, {"not_road": (0, 0, 0), "road": (200, 10, 10)})

    planned = plan_labels(data)

    assert planned.names == ["road"]
    assert planned.data == {"colour_coded": True}
    assert "Black is background, also as not_road" in planned.note


def test_a_grey_jpeg_mask_has_the_name_of_the_one_label_in_dataset_json(
    tmp_path: Path,
) -> None:
    data = write_masks(tmp_path / "data", levels(255, 255), ".jpg")
    cases = [
        {
            "image": f"images/case_{n:02d}.png",
            "label": f"labels/case_{n:02d}.jpg",
        }
        for n in range(COUNT)
    ]
    content = {
        "labels": {"0": "background", "1": "ventricle"},
        "training": cases,
    }
    (data / "dataset.json").write_text(json.dumps(content))

    assert plan_labels(data).names == ["ventricle"]
    assert plan_labels(data, "lesion=255").names == ["lesion"]


def test_a_person_names_the_colour_that_jpeg_has_changed(
    tmp_path: Path,
) -> None:
    data = write_street_scenes(
        tmp_path / "street", COUNT, smooth=False, suffix=".jpg"
    )
    planned = plan_labels(data, "way=130,62,127")
    assert planned.labels[0]["name"] == "way"
    assert planned.labels[0]["colour"] == [130, 62, 127]
    assert len(planned.labels) == 5
    assert planned.check(data) == []


def test_numbers_of_classes_are_all_labels(tmp_path: Path) -> None:
    masks = levels(1, 2)
    for value in (50, 90, 130):
        masks[1][0, value // 4] = value
    names = plan_labels(write_masks(tmp_path / "data", masks)).names
    assert names == [f"label_{value}" for value in (1, 2, 50, 90, 130)]


def test_grey_levels_that_jpeg_moved_by_one_are_one_label(
    tmp_path: Path,
) -> None:
    masks = levels(127, 255)
    masks[1] = levels(129, 255)[1]
    data = write_masks(tmp_path / "data", masks, ".jpg")

    planned = plan_labels(data)

    assert len(planned.labels) == 2
    assert planned.cases == COUNT
    assert planned.check(data) == []
    assert plan_labels(data, "myelin=127,128,129", "axon=255").names == [
        "myelin",
        "axon",
    ]
