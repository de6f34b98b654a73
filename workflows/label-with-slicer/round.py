"""A round of correcting, as a clinician works with 3D Slicer: does it make the proposals better?

Trains a bundle deliberately too little, serves it by ``medseg label``, and drives the server with
the client library that 3D Slicer's plugin uses (from MONAI Label's wheel): info → next sample →
infer → save label, twelve times, the labels submitted being the data set's references; then train,
then infer again. Dice is measured on other cases, of other patients, before and after.

    python workflows/label-with-slicer/round.py Task04_Hippocampus WORK
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import medseg

BUNDLE = Path("bundles/hippocampus_mr/bundle.json")
FEW_COPIES = "quality.corrupted_copies=10"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="MSD folder with dataset.json")
    parser.add_argument("work", type=Path, help="a new folder")
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument(
        "--known", type=int, default=8, help="cases the first training sees"
    )
    parser.add_argument(
        "--labelled", type=int, default=12, help="cases that are corrected"
    )
    parser.add_argument(
        "--tested", type=int, default=40, help="other cases, to measure on"
    )
    parser.add_argument("--steps-before", type=int, default=60)
    parser.add_argument("--steps", type=int, default=200)
    given = parser.parse_args()
    parts = split_by_patient(
        given.data, given.known, given.labelled, given.tested
    )
    for name, items in parts.items():
        write_part(given.data, given.work / name, items)
    under_trained = train_too_little(given)
    report = one_round(given, under_trained)
    (given.work / "round.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def split_by_patient(
    data: Path, *sizes: int
) -> dict[str, list[dict[str, Any]]]:
    """Deal the cases to the three parts, whole patients at a time."""
    items = json.loads((data / "dataset.json").read_text())["training"]
    parts: dict[str, list[dict[str, Any]]] = {
        "known": [],
        "labelled": [],
        "tested": [],
    }
    wanted = dict(zip(parts, sizes, strict=True))
    owner: dict[Any, str] = {}
    for item in items:
        patient = item.get("group", item["image"])
        free = [name for name in parts if len(parts[name]) < wanted[name]]
        if not free and patient not in owner:
            continue
        name = owner.setdefault(patient, free[0] if free else "")
        if len(parts[name]) < wanted[name]:
            parts[name].append(item)
    return parts


def write_part(data: Path, folder: Path, items: list[dict[str, Any]]) -> None:
    for kind in ("image", "label"):
        target = folder / {"image": "imagesTr", "label": "labelsTr"}[kind]
        target.mkdir(parents=True)
        for item in items:
            shutil.copy(data / item[kind], target)
    # Folds would be torn by the choice of cases; the spec splits by patient anew.
    listed = [
        {key: value for key, value in item.items() if key != "fold"}
        for item in items
    ]
    (folder / "dataset.json").write_text(json.dumps({"training": listed}))


def train_too_little(given: argparse.Namespace) -> Path:
    steps = given.steps_before
    return medseg.train(
        given.bundle,
        data=given.work / "known",
        out=given.work / "under_trained",
        device="cpu",
        overrides=[
            f"training.steps={steps}",
            f"training.validate_every={steps}",
            "data.folds=2",
            FEW_COPIES,
        ],
    )


def one_round(given: argparse.Namespace, bundle: Path) -> dict[str, Any]:
    work = given.work.absolute()
    scans = work / "scans"
    scans.mkdir()
    for part in ("labelled", "tested"):
        for image in (work / part / "imagesTr").iterdir():
            shutil.copy(image, scans)
    port = free_port()
    call = [
        sys.executable,
        "-m",
        "medseg",
        "label",
        bundle,
        scans,
        "--state",
        work / "state",
    ]
    began = time.perf_counter()
    server = subprocess.Popen(
        [*map(str, call), "--port", str(port), "--device", "cpu"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(url, server)
        client = slicer_client(url, work)
        model = next(iter(client.info()["models"]))
        before = dice(given, client, model, "before")
        asked = correct(given, client, model)
        trained = time.perf_counter()
        client.train_start(model, {"steps": given.steps})
        status = wait_for_training(client)
        took = time.perf_counter() - trained
        after = dice(given, client, model, "after")
        info = client.info()
    finally:
        server.terminate()
        server.wait()
    return {
        "dice_before": before,
        "dice_after": after,
        "versions": info["medseg"],
        "training": {
            "status": status["status"],
            "seconds": round(took),
            "steps": given.steps,
        },
        "first_asked_for": asked[:3],
        "corrected": len(asked),
        "seconds": round(time.perf_counter() - began),
    }


def correct(given: argparse.Namespace, client: Any, model: str) -> list[str]:
    """Ask for the worst case, look at the proposal, submit its reference; twelve times."""
    references = given.work / "labelled" / "labelsTr"
    ours = {file.name.removesuffix(".nii.gz") for file in references.iterdir()}
    asked: list[str] = []
    while len(asked) < len(ours):
        # The cases to test on are served, too; nobody corrects those.
        client._client_id = f"reader-{time.monotonic_ns()}"
        case = client.next_sample("worst_first", {})["id"]
        if case not in ours or case in asked:
            case = next(name for name in sorted(ours) if name not in asked)
        proposal, about = client.infer(model, case, {})
        assert Path(proposal).is_file()
        segments = [
            {"name": name, "idx": idx}
            for name, idx in about["label_names"].items()
        ]
        client.save_label(
            case,
            str(references / f"{case}.nii.gz"),
            params={"label_info": segments},
        )
        asked.append(case)
    return asked


def dice(
    given: argparse.Namespace, client: Any, model: str, when: str
) -> dict[str, Any]:
    """Segment the test cases through the server and score them."""
    out = given.work / when
    out.mkdir()
    for image in sorted((given.work / "tested" / "imagesTr").iterdir()):
        case = image.name.removesuffix(".nii.gz")
        file, _ = client.infer(model, case, {"result_extension": ".nii.gz"})
        shutil.move(file, out / f"{case}.nii.gz")
    found = medseg.evaluate(out, given.work / "tested" / "labelsTr")
    means = found.statistics["dice"]
    return {
        name: {"mean": round(one.mean, 4), "sd": round(one.sd, 4), "n": one.n}
        for name, one in means.items()
    }


def wait_for_training(client: Any) -> dict[str, Any]:
    while True:
        status: dict[str, Any] = client.train_status()
        if status["status"] not in ("SUBMITTED", "RUNNING"):
            return status
        time.sleep(1)


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/info/", timeout=30).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise SystemExit("the server did not start")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def slicer_client(url: str, folder: Path) -> Any:
    file = (
        Path(sys.prefix)
        / "monailabel/plugins/slicer/MONAILabel/MONAILabelLib/client.py"
    )
    spec = importlib.util.spec_from_file_location("slicer_client", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.MONAILabelClient(url, str(folder), client_id="reader")


if __name__ == "__main__":
    main()
