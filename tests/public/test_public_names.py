"""The public face of medseg."""

from __future__ import annotations

import subprocess
import sys

import pytest

import medseg

PUBLIC = [
    "Batch",
    "Bundle",
    "Evaluation",
    "Export",
    "Label",
    "LabelSet",
    "MaskQuality",
    "MaskReview",
    "Plan",
    "Quality",
    "Segmentation",
    "Segmenter",
    "Volume",
    "BundleError",
    "CheckpointError",
    "DatasetError",
    "DownloadError",
    "GeometryError",
    "MedsegError",
    "MissingExtraError",
    "OutputError",
    "ScanError",
    "TrainingError",
    "as_volume",
    "check",
    "download",
    "evaluate",
    "export",
    "load_bundle",
    "plan",
    "review",
    "segment",
    "train",
]


def test_the_public_names_are_exactly_these() -> None:
    assert sorted(medseg.__all__) == sorted(PUBLIC)
    assert dir(medseg) == sorted(medseg.__all__)


@pytest.mark.parametrize("name", medseg.__all__)
def test_each_public_name_is_there_and_documented(name: str) -> None:
    found = getattr(medseg, name)
    assert found.__name__ == name
    assert found.__doc__
    assert found.__module__.startswith("medseg.")


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'spam'"):
        medseg.spam  # noqa: B018


def test_every_error_is_of_one_family() -> None:
    errors = [
        getattr(medseg, name)
        for name in medseg.__all__
        if name.endswith("Error")
    ]
    assert all(issubclass(error, medseg.MedsegError) for error in errors)
    assert issubclass(medseg.GeometryError, medseg.ScanError)


@pytest.mark.parametrize(
    "code",
    [
        "import medseg, medseg.cli",
        "import medseg.bundle.spec, medseg.errors, medseg.labels",
        "from medseg import load_bundle, Volume, MedsegError, LabelSet",
    ],
)
def test_light_imports_stay_light(code: str) -> None:
    heavy = ("torch", "monai", "ignite", "mlflow", "SimpleITK", "matplotlib")
    check = f"import sys; {code}; sys.exit(','.join(set({heavy}) & sys.modules.keys()) or 0)"
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
