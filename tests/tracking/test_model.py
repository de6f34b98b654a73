"""What a logged model states that it needs."""

from __future__ import annotations

from importlib import metadata

from medseg.tracking.model import _requirements


def test_requirements_are_published_versions_of_what_is_always_needed() -> None:
    stated = dict(line.split("==") for line in _requirements())
    # A build of its own, such as 2.13.0+cpu or 0.2.0.dev3+g1a2b3c4, is not on the package index.
    for package in ("medseg", "torch"):
        assert metadata.version(package).split("+")[0] == stated[package]
    assert not any("+" in version for version in stated.values())
    assert "onnx" not in stated, "an extra"
