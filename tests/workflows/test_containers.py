"""A container does what the schedulers of hospitals expect of a module."""

from __future__ import annotations

import fnmatch
import inspect
import json
import re
import signal
import tomllib
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import dicom as made
from support.killed_batches import write_scans

import medseg

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "workflows/containers"
DOCKERFILE = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
IGNORED = (FOLDER / "Dockerfile.dockerignore").read_text(encoding="utf-8")
APPTAINER = (FOLDER / "medseg.def").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def load_module() -> Any:
    spec = spec_from_file_location("medseg_module", FOLDER / "module.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MODULE = load_module()


def run(folder: Path, bundle: Path) -> int:
    variables = {
        "MERCURE_IN_DIR": str(folder / "in"),
        "MERCURE_OUT_DIR": str(folder / "out"),
        "MEDSEG_MODEL": str(bundle),
    }
    return int(MODULE.main([], variables))


def write_task(folder: Path, settings: dict[str, Any]) -> None:
    task = {"id": "1", "process": {"settings": settings}}
    (folder / "in" / "task.json").write_text(json.dumps(task))


def test_scans_in_are_results_out(
    tmp_path: Path, untrained_bundle: Callable[..., Path]
) -> None:
    write_scans(tmp_path / "in", 2)
    (tmp_path / "in" / "bad.nii.gz").write_bytes(b"no image")
    assert run(tmp_path, untrained_bundle()) == 1
    result = json.loads((tmp_path / "out/result.json").read_text())
    states = {scan["scan"]: scan["state"] for scan in result["scans"]}
    assert states == {"scan_00": "done", "scan_01": "done", "bad": "failed"}
    assert (tmp_path / "out/scan_00.nii.gz").is_file()
    note = result["__mercure_notification"]
    assert note["requested"]
    assert "2 of 3 scans segmented" in note["text"]
    assert "failed: bad" in note["text"]
    # Nothing was learned about how good its results are.
    good = [scan for scan in result["scans"] if scan["state"] == "done"]
    assert {scan["expected_dice"] for scan in good} == {None}
    assert {scan["quality"] for scan in good} == {"not calibrated"}
    assert "not known" in note["text"]


def test_a_task_of_mercure_gets_dicom_back_and_says_what_is_wanted(
    tmp_path: Path, untrained_bundle: Callable[..., Path]
) -> None:
    series = made.series(made.voxels((24, 20, 6)), Modality="CT")
    made.save(tmp_path / "in", series)
    write_task(tmp_path, {"labels": "liver", "report": False, "threads": 1})
    assert run(tmp_path, untrained_bundle()) == 0
    (scan,) = json.loads((tmp_path / "out/result.json").read_text())["scans"]
    assert list(scan["volumes_ml"]) == ["liver"]
    (file,) = scan["files"]
    assert file.endswith(".seg.dcm")
    assert (tmp_path / "out" / file).is_file()
    assert not (tmp_path / "out/report.html").exists()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"process": {"settings": {"label": ["liver"]}}}', "not known"),
        ('{"process": {"settings": {"report": "no"}}}', "true or false"),
        ('{"process": {"settings": {"threads": true}}}', "a whole number"),
        ('{"process": {"settings": {"labels": [1]}}}', "a list of texts"),
        ('{"process": {"settings": {"device": 1}}}', "is a text"),
        ('{"process": [{}, {}]}', "cannot be understood"),
        ("[]", "cannot be understood"),
        ('{"process": {"settings": [[1, 2]]}}', "cannot be understood"),
        pytest.param("[" * 100_000, "cannot be understood", id="deep"),
        ("?", "cannot be understood"),
    ],
)
def test_a_task_that_cannot_be_understood_is_refused(
    tmp_path: Path, text: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "task.json").write_text(text)
    # What an earlier call has left there is of another task.
    other = tmp_path / "other.json"
    other.write_text("{}")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "result.json").symlink_to(other)
    assert run(tmp_path, tmp_path / "bundle") == 2
    assert why in capsys.readouterr().err
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert result["scans"] == []
    assert "the task" in result["error"]
    assert str(tmp_path) not in json.dumps(result)
    assert result["__mercure_notification"]["requested"]
    assert other.read_text() == "{}"


def test_a_task_that_is_no_file_is_not_passed_over(tmp_path: Path) -> None:
    task = tmp_path / "task.json"
    task.symlink_to(tmp_path / "gone")
    with pytest.raises(medseg.MedsegError, match="cannot be understood"):
        MODULE.read_settings(tmp_path)
    task.unlink()
    task.write_bytes(b"\xff\xfe{\x00}\x00")
    with pytest.raises(medseg.MedsegError, match="not UTF-8"):
        MODULE.read_settings(tmp_path)
    # Editors of Windows put a mark before UTF-8.
    task.write_text('{"process": {"settings": {"threads": 2}}}', "utf-8-sig")
    assert MODULE.read_settings(tmp_path) == {"threads": 2}


def test_what_ends_the_module_early_stands_in_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("Doe^Jane")

    monkeypatch.setattr(medseg, "segment", fail)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, tmp_path / "bundle")
    text = (tmp_path / "out/result.json").read_text()
    assert "a bug in medseg (ZeroDivisionError)" in text
    assert "Doe" not in text


def test_a_container_that_is_stopped_ends_and_says_so(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "in").mkdir()
    former = signal.getsignal(signal.SIGTERM)

    def stop(*_: object, **__: object) -> None:
        # Unless the module asks for it, the first process of a container does not get it at all.
        assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, former)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(medseg, "segment", stop)
    assert run(tmp_path, tmp_path / "bundle") == 130
    assert "resumes" in capsys.readouterr().err
    assert "resumes" in (tmp_path / "out/result.json").read_text()
    assert signal.getsignal(signal.SIGTERM) == former


def test_an_empty_variable_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places: list[Path] = []

    def stop(*given: Path) -> None:
        places.extend(given)
        raise KeyboardInterrupt

    monkeypatch.setattr(MODULE, "segment", stop)
    monkeypatch.setattr(MODULE, "write_result", lambda *_: None)
    names = ("MERCURE_IN_DIR", "MERCURE_OUT_DIR", "MEDSEG_MODEL")
    assert MODULE.main([], dict.fromkeys(names, "")) == 130
    assert places == [Path("/in"), Path("/out"), Path("/model")]


def test_settings_are_arguments_of_segment() -> None:
    names = inspect.signature(medseg.segment).parameters
    assert set(MODULE.SETTINGS) <= names.keys()


def test_a_task_without_settings_is_understood(tmp_path: Path) -> None:
    for text in ("{}", '{"process": null}', '{"process": [{"settings": {}}]}'):
        (tmp_path / "task.json").write_text(text)
        assert MODULE.read_settings(tmp_path) == {}


def test_with_arguments_it_is_the_command_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as done:
        MODULE.main(["report", "--help"], {})
    assert done.value.code == 0
    assert "medseg report" in capsys.readouterr().out


# --- what they are built from -------------------------------------------------------------


def list_copied() -> set[str]:
    copied: set[str] = set()
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        *sources, _ = line.split()
        copied.update(sources)
    return copied


def test_what_is_built_from_is_there_and_not_ignored() -> None:
    let_through = [line[1:] for line in IGNORED.split() if line[0] == "!"]
    for source in list_copied():
        assert (ROOT / source).exists(), source
        assert any(fnmatch.fnmatch(source, one) for one in let_through), source


def test_all_that_the_package_is_built_from_is_copied() -> None:
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], *wheel["force-include"]}
    needed |= {
        PROJECT["project"]["readme"],
        *PROJECT["project"]["license-files"],
    }
    needed |= {"pyproject.toml", "CHANGELOG.md"}
    needed.add(
        f"workflows/release/{PROJECT['tool']['hatch']['version']['path'].split('/')[-1]}"
    )
    assert needed <= list_copied()
    for source in needed:
        assert f"    {source} /build/{source}" in APPTAINER


def test_nobody_is_root_there_and_the_module_is_what_runs() -> None:
    *_, last = DOCKERFILE.split("\nFROM ")
    (user,) = re.findall(r"^USER (\S+)$", last, re.MULTILINE)
    assert int(user) > 0
    assert 'ENTRYPOINT ["python", "/opt/medseg/module.py"]' in last
    assert (
        "COPY workflows/containers/module.py /opt/medseg/module.py"
        in DOCKERFILE
    )
    assert "org.opencontainers.image.licenses" in last
    # MONAI asks for the name of a user who has none under --user.
    assert re.search(r"^ +USER=\w+ ", last, re.MULTILINE)


def test_the_images_take_the_same_arguments() -> None:
    docker = dict(re.findall(r"^ARG (\w+)=(.*)$", DOCKERFILE, re.MULTILINE))
    section = APPTAINER.partition("%arguments")[2].partition("%files")[0]
    apptainer = dict(re.findall(r"^ +(\w+)=(.*)$", section, re.MULTILINE))
    base = apptainer.pop("BASE")
    assert docker.pop("BASE") == f"docker.io/library/{base}"
    assert docker == apptainer
    for extra in docker["EXTRAS"].split(","):
        assert extra in PROJECT["project"]["optional-dependencies"]
    for name in docker:
        assert f"${name}" in DOCKERFILE or f"${{{name}:" in DOCKERFILE
        assert f"{{{{ {name} }}}}" in APPTAINER


def test_an_indexed_job_says_how_many_shards_there_are() -> None:
    text = (ROOT / "workflows/cluster/kubernetes.yaml").read_text()
    job = yaml.safe_load(text)["spec"]
    (container,) = job["template"]["spec"]["containers"]
    (count,) = container["env"]
    assert count == {
        "name": "JOB_COMPLETIONS",
        "value": str(job["completions"]),
    }
