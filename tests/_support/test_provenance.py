"""Provenance says what computed a result, and nothing about whom."""

from __future__ import annotations

from importlib import metadata

import pytest
import torch

from medseg._support.provenance import (
    PACKAGES,
    collect_provenance,
    get_device_name,
)


def test_versions_device_and_code_are_stated() -> None:
    stated = collect_provenance(torch.device("cpu"))
    for package in PACKAGES:
        assert stated[f"version.{package}"] == metadata.version(package)
    assert stated["device"].startswith("cpu (")
    assert int(stated["threads"]) == torch.get_num_threads()
    assert all(isinstance(value, str) for value in stated.values())


def test_provenance_holds_no_path_and_no_host() -> None:
    import platform
    from pathlib import Path

    text = " ".join(collect_provenance(torch.device("cpu")).values())
    assert str(Path.home()) not in text
    assert str(Path(__file__).parents[2]) not in text
    assert platform.node() not in text


@pytest.mark.gpu
def test_a_gpu_is_called_by_its_model() -> None:
    assert get_device_name(
        torch.device("cuda", 0)
    ) == torch.cuda.get_device_name(0)
