"""OpenVINO computes what PyTorch does, and only from the weights a bundle has now."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.bundles import made_spec, trained_bundle

from medseg import (
    BundleError,
    CheckpointError,
    MedsegError,
    MissingExtraError,
    Segmenter,
    export,
)
from medseg.bundle.bundle import load_bundle
from medseg.bundle.reading import read_agreement
from medseg.inference.backends import openvino
from medseg.inference.backends.exported import AGREEMENT, OPENVINO
from medseg.inference.backends.openvino import (
    OpenVinoBackend,
    OpenVinoMember,
    convert,
)
from medseg.inference.backends.pytorch import TorchMember
from medseg.inference.bundle_predictor import Ensemble
from medseg.networks.loading import load_network
from medseg.testing import make_phantom
from medseg.volume import Volume

pytest.importorskip("openvino", reason="needs the extra [openvino]")

CPU = torch.device("cpu")
NETWORKS: dict[str, dict[str, Any]] = {
    "instance": {},
    "batch": {"network": {"norm": "batch"}},
    "slices": {"network": {"dims": 2}, "training": {"patch": [16, 24]}},
    "channels": {
        "channels": [{"name": "a"}, {"name": "b"}],
        "network": {"residual": True},
    },
    "clicks": {"training": {"clicks": {}}},
}


def scan(seed: int = 1) -> Volume:
    return make_phantom(seed, (28, 26, 24), 8.0)[0]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose networks were exported into it. Tests that change it take a copy."""
    bundle = trained_bundle(
        tmp_path_factory.mktemp("exported") / "bundle", made_spec()
    )
    assert export(bundle, to="openvino").folder == bundle / OPENVINO
    return bundle


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "copy"))


@pytest.mark.parametrize("kind", NETWORKS)
def test_both_backends_return_the_same_scores(
    kind: str, tmp_path: Path
) -> None:
    spec = made_spec(**NETWORKS[kind])
    bundle = load_bundle(trained_bundle(tmp_path, spec))
    network = load_network(bundle, bundle.weights)
    windows = torch.randn(2, spec.input_channels, *spec.training.patch)
    member = OpenVinoMember(convert(network, spec, 3), torch.float32)
    with torch.inference_mode():
        wanted = TorchMember(network, spec.network.dims, CPU, torch.float32)(
            windows
        )
        assert torch.allclose(member(windows), wanted, atol=1e-3)
        # Scores are kept while the next window's are made, and averaged in place.
        both = Ensemble([member], spec.network.dims, (0, 1))
        flat = windows.unsqueeze(-1) if spec.network.dims == 2 else windows
        torch_both = Ensemble([TorchMember(network, spec.network.dims, CPU, torch.float32)],
                               spec.network.dims, (0, 1))  # fmt: skip
        assert torch.allclose(both(flat), torch_both(flat), atol=1e-3)


def test_float32_is_float32_on_every_processor(exported: Path) -> None:
    model = openvino.read_model(exported / OPENVINO / "model.xml")
    member = OpenVinoMember(model, torch.float32)
    hint = member._compiled.get_property("INFERENCE_PRECISION_HINT")
    assert "float32" in repr(hint)


def test_bf16_is_refused_where_the_processor_has_none(exported: Path) -> None:
    able = (
        openvino.require()
        .Core()
        .get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    )
    if "BF16" in able:
        found = Segmenter(exported, "cpu", backend="openvino", precision="bf16")
        assert found.precision == torch.bfloat16
    else:
        with pytest.raises(
            MedsegError, match="choose precision fp32, or backend torch"
        ):
            Segmenter(exported, "cpu", backend="openvino", precision="bf16")


def test_several_threads_may_share_one_segmenter(exported: Path) -> None:
    segmenter = Segmenter(exported, "cpu", backend="openvino")
    volumes = [scan(seed) for seed in range(4)]
    alone = [segmenter.segment(volume).labels for volume in volumes]
    with ThreadPoolExecutor(4) as threads:
        together = [
            found.labels for found in threads.map(segmenter.segment, volumes)
        ]
    assert all(
        np.array_equal(a, b) for a, b in zip(alone, together, strict=True)
    )


def test_auto_takes_an_export_that_agrees(exported: Path) -> None:
    found = read_agreement(exported / OPENVINO / AGREEMENT)
    assert found.made_up
    assert found.labelled > 1000
    assert found.is_close
    assert Segmenter(exported, "cpu").backend == "openvino"
    assert Segmenter(exported, "cpu", backend="torch").backend == "torch"
    assert Segmenter(exported, "cpu", precision="bf16").backend == "torch"


def change(agreement: Path, **values: Any) -> None:
    content = json.loads(agreement.read_text())
    agreement.write_text(json.dumps(content | values))


@pytest.mark.parametrize(("labelled", "differ"), [(0, 0), (1000, 2)])
def test_auto_takes_no_export_that_was_not_shown_to_agree(
    copy: Path, labelled: int, differ: int
) -> None:
    change(copy / OPENVINO / AGREEMENT, labelled=labelled, differ=differ)
    assert Segmenter(copy, "cpu").backend == "torch"
    assert Segmenter(copy, "cpu", backend="openvino").backend == "openvino"


def other_weights(bundle: Path) -> None:
    state = torch.load(bundle / "models" / "model.pt", weights_only=True)
    torch.save(
        {name: -value for name, value in state.items()},
        bundle / "models" / "model.pt",
    )


def other_window(bundle: Path) -> None:
    content = json.loads((bundle / "bundle.json").read_text())
    content["training"]["patch"] = [32, 16, 16]
    (bundle / "bundle.json").write_text(json.dumps(content))


def other_file(bundle: Path) -> None:
    file = bundle / OPENVINO / "model.bin"
    content = file.read_bytes()
    file.write_bytes(content[:-4] + bytes(byte ^ 0xFF for byte in content[-4:]))


def no_file(bundle: Path) -> None:
    (bundle / OPENVINO / "model.bin").unlink()


def no_record(bundle: Path) -> None:
    (bundle / OPENVINO / AGREEMENT).write_text("{}")


@pytest.mark.parametrize(
    "spoil", [other_weights, other_window, other_file, no_file, no_record]
)
def test_a_stale_export_is_never_used(
    copy: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    spoil(copy)
    with caplog.at_level(logging.WARNING):
        assert Segmenter(copy, "cpu").backend == "torch"
    assert "Export again: medseg export BUNDLE --to openvino" in caplog.text
    # Asked for by name it is converted from the weights that are there now.
    asked = Segmenter(copy, "cpu", backend="openvino").segment(scan()).labels
    wanted = Segmenter(copy, "cpu", backend="torch").segment(scan()).labels
    assert (asked != wanted).mean() < 1e-3


def test_a_record_cannot_lead_out_of_the_bundle(copy: Path) -> None:
    change(
        copy / OPENVINO / AGREEMENT,
        files={"../../x.xml": "0" * 64, "b.bin": "0" * 64},
    )
    with pytest.raises(BundleError, match="files"):
        read_agreement(copy / OPENVINO / AGREEMENT)


def test_a_damaged_model_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_text("<net")
    with pytest.raises(CheckpointError, match="export the bundle again"):
        openvino.read_model(tmp_path / "model.xml")


def test_a_wrong_backend_is_said(exported: Path) -> None:
    with pytest.raises(
        MedsegError, match="choose one of auto, torch, openvino"
    ):
        Segmenter(exported, "cpu", backend="abacus")
    bundle, gpu = load_bundle(exported), torch.device("cuda")
    with pytest.raises(MedsegError, match="computes on a CPU"):
        OpenVinoBackend().load(bundle, [], gpu, torch.float32)


def test_a_missing_extra_is_named_and_auto_goes_without(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(openvino, "is_installed", lambda: False)
    with pytest.raises(
        MissingExtraError, match=r"pip install 'medseg\[openvino\]'"
    ):
        Segmenter(exported, "cpu", backend="openvino")
    with pytest.raises(
        MissingExtraError, match=r"pip install 'medseg\[openvino\]'"
    ):
        export(exported, to="openvino")
    assert Segmenter(exported, "cpu").backend == "torch"


def test_the_version_of_a_build_of_another_name_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = pytest.importorskip("openvino").__version__

    def find_none(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", find_none)
    assert openvino.get_version() == own


def test_nothing_is_reported_to_the_makers_of_openvino(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    telemetry = pytest.importorskip("openvino_telemetry")
    sent: list[Any] = []
    monkeypatch.setattr(
        telemetry.Telemetry,
        "send_event",
        lambda *given, **_: sent.append(given),
    )
    bundle = load_bundle(trained_bundle(tmp_path, made_spec()))
    convert(load_network(bundle, bundle.weights), bundle.spec, 3)
    assert sent == []


IMPORTS = """
import sys
from medseg.inference.backends import openvino
openvino.require()
from openvino.tools.ovc import telemetry_utils
assert "openvino_telemetry" not in sys.modules
print(telemetry_utils.tm.__name__)
"""


def test_not_even_the_import_is_reported_to_the_makers_of_openvino(
    tmp_path: Path,
) -> None:
    pytest.importorskip("openvino_telemetry")
    # Where it reports, it keeps a number of the user's in the home folder.
    run = subprocess.run(
        [sys.executable, "-c", IMPORTS],
        env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "openvino.tools.ovc.telemetry_stub"
    assert not (tmp_path / "intel").exists()
