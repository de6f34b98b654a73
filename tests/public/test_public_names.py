"""The public face of medseg."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

import medseg

PUBLIC = [
    "Agreement",
    "AgreementSpec",
    "Batch",
    "BatchReport",
    "Bundle",
    "BundleError",
    "BusyError",
    "BundleSpec",
    "Calibration",
    "CaseFingerprint",
    "CaseMeasures",
    "CaseScores",
    "ChannelStatistics",
    "CheckReport",
    "CheckpointError",
    "Correction",
    "DatasetError",
    "Difference",
    "DownloadError",
    "Entry",
    "Evaluation",
    "Export",
    "Fault",
    "Fingerprint",
    "GeometryError",
    "Interval",
    "JudgedMask",
    "Label",
    "LabelMeasures",
    "LabelQuality",
    "LabelScores",
    "LabelSet",
    "LabelStatistics",
    "LesionCounts",
    "Listener",
    "LogFile",
    "MaskQuality",
    "MaskReview",
    "MedsegError",
    "MissingExtraError",
    "OutputError",
    "Padding",
    "Plan",
    "Prediction",
    "Quality",
    "QualityEntry",
    "Region",
    "ScanError",
    "Segmentation",
    "Segmenter",
    "Shard",
    "ShownQuality",
    "Statistic",
    "TrainingCost",
    "TrainingError",
    "Volume",
    "VolumeLike",
    "as_volume",
    "calibrate",
    "check",
    "download",
    "evaluate",
    "export",
    "load_bundle",
    "plan",
    "report",
    "review",
    "segment",
    "train",
]


def test_the_public_names_are_exactly_these() -> None:
    assert sorted(medseg.__all__) == sorted(PUBLIC)
    assert dir(medseg) == sorted(medseg.__all__)


ALIASES = {"VolumeLike"}
"""Public types that are no classes."""


@pytest.mark.parametrize("name", sorted({*medseg.__all__} - ALIASES))
def test_each_public_name_is_there_and_documented(name: str) -> None:
    found = getattr(medseg, name)
    assert found.__name__ == name
    assert found.__doc__
    assert found.__module__.startswith("medseg.")


def iterate_classes(annotation: Any) -> Iterator[type]:
    """Give medseg's classes in a type, however deep."""
    if isinstance(annotation, type) and annotation.__module__.startswith(
        "medseg"
    ):
        yield annotation
    for part in get_args(annotation):
        yield from iterate_classes(part)


def iterate_callables(name: str) -> Iterator[Any]:
    """Give a public function, or what is public of a class."""
    found = getattr(medseg, name)
    yield found
    if not isinstance(found, type) or name in BUILT_BY_MEDSEG:
        return
    yield found.__init__
    for attribute, member in vars(found).items():
        if attribute.startswith("_"):
            continue
        if isinstance(member, property):
            yield member.fget
        elif isinstance(member, classmethod):
            yield member.__func__
        elif inspect.isfunction(member):
            yield member


BUILT_BY_MEDSEG = {"BundleSpec", "Prediction"}
"""``bundle.json`` has a reference of its own; nobody makes a prediction but ``Segmenter``."""


@pytest.mark.parametrize("name", sorted({*medseg.__all__} - ALIASES))
def test_what_a_public_signature_names_is_public(name: str) -> None:
    if name == "BundleSpec":
        return
    private = set()
    for public in iterate_callables(name):
        for annotation in get_type_hints(public).values():
            for found in iterate_classes(annotation):
                if getattr(medseg, found.__name__, None) is not found:
                    private.add(found.__qualname__)
    assert private == set()


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


HEAVY = [
    *("monai", "ignite", "mlflow", "pandas", "matplotlib", "skimage"),
    *("sklearn", "highdicom", "SimpleITK", "openvino", "onnx", "jinja2"),
    *("transformers", "torch._dynamo"),
    *("scipy.ndimage", "scipy.stats", "scipy.signal"),
]
"""What ``Segmenter`` needs, if at all, only when it computes; importing it all takes seconds."""

READERS = [
    *("pydicom", "nibabel", "PIL", "tifffile", "requests", "gdcm"),
    *("medseg.io.registry", "medseg.layouts", "medseg.datasets.cases"),
    "medseg.inference.result_files",
]
"""What it needs when it reads the first scan, or writes the first result."""


@pytest.mark.parametrize(
    ("code", "later"),
    [
        ("from medseg import Segmenter", HEAVY + READERS),
        ("from medseg import Segmenter, as_volume", HEAVY),
    ],
)
def test_a_segmenter_is_imported_without_what_it_needs_later(
    code: str, later: list[str]
) -> None:
    check = f"import sys; {code}; sys.exit(','.join(set({later}) & sys.modules.keys()) or 0)"
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_type_checkers_and_the_reference_see_every_public_name() -> None:
    tree = ast.parse(Path(medseg.__file__).read_text("utf-8"))
    seen = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module != "typing":
            seen.update(alias.name for alias in node.names)
    assert set(medseg.__all__) <= seen
