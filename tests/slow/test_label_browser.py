"""The browser path: OHIF in a real Chromium opens a study from Orthanc and runs the model.

``MEDSEG_SCREENSHOTS=FOLDER`` keeps the pictures that stand in the how-tos.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pydicom
import pytest
from support.browsers import Browser, open_chromium
from support.bundles import content, write_json
from support.dicomweb_reads import fetch_segmentations
from support.label_servers import (
    Server,
    encode_form,
    require_monai_label,
    run_server,
)
from support.namespaces import open_namespace
from support.orthancs import phantom_series, run_orthanc, send, write_series

from medseg import Segmenter, Volume, train
from medseg.dicom_labels.seg_reader import read_dicom_seg
from medseg.io import read_image, read_labels
from medseg.label_server.label_history import LabelHistory
from medseg.label_server.label_upload import place_on_grid
from medseg.label_server.state import StateFolder
from medseg.label_server.users import Role, write_user
from medseg.testing import write_dataset

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(900)]

PERSON, PASSWORD = "anna", "correct horse"
HAS_PICTURE = "return document.querySelector('td.picture img').naturalWidth > 0"
VIEWPORT = """
const box = document.querySelector('[data-cy=viewport-pane]').getBoundingClientRect();
return [box.x, box.y, box.width, box.height];
"""
SELECT_SEGMENT = """
[...document.querySelectorAll('span,div')].filter(e => e.innerText === arguments[0]).pop().click()
"""
MENU = """
const add = [...document.querySelectorAll('button')].filter(e => e.innerText === 'Add Segment')[0];
const top = add.getBoundingClientRect().y;
const menu = [...document.querySelectorAll('button')]
  .filter(e => e.querySelector('svg') && !e.innerText && e.getBoundingClientRect().x > 1000
    && e.getBoundingClientRect().y > top - 70 && e.getBoundingClientRect().y < top)
  .sort((a, b) => a.getBoundingClientRect().x - b.getBoundingClientRect().x)[0];
const box = menu.getBoundingClientRect();
return [box.x + box.width / 2, box.y + box.height / 2];
"""
CHOOSE = """
const find = text =>
  [...document.querySelectorAll('[role=menuitem]')].find(e => e.innerText === text);
if (find(arguments[1])) return true;
find(arguments[0])?.click();
return false;
"""
LABELMAP = """
const [one] = window.services?.segmentationService.getSegmentations() ?? [];
const ids = one?.representationData?.Labelmap?.imageIds;
if (!ids) return null;
const images = ids.map(id => window.cornerstone.cache.getImage(id));
if (images.some(image => !image)) return null;
return {rows: images[0].rows, columns: images[0].columns, slices: images.map(image => [
  image.referencedImageId.match(/instances\\/([0-9.]+)/)[1], [...image.getPixelData()]])};
"""
CLICK = "[...document.querySelectorAll('button')].find(b => {0}).click()"
HAS_LABELS = (
    "return window.services.segmentationService.getSegmentations().length > 0"
)
OVERLAY = """
const volume = window.services.segmentationService.getLabelmapVolume('1');
if (!volume) return null;
const voxels = volume.voxelManager.getCompleteScalarDataArray();
if (!voxels.some(value => value)) return null;
const segments = {};
for (const one of Object.values(window.services.segmentationService.getSegmentations()))
  for (const segment of Object.values(one.segments || {}))
    segments[segment.segmentIndex] = segment.label;
return {shape: [...volume.dimensions], origin: [...volume.origin], spacing: [...volume.spacing],
        direction: [...volume.direction], voxels: [...voxels], segments: segments};
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_monai_label()
    home = tmp_path_factory.mktemp("browser")
    made = content(
        data={"folds": 2},
        quality={"corrupted_copies": 0},
        preprocessing={
            "spacing_mm": [4, 4, 4],
            "intensity": {"kind": "window", "low": -200, "high": 300},
        },
        training={
            "steps": 60,
            "patch": [32, 32, 32],
            "batch_size": 4,
            "optimizer": "adamw",
            "learning_rate": 0.01,
            "foreground_share": 0.9,
            "validate_every": 60,
        },
    )
    data = write_dataset(home / "data", 4, seed=50)
    train(
        write_json(home / "made", made),
        data=data,
        out=home / "bundle",
        device="cpu",
    )
    return home


def test_ohif_shows_the_segmentation_where_it_belongs(home: Path) -> None:
    slices, _ = phantom_series(0)
    with run_orthanc(home / "orthanc") as pacs:
        send(pacs, list(write_series(home / "ct", slices).iterdir()))
        address = f"{pacs}/dicom-web"
        with (
            run_server(home / "bundle", address, home / "state") as server,
            open_chromium(home) as window,
        ):
            _open_study(window, server.url, str(slices[0].StudyInstanceUID))
            window.run(CLICK.format("b.title === 'Run Segmentation'"))
            shown = window.wait("overlay", lambda: window.run(OVERLAY))
            window.wait(
                "drawing", lambda: not window.run("return document.hidden"), 5
            )
            picture = window.picture(home / "ohif.png")
    _keep(picture, "ohif.png")
    volume = read_image(home / "ct")
    found = Segmenter(home / "bundle", "cpu").segment(volume)
    names = {label.index: label.name for label in found.label_set}
    overlay = place_on_grid(_as_volume(shown), volume)
    assert found.labels.any()
    for index, name in names.items():
        number = next(
            int(key)
            for key, label in shown["segments"].items()
            if label == name
        )
        assert np.array_equal(overlay == number, found.labels == index), name


@pytest.mark.parametrize(
    "place", ["here", pytest.param("network", marks=pytest.mark.nightly)]
)
def test_a_proposal_is_corrected_in_ohif_and_read_back_voxel_by_voxel(
    home: Path, place: str
) -> None:
    work = home / place
    work.mkdir()
    options, headers, namespace = ["--store-proposals"], {}, None
    with contextlib.ExitStack() as stack:
        if place == "network":
            namespace = stack.enter_context(open_namespace())
            write_user(home / "users.txt", PERSON, PASSWORD, Role.ANNOTATOR)
            users = ["--host", "0.0.0.0", "--users", str(home / "users.txt")]
            options += users
            known = base64.b64encode(f"{PERSON}:{PASSWORD}".encode()).decode()
            headers = {"authorization": f"Basic {known}"}
        pacs = stack.enter_context(run_orthanc(work / "pacs", namespace))
        slices, _ = phantom_series(1)
        send(pacs, list(write_series(work / "ct", slices).iterdir()))
        server = stack.enter_context(
            run_server(
                home / "bundle",
                f"{pacs}/dicom-web",
                work / "state",
                *options,
                headers=headers,
                namespace=namespace,
            )
        )
        window = stack.enter_context(open_chromium(work))
        if place == "network":
            # As if they were typed where the browser asks for them.
            scheme, _, address = server.url.partition("://")
            login = f"{PERSON}:{quote(PASSWORD)}"
            window.open(f"{scheme}://{login}@{address}/")
        _correct_in_ohif(server, f"{pacs}/dicom-web", window, work, headers)
    series = str(slices[0].SeriesInstanceUID)
    history = LabelHistory(StateFolder(work / "state"))
    (record,) = history.list_records(series)
    assert record.author == (PERSON if place == "network" else "DICOM SEG")


def _correct_in_ohif(
    server: Server,
    dicomweb: str,
    window: Browser,
    work: Path,
    headers: Mapping[str, str],
) -> None:
    """Segment, open the proposal, paint, store, and see that what comes back is what was shown."""
    slices, _ = phantom_series(1)
    series = str(slices[0].SeriesInstanceUID)
    body, kind = encode_form({"params": "{}"}, {})
    known = {**headers, "content-type": kind}
    server.ask("POST", f"/infer/made_up?image={series}", body, known)
    (proposal,) = fetch_segmentations(dicomweb, work / "seg")
    _check_work_list(window, server.url, work)
    _open_proposal(window)
    _keep(window.picture(work / "open.png"), "ohif-proposal.png")
    before = _read_labelmap(window)
    _paint(window)
    window.wait(
        "paint",
        lambda: not np.array_equal(_read_labelmap(window), before),
        30,
    )
    _keep(window.picture(work / "brush.png"), "ohif-brush.png")
    painted = _read_labelmap(window)
    _export(window)
    _keep(window.picture(work / "stored.png"), "ohif-stored.png")
    window.open(f"{server.url}/?show=review")
    assert "corrected" in window.text()
    stored = fetch_segmentations(dicomweb, work / "both")
    kept = read_labels(work / f"state/labels/final/{series}.nii.gz").array[0]
    assert np.array_equal(kept, painted)
    description = str(pydicom.dcmread(proposal).SeriesDescription)
    assert description.startswith("Proposal: made_up v0001, ")
    volume = read_image(work / "ct")
    assert np.array_equal(read_dicom_seg(proposal, volume).array[0], before)
    kinds = sorted(_read_kind(file) for file in stored)
    assert kinds == ["AUTOMATIC", "MANUAL"], "the proposal is not stored twice"


def _read_kind(file: Path) -> str:
    first, *_ = pydicom.dcmread(file).SegmentSequence
    return str(first.SegmentAlgorithmType)


def _check_work_list(window: Browser, url: str, home: Path) -> None:
    """See the list as people do: narrow and wide, light and dark; then open its case."""
    window.open(url)
    for width, dark in ((390, True), (390, False), (1280, True), (1280, False)):
        window.emulate(width, dark=dark)
        overflow = window.run(
            "return document.documentElement.scrollWidth - innerWidth"
        )
        assert overflow <= 0, width
        name = f"list-{width}-{'dark' if dark else 'light'}.png"
        _keep(window.page(home / name), name)
    assert "proposed" in window.text()
    window.wait("picture", lambda: window.run(HAS_PICTURE), 20)
    said = " ".join(window.log())
    assert "Content Security Policy" not in said
    window.run("document.querySelector('a.button').click()")
    window.stop_emulating()


def _open_proposal(window: Browser) -> None:
    window.wait("question", lambda: "open this Segmentation" in window.text())
    if "Confirm and Hide" in window.text():
        window.run(CLICK.format("b.innerText.startsWith('Confirm')"))
    window.run(CLICK.format("b.innerText === 'Yes'"))
    window.wait("answer", lambda: "open this Segmentation" not in window.text())
    window.wait("segments", lambda: window.run(LABELMAP))


def _paint(window: Browser) -> None:
    """Paint the second label across the middle of a slice, with the mouse."""
    window.run(SELECT_SEGMENT, "kidney")
    window.run("document.querySelector('[data-cy=Brush]').click()")
    left, top, width, height = window.run(VIEWPORT)
    x, y = left + width / 2, top + height / 2
    for _ in range(15):
        window.scroll(x, y)
    window.drag(x, y, x + 80)


def _export(window: Browser) -> None:
    window.run("document.getElementById('medseg-panel').open = false")
    window.click(*window.run(MENU))
    open_submenu = functools.partial(
        window.run, CHOOSE, "Export & Download", "Export DICOM SEG"
    )
    window.wait("submenu", open_submenu)
    window.run(CHOOSE, "Export DICOM SEG", "")
    window.wait("prompt", lambda: "Enter the report name" in window.text())
    window.run("document.querySelector('[role=dialog] input, input').focus()")
    window.type("corrected")
    window.run(CLICK.format("b.innerText === 'Save'"))
    window.wait("message", lambda: "Stored in the DICOM" in window.text())


def _read_labelmap(window: Browser) -> Any:
    """Return what OHIF would store, shape ``(i, j, k)``, in the order of the series' slices."""
    shown = window.run(LABELMAP)
    slices, _ = phantom_series(1)
    order = {str(ds.SOPInstanceUID): k for k, ds in enumerate(slices)}
    labels = np.zeros((shown["columns"], shown["rows"], len(order)), np.uint8)
    for uid, pixels in shown["slices"]:
        plane = np.array(pixels, np.uint8).reshape(shown["rows"], -1)
        labels[:, :, order[uid]] = plane.T
    return labels


def _keep(picture: Path, name: str) -> None:
    kept = os.environ.get("MEDSEG_SCREENSHOTS")
    if kept:
        shutil.copyfile(picture, Path(kept) / name)


def _open_study(window: Browser, url: str, study: str) -> None:
    window.open(f"{url}/ohif/")
    # The panel expects port 8000 until it is told another address, which it keeps in a cookie.
    window.run(
        "document.cookie = 'MONAILABEL_SERVER_URL=' + arguments[0] + ';path=/'",
        f"{url}/",
    )
    window.open(f"{url}/ohif/monai-label?StudyInstanceUIDs={study}")
    window.wait(
        "study",
        lambda: "MONAI Label" in window.text() and "I:" in window.text(),
    )
    if "Confirm and Hide" in window.text():
        window.run(CLICK.format("b.innerText.startsWith('Confirm')"))
    window.run("document.querySelector('button.actionButton').click()")
    window.wait("connection", lambda: "worst_first" in window.text())
    window.wait("labels", lambda: window.run(HAS_LABELS))
    window.run(
        "const tab = document.getElementById('tab-2'); if (!tab.checked) tab.click()"
    )


def _as_volume(shown: dict[str, Any]) -> Volume:
    """Return OHIF's label map as a volume: its axes are DICOM's, LPS."""
    lps = np.eye(4)
    turn = np.array(shown["direction"]).reshape(3, 3).T
    lps[:3, :3] = turn * np.array(shown["spacing"])
    lps[:3, 3] = shown["origin"]
    voxels = np.array(shown["voxels"], np.uint8).reshape(
        shown["shape"], order="F"
    )
    return Volume(voxels[None], np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps)
