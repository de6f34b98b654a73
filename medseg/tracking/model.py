"""A trained bundle as a model that MLflow can load, serve and register."""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

SPEC_FILE = "bundle.json"

MODEL_FILES = (
    SPEC_FILE,
    "metrics.json",
    "configs",
    "models",
    "docs",
    "LICENSE",
)
"""What of a run folder makes a bundle that segments; checkpoints and caches stay behind."""


def log_model(
    client: Any,
    bundle: Path,
    code: Path,
    *,
    name: str,
    experiment: str,
    run: str,
    step: int,
) -> Any:
    """Log a trained bundle as a model of a run and return MLflow's record of it.

    Args:
        client: An MLflow client.
        bundle: The trained bundle.
        code: The Python file whose model loads the bundle from the artifact ``bundle``.
        name: The model's name.
        experiment: Id of the experiment.
        run: Id of the run it belongs to.
        step: The step it was trained to.
    """
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    record = client.create_logged_model(
        experiment, name=name, source_run_id=run, model_type="medseg"
    )
    client.log_outputs(run, [LoggedModelOutput(record.model_id, step=step)])
    status = "FAILED"
    try:
        description = Model(
            artifact_path=record.artifact_location,
            run_id=run,
            model_uuid=record.model_id,
            model_id=record.model_id,
        )
        with tempfile.TemporaryDirectory(prefix="medseg-model-") as folder:
            staged = Path(folder) / "bundle"
            saved = Path(folder) / "model"
            _stage(bundle, staged)
            _save_model(saved, staged, code, description)
            client.log_model_artifacts(record.model_id, str(saved))
        status = "READY"
    finally:
        client.finalize_logged_model(record.model_id, status)
    return record


def _stage(bundle: Path, staged: Path) -> None:
    """Copy what the model needs of the bundle; MLflow takes whole folders and no links."""
    staged.mkdir()
    for name in MODEL_FILES:
        source = bundle / name
        if source.is_dir():
            shutil.copytree(source, staged / name)
        elif source.is_file():
            copy_public(source, staged / name)


def copy_public(source: Path, target: Path) -> None:
    """Copy a file of a bundle; of ``bundle.json``, without where the data are: a person's path."""
    shutil.copyfile(source, target)
    if source.name != SPEC_FILE:
        return
    content = json.loads(source.read_text(encoding="utf-8"))
    if "root" not in content.get("data", {}):
        return
    del content["data"]["root"]
    text = json.dumps(content, indent=2, ensure_ascii=False)
    target.write_bytes(f"{text}\n".encode())


def _save_model(
    saved: Path, bundle: Path, code: Path, description: Any
) -> None:
    from mlflow import pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    signature = ModelSignature(
        inputs=Schema([ColSpec("string", "scan")]),
        params=ParamSchema([ParamSpec("out", "string", "")]),
    )
    with warnings.catch_warnings():
        # It asks for type hints and examples, which the signature makes needless.
        warnings.simplefilter("ignore")
        pyfunc.save_model(
            str(saved),
            python_model=str(code),
            artifacts={"bundle": str(bundle)},
            pip_requirements=_requirements(),
            signature=signature,
            model_config={"speed": ""},
            mlflow_model=description,
        )


def _requirements() -> list[str]:
    """Return medseg and what it needs, at the versions that are installed.

    Named here because MLflow would load the model, twice, to guess them.
    """
    packages = ["medseg", *_dependencies()]
    return [f"{package}=={_published_version(package)}" for package in packages]


def _dependencies() -> list[str]:
    """Return what medseg always needs: requirements without a marker, so without extras."""
    from packaging.requirements import Requirement

    requirements = [
        Requirement(line) for line in metadata.requires("medseg") or ()
    ]
    return [
        requirement.name
        for requirement in requirements
        if requirement.marker is None
    ]


def _published_version(package: str) -> str:
    # `2.13.0+cpu` names a build that the package index does not hold.
    return metadata.version(package).partition("+")[0]


def register(client: Any, model: Any, *, name: str, run: str) -> None:
    """Add a logged model to the registry as the next version of ``name``."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code not in (
            "RESOURCE_ALREADY_EXISTS",
            "ALREADY_EXISTS",
        ):
            raise
    client.create_model_version(
        name,
        model.artifact_location,
        run,
        model_id=model.model_id,
        await_creation_for=0,
    )
