"""What MONAI Label's tasks hand out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.plugins import install_package

from medseg.errors import ScanError
from medseg.io import IMAGE_FORMATS
from medseg.label_server.request_checks import check_file_name
from medseg.label_server.state import StateFolder

pytest.importorskip("monailabel", reason="make label installs MONAI Label")

from medseg.label_server.tasks import _make_result_file

pytestmark = pytest.mark.slow

FORMAT = """
from medseg.io.formats import Format

def read(files):
    raise NotImplementedError

def write_labels(path, labels, like):
    raise NotImplementedError

FORMAT = Format("Voxel list", (".vox",), read, read, write_labels, (".vox",))
"""


@pytest.fixture
def added_format(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    points = {"medseg.image_formats": {"vox": "vox_package:FORMAT"}}
    install_package(site, "vox_package", points, FORMAT)
    IMAGE_FORMATS.refresh()
    yield
    monkeypatch.undo()
    IMAGE_FORMATS.refresh()


def test_results_may_have_any_format_that_label_maps_are_written_in(
    tmp_path: Path, added_format: None
) -> None:
    state = StateFolder(tmp_path)
    for suffix in (".nii.gz", ".nrrd", ".mha", ".vox"):
        assert _make_result_file(state, suffix).name.endswith(suffix)
    with pytest.raises(ScanError, match=r"one of .*\.vox"):
        _make_result_file(state, ".txt")


def test_uploads_may_have_any_format_that_is_read(added_format: None) -> None:
    for name in ("a.vox", "a.seg.nrrd", "a.mgz", "肝.nii.gz"):
        check_file_name(name)
