"""What a logged model states that it needs."""

from __future__ import annotations

from importlib import metadata

from medseg.tracking.model import _requirements


def test_requirements_are_published_versions_of_what_is_always_needed() -> None:
    stated = dict(line.split("==") for line in _requirements())
    assert stated["medseg"] == metadata.version("medseg")
    assert metadata.version("torch").startswith(stated["torch"])
    assert not any("+" in version for version in stated.values())
    assert "onnx" not in stated, "an extra"
