"""The service that the guide shows: bytes in, a label map out, and nobody named on the way."""

from __future__ import annotations

import gzip
import json
import logging
import re
import types
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from support import dicom
from support.bundles import made_spec, trained_bundle

pytest.importorskip("fastapi", reason="fastapi comes with MLflow")

from fastapi.testclient import TestClient

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "how-to" / "embed-in-a-service.md"


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    bundle = trained_bundle(tmp_path / "bundle", made_spec())
    monkeypatch.setenv("BUNDLE", str(bundle))
    monkeypatch.setenv("MOST_BYTES", "100000")
    (code,) = re.findall(
        r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL
    )
    module = types.ModuleType("service")
    exec(compile(code, str(GUIDE), "exec"), module.__dict__)  # noqa: S102 - our own page
    return module


def test_a_scan_goes_in_and_its_label_map_comes_back(
    service: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = TestClient(service.app)
    array = dicom.voxels((18, 16, 14)).astype(np.float32) - 1024
    image = nib.Nifti1Image(array, np.diag([1.0, 1.5, 2.0, 1.0]))
    body = gzip.compress(image.to_bytes(), 1)
    answer = client.post("/segment", content=body)
    assert answer.status_code == 200
    labels = nib.Nifti1Image.from_bytes(gzip.decompress(answer.content))
    expected = service.segmenter.segment(image)
    assert np.array_equal(labels.get_fdata(), expected.labels)
    facts = json.loads(answer.headers["X-Result"])
    assert facts["volumes_ml"] == expected.volumes_ml

    too_much = client.post("/segment", content=bytes(100_001))
    assert too_much.status_code == 413
    wrong = client.post("/segment", content=b"%PDF-1.7 Secret^Person")
    assert wrong.status_code == 422
    assert "NIfTI" in wrong.json()["detail"]
    (slice_,) = dicom.series(dicom.voxels((8, 8, 1)))
    one = _bytes_of(slice_)
    refused = client.post("/segment", content=one)
    assert refused.status_code == 422
    told = caplog.text + wrong.text + refused.text
    assert "Secret" not in told
    assert "ID-4711" not in told

    with service.turns:
        busy = client.post("/segment", content=body)
    assert busy.status_code == 503
    assert busy.headers["Retry-After"]
    # Whatever went wrong before, the turn was given back.
    assert client.post("/segment", content=body).status_code == 200


def _bytes_of(ds: Any) -> bytes:

    file = BytesIO()
    ds.save_as(file, enforce_file_format=False)
    return file.getvalue()
