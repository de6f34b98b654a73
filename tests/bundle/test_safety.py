"""Opening a bundle from a stranger runs none of his code.

Each trap would make a file, the canary. First it is shown that the trap works where code does
run; then that nothing medseg does with a bundle makes it.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import json
import os
import pickle
import shutil
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.networks import nets
from support.bundles import (
    Trap,
    content,
    made_spec,
    monai_parts,
    pickled_trap,
    trained_bundle,
    write_json,
)
from torch import nn

from medseg import (
    BundleError,
    CheckpointError,
    MedsegError,
    Segmenter,
    check,
    segment,
    train,
)
from medseg.bundle.bundle import load_bundle, parse_spec
from medseg.bundle.spec_files import write_bundle
from medseg.bundle.weights import load_weights
from medseg.interop.monai_bundle import make_inert, write_monai_bundle
from medseg.networks import registry
from medseg.networks.building import build_network, try_network
from medseg.networks.definition import define_network
from medseg.testing import make_phantom, write_dataset
from medseg.training.run_folder import RunFolder
from medseg.training.runs import TrainingRun, begin_run


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def code_texts(canary: Path) -> list[str]:
    """Return texts that MONAI's parser runs, imports, looks up or opens."""
    call = f"__import__('pathlib').Path({str(canary)!r}).touch()"
    evil = canary.parent / "evil.json"
    evil.write_text(json.dumps({"x": f"${call}"}))
    return [
        f"${call}",
        f"$import os; {call}",
        f" \t\n$ {call}",
        f"$@run or {call}",
        f"%{evil}::x",
        f"%{evil}#x",
        f"$%@${call}",
        "@run",
        "@run::1",
        "%run",
        "text @network and %#run",
        "%" + "#" * 40,
        "100%:::::::",
        "C# and F# at a@b.org",
        '{"_target_": "os.system", "command": "true"}',
    ]


def test_the_traps_work_where_code_runs(canary: Path) -> None:
    first, *_ = code_texts(canary)
    ConfigParser({"x": first}).get_parsed_content("x")
    assert canary.exists()
    canary.unlink()
    macro = next(text for text in code_texts(canary) if text.startswith("%/"))
    ConfigParser({"x": macro}).get_parsed_content("x")
    assert canary.exists()
    canary.unlink()
    pickle.loads(pickled_trap(canary))  # noqa: S301
    assert canary.exists()
    canary.unlink()
    torch.save({"trap": Trap(canary)}, canary.parent / "trap.pt")
    torch.load(canary.parent / "trap.pt", weights_only=False)
    assert canary.exists()


def hostile_content(texts: list[str]) -> dict[str, Any]:
    """Return a bundle with code in every field that takes free text."""
    one_line = [" ".join(text.split()) for text in texts]
    everything = "\n".join(texts)
    made = content(
        description=everything,
        intended_use=texts[0],
        authors=texts[1],
        licence=texts[2],
        references=texts,
        channels=[{"name": one_line[0][:200], "modality": one_line[4][:200]}],
        labels=[
            {"index": number, "name": f"{text}"[:190] + str(number)}
            for number, text in enumerate(one_line, start=1)
        ],
        data={
            "root": one_line[0][:200],
            "group_by": one_line[1][:200],
            "group_pattern": "$(@run)",
        },
        preprocessing={
            "spacing_mm": [4, 4, 4],
            "crop_above": -500,
            "intensity": "zscore",
        },
    )
    made["$schema"] = texts[0][:500]
    made["inference"] = {"keep_largest": [made["labels"][0]["name"]]}
    return made


def parse_everything(bundle: Path, scans: Path, out: Path) -> None:
    """Let stock MONAI instantiate and evaluate every item of every config."""
    for name in ("inference", "train"):
        parser = ConfigParser()
        parser.read_config(bundle / "configs" / f"{name}.json")
        parser.read_meta(bundle / "configs" / "metadata.json")
        parser.update({"bundle_root": str(bundle), "dataset_dir": str(scans)})
        if name == "inference":
            parser.update({"output_dir": str(out)})
        else:
            parser.update({"epochs": 1})
        parser.parse()
        for item in list(parser.ref_resolver.items):
            parser.get_parsed_content(item)


def test_the_configs_written_from_a_hostile_bundle_run_none_of_its_text(
    canary: Path, tmp_path: Path
) -> None:
    spec = parse_spec(hostile_content(code_texts(canary)))
    bundle = trained_bundle(tmp_path / "bundle", spec)
    data = write_dataset(tmp_path / "data", 2)
    parse_everything(bundle, data, tmp_path / "out")
    scans = tmp_path / "scans"
    shutil.copytree(data / "imagesTr", scans)
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "inference.json")
    parser.read_meta(bundle / "configs" / "metadata.json")
    parser.update({"bundle_root": str(bundle), "dataset_dir": str(scans)})
    parser.update({"output_dir": str(tmp_path / "out")})
    for position in range(len(parser["run"])):
        parser.get_parsed_content(f"run::{position}")
    assert len(list((tmp_path / "out").glob("*_seg.nii.gz"))) == 2
    assert not canary.exists()


@pytest.mark.parametrize("position", range(15))
def test_each_hostile_text_becomes_plain_text_in_a_config(
    position: int, canary: Path
) -> None:
    text = code_texts(canary)[position]
    for shown in (
        make_inert(text),
        make_inert(f"a {text}"),
        make_inert(f"{text}{text}"),
    ):
        parser = ConfigParser({"deep": [{"a": {"b": shown}}], "run": "wrong"})
        parsed = parser.get_parsed_content("deep::0::a::b")
        assert isinstance(parsed, str)
        # "#" is MONAI's older spelling of "::"; nothing else may change.
        assert parsed == shown.replace("#", "::")
    assert not canary.exists()


def test_a_config_holds_no_expression_but_those_of_a_harmless_bundle(
    canary: Path, tmp_path: Path
) -> None:
    hostile = hostile_content(code_texts(canary))
    harmless = hostile_content([f"text {n}" for n in range(15)])
    found = []
    for number, made in enumerate((hostile, harmless)):
        spec = parse_spec(made)
        write_monai_bundle(tmp_path / str(number), spec, monai_parts(spec), {})
        found.append([live_texts(tmp_path / str(number) / "configs")])
    assert found[0] == found[1]


def live_texts(configs: Path) -> list[str]:
    """Return every text of the configs that MONAI would do something with."""
    live: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            live.extend(value[key] for key in ("_target_",) if key in value)
            live.extend(
                key
                for key in value
                if key.startswith("_") and key != "_target_"
            )
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)
        elif isinstance(value, str) and value[:1] in ("$", "%", "@"):
            live.append(value)

    for file in sorted(configs.iterdir()):
        walk(json.loads(file.read_text()))
    return live


@pytest.mark.parametrize(
    "plant",
    [
        lambda code: code,
        lambda code: {"deep": [{"deeper": [1, {"deepest": code}]}]},
        lambda code: {"_target_": "os.system", "command": "true"},
        lambda code: [{"_mode_": "debug"}],
        lambda code: {"a": {"__class__": "x"}},
        lambda code: {"a::b": 1},
        lambda code: {code: 1},
    ],
)
@pytest.mark.parametrize("position", range(10))
def test_network_arguments_hold_no_code_at_any_depth(
    plant: Any, position: int, canary: Path
) -> None:
    made = content()
    value = plant(code_texts(canary)[position])
    made["network"] = {"kind": "UNet", "args": {"norm": value}}
    with pytest.raises(BundleError) as caught:
        parse_spec(made)
    assert [fault.where for fault in caught.value.faults] == ["network.args"]
    assert not canary.exists()


# --- files of the bundle ---


def plant_everywhere(bundle: Path, canary: Path) -> None:
    """Put code wherever a bundle's folder could hold some."""
    call = f"$__import__('pathlib').Path({str(canary)!r}).touch()"
    script = f"from pathlib import Path\nPath({str(canary)!r}).touch()\n"
    for name in (
        "inference",
        "train",
        "metadata",
        "multi_gpu_train",
        "evaluate",
    ):
        write_json(
            bundle / "configs",
            {
                "imports": ["$import os", f"$import evil_{name}"],
                "network_def": {
                    "_target_": "os.system",
                    "command": f"touch {canary}",
                },
                "initialize": [call],
                "run": [call],
            },
            f"{name}.json",
        )
    (bundle / "configs" / "logging.conf").write_text(
        f"[loggers]\nkeys={call}\n"
    )
    for place in (
        "scripts/__init__.py",
        "__init__.py",
        "sitecustomize.py",
        "medseg.py",
        "conf.py",
    ):
        (bundle / place).parent.mkdir(exist_ok=True)
        (bundle / place).write_text(script)
    (bundle / "docs").mkdir(exist_ok=True)
    (bundle / "docs" / "README.md").write_text(f"<script>{call}</script>")
    (bundle / "docs" / "data_license.txt").write_bytes(pickled_trap(canary))
    (bundle / "models").mkdir(exist_ok=True)
    for name in ("model.ts", "model_key_metric=1.pt", "critic.pt"):
        (bundle / "models" / name).write_bytes(pickled_trap(canary))
    (bundle / "quality.json").write_text(call)


def test_code_beside_the_weights_is_never_run(
    canary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = parse_spec(hostile_content(code_texts(canary)))
    bundle = trained_bundle(tmp_path / "bundle", spec)
    plant_everywhere(bundle, canary)
    data = write_dataset(tmp_path / "data", 1)
    # Where someone starts a program is where Python, too, would look for modules.
    monkeypatch.chdir(bundle)
    assert load_bundle(bundle).is_trained
    assert not check(bundle).faults
    volume, _ = make_phantom(0)
    assert (
        Segmenter(bundle, device="cpu").segment(volume).labels.shape
        == volume.shape
    )
    assert not segment(
        bundle, data / "imagesTr", tmp_path / "out", device="cpu"
    ).failed
    assert not canary.exists()


@pytest.mark.parametrize("wrapped", [True, False])
def test_pickled_weights_are_refused_unopened(
    wrapped: bool, canary: Path, tmp_path: Path
) -> None:
    bundle = trained_bundle(tmp_path / "bundle", made_spec())
    weights = bundle / "models" / "model.pt"
    if wrapped:
        torch.save(
            {"model": {"weight": torch.zeros(1)}, "trap": Trap(canary)}, weights
        )
    else:
        weights.write_bytes(pickled_trap(canary))
    scans = write_dataset(tmp_path / "data", 1) / "imagesTr"
    with pytest.raises(CheckpointError, match="could run code"):
        Segmenter(bundle, device="cpu")
    with pytest.raises(CheckpointError, match="could run code"):
        segment(bundle, scans, tmp_path / "out", device="cpu")
    faults = check(bundle).faults
    assert [fault.where for fault in faults] == ["models/model.pt"]
    assert "could run code" in faults[0].what
    assert not canary.exists()


def test_a_pickled_checkpoint_is_refused_when_a_training_goes_on(
    canary: Path, tmp_path: Path
) -> None:
    data = write_dataset(tmp_path / "data", 4)
    spec = made_spec(preprocessing={"spacing_mm": [8, 8, 8]}, data={"folds": 2})
    folder = RunFolder(tmp_path / "run")
    begin_run(TrainingRun(folder, spec, data, 0, "0" * 32))
    folder.checkpoint.parent.mkdir()
    folder.checkpoint.write_bytes(pickled_trap(canary))
    plant_everywhere(folder.path, canary)
    with pytest.raises(CheckpointError, match="could run code"):
        train(
            folder.path, data=data, out=folder.path, resume=True, device="cpu"
        )
    assert not canary.exists()


def test_odd_files_in_place_of_a_run_are_refused_and_never_waited_for(
    tmp_path: Path,
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    write_bundle(made_spec(), folder.bundle)
    for make in (
        lambda: os.mkfifo(folder.info),
        lambda: folder.info.symlink_to("/dev/zero"),
        lambda: folder.info.mkdir(),
        lambda: folder.info.write_text("[1]"),
        lambda: folder.info.write_text(
            '{"data": 1, "fold": "x", "run_id": []}'
        ),
        lambda: folder.info.write_text("{}"),
        lambda: folder.info.write_bytes(b"\xff\xfe"),
        lambda: folder.info.write_text("[" * 100_000),
    ):
        make()
        with pytest.raises(CheckpointError):
            train(folder.bundle, out=folder.path, resume=True, device="cpu")
        if folder.info.is_dir():
            folder.info.rmdir()
        else:
            folder.info.unlink()


def test_odd_files_in_place_of_weights_are_no_weights(tmp_path: Path) -> None:
    bundle = trained_bundle(tmp_path / "bundle", made_spec())
    weights = bundle / "models" / "model.pt"
    for make in (
        lambda: os.mkfifo(weights),
        lambda: weights.symlink_to("/dev/zero"),
        lambda: weights.mkdir(),
    ):
        weights.unlink()
        make()
        with pytest.raises(CheckpointError):
            Segmenter(bundle, device="cpu")
        with pytest.raises(CheckpointError):
            load_weights(weights)
        if weights.is_dir():
            weights.rmdir()
            weights.touch()


# --- networks ---


@pytest.mark.parametrize(
    "kind", ["Module", "Sequential", "Os", "ConfigParser", "Any", "Optional"]
)
def test_only_networks_of_monai_are_built(kind: str) -> None:
    made = content()
    made["network"] = {"kind": kind}
    with pytest.raises(BundleError, match="is not a network"):
        try_network(parse_spec(made))


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        ("FlexibleUNet", {"backbone": "efficientnet-b0", "pretrained": True}),
        ("DenseNet121", {"pretrained": True}),
        ("DenseNet169", {"pretrained": "weights.pt"}),
        (
            "EfficientNetBN",
            {"model_name": "efficientnet-b0", "pretrained": True},
        ),
        ("SegResNet", {"checkpoint": "a.pt"}),
        ("SwinUNETR", {"weights": "http://x"}),
    ],
)
def test_arguments_that_fetch_are_refused(
    kind: str, args: dict[str, Any]
) -> None:
    made = content()
    made["network"] = {"kind": kind, "args": args}
    with pytest.raises(BundleError) as caught:
        build_network(parse_spec(made))
    assert "open files or addresses" in caught.value.faults[0].what


def test_networks_that_fetch_by_default_are_told_not_to() -> None:
    made = content(training={"patch": [16, 16]})
    made["network"] = {
        "kind": "EfficientNetBN",
        "dims": 2,
        "args": {"model_name": "efficientnet-b0"},
    }
    assert define_network(parse_spec(made))["pretrained"] is False


FETCHERS = {
    "download_url",
    "load_url",
    "load",
    "cached_file",
    "from_pretrained",
    "open",
}
"""Calls by which a network's code opens files or addresses."""


def fetches(item: type[nn.Module]) -> bool:
    """Tell whether a class, by its module's code, could open files or addresses when built."""
    module = importlib.import_module(item.__module__)
    tree = ast.parse(textwrap.dedent(inspect.getsource(module)))
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    names = {
        func.attr
        if isinstance(func, ast.Attribute)
        else getattr(func, "id", "")
        for func in calls
    }
    return bool(names & FETCHERS)


def test_every_network_of_monai_whose_code_fetches_is_kept_from_it() -> None:
    """A newer MONAI that brings a new way to fetch fails here until someone has looked at it."""
    allowed = {
        item for item in vars(nets).values() if registry.maps_channels(item)
    }
    suspicious = {item for item in allowed if fetches(item)}
    known_switch = {
        item
        for item in suspicious
        if any(
            name.startswith("pretrained")
            for name in registry.list_parameters(item)
        )
    }
    # Each was read: their modules fetch in other classes or in methods that building never calls.
    harmless = {
        "AHNet",
        "AutoencoderKL",
        "DenseNet",
        "DiffusionModelUNet",
        "EfficientNet",
        "ResNet",
        "SENet",
        "SwinUNETR",
    }
    assert {item.__name__ for item in suspicious - known_switch} <= harmless


def test_building_any_allowed_network_opens_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every class is built, as far as its arguments allow, while opening anything is refused."""

    opened: list[Any] = []

    def refuse(*args: Any, **kwargs: Any) -> Any:
        opened.append(args)
        raise RuntimeError("refused")

    # A real fetch would need the network, which tests do without.
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    monkeypatch.setattr("torch.load", refuse)
    monkeypatch.setattr("socket.create_connection", refuse)
    names = {
        item.__name__
        for item in vars(nets).values()
        if registry.maps_channels(item)
    }
    assert {"UNet", "SegResNet", "SwinUNETR", "FlexibleUNet"} <= names
    assert not {"Transchex", "MILModel", "HoVerNet"} & names
    guesses = {
        "model_name": "efficientnet-b0",
        "backbone": "efficientnet-b0",
        "channels": [4, 8],
        "strides": [2],
        "img_size": [32, 32],
        "patch_size": 16,
    }
    made = content(training={"patch": [32, 32]})
    for name in sorted(names):
        taken = registry.list_parameters(getattr(nets, name))
        arguments = {
            key: value
            for key, value in guesses.items()
            if key in taken and taken[key].default is inspect.Parameter.empty
        }
        made["network"] = {"kind": name, "dims": 2, "args": arguments}
        with contextlib.suppress(MedsegError), torch.device("meta"):
            build_network(parse_spec(made))
        assert not opened, name


def test_no_older_torch_is_allowed_than_reads_weights_safely() -> None:
    """Before 2.10 a crafted file runs code in spite of ``weights_only`` (CVE-2026-24747)."""
    project = Path(__file__).parents[2] / "pyproject.toml"
    packages = tomllib.loads(project.read_text())["project"]["dependencies"]
    (floor,) = [text for text in packages if text.startswith("torch>=")]
    version = floor.removeprefix("torch>=").split(",")[0].split(".")
    assert tuple(map(int, version)) >= (2, 10)
