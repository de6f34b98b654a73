"""The module needs no network, no root, and writes to results and temporary files alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.killed_batches import write_scans

ROOT = Path(__file__).resolve().parents[2]
USER = "12345"
"""Nobody's number, as `--user` may give: the system has no name for it."""

# As `docker run --read-only --network none --tmpfs … --user` has it: all file systems are read-only
# but for the results and what is temporary. That is not /tmp, below which this checkout may lie.
SCRIPT = """
set -eu
mount -t tmpfs tmpfs /mnt
mkdir /mnt/in /mnt/out /mnt/model /mnt/tmp
chmod 1777 /mnt/tmp
mount --bind "$1/in" /mnt/in
mount --bind "$1/out" /mnt/out
mount --bind "$1/bundle" /mnt/model
mount -o remount,ro,bind /
cd /
if touch /root/file 2>/dev/null; then exit 99; fi
become="setpriv --reuid $3 --regid $3 --clear-groups"
$become "$2" -c "import json" || exit 98
exec $become "$2" "$4"
"""


def find_user_name() -> str:
    """Return what the image calls its user."""
    dockerfile = (ROOT / "workflows/containers/Dockerfile").read_text()
    (name,) = re.findall(r"^ +USER=(\w+) ", dockerfile, re.MULTILINE)
    return str(name)


@pytest.mark.slow
@pytest.mark.skipif(
    not shutil.which("unshare") or not shutil.which("setpriv"),
    reason="needs namespaces of Linux",
)
def test_the_module_runs_read_only_without_network_and_root(
    tmp_path: Path, untrained_bundle: Callable[..., Path]
) -> None:
    if os.getuid() != 0:
        pytest.skip("mounts need root")
    write_scans(tmp_path / "in", 2)
    (tmp_path / "out").mkdir(mode=0o777)
    (tmp_path / "out").chmod(0o777)
    untrained_bundle("bundle")
    variables = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/mnt/tmp",
        "USER": find_user_name(),
        "TMPDIR": "/mnt/tmp",
        "OMP_NUM_THREADS": "1",
        "MERCURE_IN_DIR": "/mnt/in",
        "MERCURE_OUT_DIR": "/mnt/out",
        "MEDSEG_MODEL": "/mnt/model",
    }
    module = ROOT / "workflows/containers/module.py"
    namespaces = ["unshare", "--mount", "--net", "--pid", "--fork"]
    done = subprocess.run(
        [
            *namespaces,
            "sh",
            "-c",
            SCRIPT,
            "sh",
            tmp_path,
            sys.executable,
            USER,
            module,
        ],
        env=variables,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if "unshare failed" in done.stderr:
        pytest.skip("namespaces are not allowed here")
    if done.returncode == 98:
        pytest.skip("other users may not read this environment")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert [scan["state"] for scan in result["scans"]] == ["done", "done"]
    assert (tmp_path / "out/result.json").stat().st_uid == int(USER)
