"""Puts small bugs into a copy of medseg, one at a time, and tells which of them no test notices.

    python workflows/mutation/mutate.py [--room NAME]… [--jobs N] [--only TEXT] [--list]

Each ``workflows/mutation/*.toml`` lists the mutations of one room::

    [[mutation]]
    name = "the conformal rank is n, not n + 1"
    file = "medseg/quality/calibration.py"
    old = "math.ceil((count + 1) * level)"
    new = "math.ceil(count * level)"
    tests = ["tests/quality/test_calibration.py"]
    equivalent = ""        # why no test can notice it, if that is so

``old`` must stand exactly once in the file, wrapped as it may be. ``tests`` are the ones that
should notice, as pytest takes them; the test that mirrors the file unless given. A mutation that
passes its tests is a survivor; the exit code is 1 if there is one that is not explained as
equivalent.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parents[2]
COPIED = (
    "medseg",
    "tests",
    "workflows",
    "bundles",
    "docs",
    "README.md",
    "pyproject.toml",
)
TIMEOUT_SECONDS = 600


@dataclass(frozen=True)
class Mutation:
    """One bug to put in.

    Attributes:
        room: The name of the list that it stands in.
        name: What is wrong with it, in words.
        file: Which file it changes.
        old: The text it replaces.
        new: By what.
        tests: The tests that should notice.
        equivalent: Why nothing can notice it, if so.
    """

    room: str
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    equivalent: str = ""


def read_mutations(folder: Path) -> Iterator[Mutation]:
    """Read every list in a folder."""
    for listing in sorted(folder.glob("*.toml")):
        for entry in tomllib.loads(listing.read_text(encoding="utf-8"))[
            "mutation"
        ]:
            tests = tuple(entry.pop("tests", ())) or (mirror_of(entry["file"]),)
            yield Mutation(room=listing.stem, tests=tests, **entry)


def mirror_of(file: str) -> str:
    """Return the test file that mirrors a module."""
    path = Path(file).relative_to("medseg")
    return str(Path("tests") / path.with_name(f"test_{path.name}"))


def fault_of(mutation: Mutation) -> str:
    """Tell why a mutation cannot be made; empty if it can."""
    file = ROOT / mutation.file
    if not file.is_file():
        return "there is no such file"
    places = find_places(mutation, file.read_text(encoding="utf-8"))
    if len(places) != 1:
        return f"the text to replace stands {len(places)} times in it"
    absent = [
        test
        for test in mutation.tests
        if not (ROOT / test.split("::")[0]).exists()
    ]
    return f"there is no {absent[0]}" if absent else ""


def find_places(mutation: Mutation, code: str) -> list[tuple[int, int]]:
    """Return where the text to replace begins and ends, however the formatter wraps it."""
    if mutation.old in code:
        return [
            match.span() for match in re.finditer(re.escape(mutation.old), code)
        ]
    words = re.findall(r"\w+|[^\w\s]", mutation.old)
    pattern = ""
    for position, word in enumerate(words):
        if position and word[0].isalnum() and words[position - 1][-1].isalnum():
            pattern += r"\s+"
        elif position:
            # A wrapped call has a comma behind its last argument, and a wrapped value brackets.
            pattern += r"\s*,?\s*" if word in ")]}" else r"\s*"
        pattern += re.escape(word)
    return [match.span() for match in re.finditer(pattern, code)]


def put_in(mutation: Mutation, code: str) -> str:
    """Return the code with the bug in place."""
    ((start, end),) = find_places(mutation, code)
    new = mutation.new if mutation.old in code else mutation.new.strip()
    return code[:start] + new + code[end:]


def make_copy(folder: Path) -> Path:
    """Copy what the tests need."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / name, ignore=ignored)
        elif source.exists():
            shutil.copy(source, folder / name)
    return folder


def is_caught(mutation: Mutation, copy: Path) -> bool:
    """Run a mutation's tests with the bug in place, and take it out again."""
    file = copy / mutation.file
    sound = file.read_text(encoding="utf-8")
    file.write_text(put_in(mutation, sound), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
    ]
    try:
        done = subprocess.run(
            [*command, *mutation.tests],
            cwd=copy,
            env=_environment(copy),
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return True  # a bug that makes the tests hang is noticed
    finally:
        file.write_text(sound, encoding="utf-8")
    if done.returncode not in (
        0,
        1,
        2,
    ):  # 2: the module cannot even be imported
        raise RuntimeError(
            f"{mutation.name}: pytest failed\n{done.stdout.decode()[-2000:]}"
        )
    return done.returncode != 0


def _environment(copy: Path) -> dict[str, str]:
    import os

    data = os.environ.get("MEDSEG_DATA", str(ROOT.parent / "shared" / "data"))
    settings = {
        "PYTHONPATH": str(copy),
        "OMP_NUM_THREADS": "1",
        "MEDSEG_DATA": data,
    }
    return {**os.environ, **settings, "PYTHONDONTWRITEBYTECODE": "1"}


def run(mutations: list[Mutation], jobs: int) -> list[Mutation]:
    """Try every mutation; return the survivors."""
    survivors = []
    with tempfile.TemporaryDirectory(prefix="medseg-mutation-") as folder:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(jobs):
            copies.put(make_copy(Path(folder) / str(number)))

        def attempt(mutation: Mutation) -> bool:
            copy = copies.get()
            try:
                return is_caught(mutation, copy)
            finally:
                copies.put(copy)

        with ThreadPoolExecutor(jobs) as pool:
            outcomes = pool.map(attempt, mutations)
            for mutation, caught in zip(mutations, outcomes, strict=True):
                print(
                    "caught  " if caught else "SURVIVED",
                    mutation.room,
                    mutation.name,
                    flush=True,
                )
                if not caught:
                    survivors.append(mutation)
    return survivors


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--room", action="append", help="only this list; repeatable"
    )
    parser.add_argument(
        "--only", default="", help="only mutations whose name holds this text"
    )
    parser.add_argument("--jobs", type=int, default=2, help="how many at once")
    parser.add_argument(
        "--list", action="store_true", help="check and list them, run nothing"
    )
    options = parser.parse_args()
    mutations = [
        mutation
        for mutation in read_mutations(Path(__file__).parent)
        if (not options.room or mutation.room in options.room)
        and options.only in mutation.name
    ]
    faults = [
        (mutation, fault)
        for mutation in mutations
        if (fault := fault_of(mutation))
    ]
    for mutation, fault in faults:
        print(f"{mutation.room}: {mutation.name}: {mutation.file}: {fault}")
    if faults or options.list:
        print(f"{len(mutations)} mutations, {len(faults)} cannot be made")
        sys.exit(2 if faults else 0)
    survivors = run(mutations, options.jobs)
    unexplained = [
        mutation for mutation in survivors if not mutation.equivalent
    ]
    caught = len(mutations) - len(survivors)
    print(
        f"{caught} of {len(mutations)} caught; {len(unexplained)} survivors unexplained"
    )
    sys.exit(1 if unexplained else 0)


if __name__ == "__main__":
    main()
