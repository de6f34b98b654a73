"""The browser path: OHIF in a real Chromium opens a study from Orthanc and runs the model.

``MEDSEG_SCREENSHOT=FILE`` keeps the picture that stands in the how-to.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.browsers import Browser, open_chromium
from support.bundles import content, write_json
from support.label_servers import require_monai_label, run_server
from support.orthancs import phantom_series, run_orthanc, send, write_series

from medseg import Segmenter, Volume, train
from medseg.io import read_image
from medseg.label_server.label_upload import place_on_grid
from medseg.testing import write_dataset

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(900)]

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
    kept = os.environ.get("MEDSEG_SCREENSHOT")
    if kept:
        shutil.copyfile(picture, kept)
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


def _open_study(window: Browser, url: str, study: str) -> None:
    window.open(f"{url}/static/ohif/")
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
