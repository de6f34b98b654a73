"""How dense the package is to read; fails where it is denser than agreed.

    python workflows/lint/density.py [FOLDER] [--worst N]

Short functions can still be hard to read where one line does three things. So this counts, over
the code lines of a folder (no docstrings, comments or blank lines):

* nodes of the syntax tree per line: 6.2 to 6.9 in TorchIO, httpx, pluggy, zarr and litgpt;
* comprehensions within comprehensions per 1000 lines;
* functions with many branches, counting loops, conditions, handlers, conditional expressions,
  comprehensions and each further operand of ``and`` and ``or``.
"""

from __future__ import annotations

import argparse
import ast
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOST_NODES_PER_LINE = 7.5
MOST_NESTED_COMPREHENSIONS = 1.0
"""Per 1000 lines."""
MOST_BRANCHES = 10
"""Of one function."""
LARGEST_ROOM = 0.15
"""Share of all lines that one folder of the package may have."""

PACKAGE = Path(__file__).resolve().parents[2] / "medseg"
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
BRANCHES = (
    ast.If,
    ast.For,
    ast.While,
    ast.ExceptHandler,
    ast.IfExp,
    ast.comprehension,
    ast.Assert,
)
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


@dataclass(frozen=True)
class Function:
    """One function and how dense it is."""

    place: str
    lines: int
    nodes: int
    branches: int


@dataclass
class Count:
    """What was counted over some files."""

    lines: int
    nodes: int
    nested: int
    functions: list[Function]

    @property
    def nodes_per_line(self) -> float:
        """Nodes of the syntax tree per code line."""
        return self.nodes / max(self.lines, 1)

    @property
    def nested_per_thousand(self) -> float:
        """Nested comprehensions per 1000 code lines."""
        return 1000 * self.nested / max(self.lines, 1)

    @property
    def branching(self) -> list[Function]:
        """The functions with too many branches, worst first."""
        many = [one for one in self.functions if one.branches > MOST_BRANCHES]
        return sorted(many, key=lambda one: -one.branches)


def count_files(files: list[Path], root: Path) -> Count:
    """Count over files, naming functions by their place below ``root``."""
    total = Count(0, 0, 0, [])
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        code = _code_lines(file) - _docstring_lines(tree)
        total.lines += len(code)
        for node in ast.walk(tree):
            total.nodes += 1
            total.nested += _is_nested(node)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                place = f"{file.relative_to(root)}:{node.lineno} {node.name}"
                total.functions.append(_measure(node, place, code))
    return total


def _measure(
    node: ast.FunctionDef | ast.AsyncFunctionDef, place: str, code: set[int]
) -> Function:
    lines = code & set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    nodes = sum(1 for _ in ast.walk(node))
    return Function(place, len(lines), nodes, _count_branches(node))


def _code_lines(file: Path) -> set[int]:
    lines: set[int] = set()
    with file.open("rb") as handle:
        for token in tokenize.tokenize(handle.readline):
            if token.type not in NO_CODE:
                lines.update(range(token.start[0], token.end[0] + 1))
    return lines


def _docstring_lines(tree: ast.AST) -> set[int]:
    lines: set[int] = set()
    for statement in _statements(tree):
        is_text = (
            isinstance(statement, ast.Expr)
            and isinstance(statement.value, ast.Constant)
            and isinstance(statement.value.value, str)
        )
        if is_text:
            lines.update(
                range(statement.lineno, (statement.end_lineno or 0) + 1)
            )
    return lines


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            yield from body


def _is_nested(node: ast.AST) -> bool:
    if not isinstance(node, COMPREHENSIONS):
        return False
    inner = [
        child for child in ast.walk(node) if isinstance(child, COMPREHENSIONS)
    ]
    return len(inner) > 1 or len(node.generators) > 1


def _count_branches(node: ast.AST) -> int:
    total = 1
    for child in ast.walk(node):
        total += isinstance(child, BRANCHES)
        if isinstance(child, ast.BoolOp):
            total += len(child.values) - 1
    return total


def count_rooms(package: Path) -> dict[str, int]:
    """Return how many lines each folder of the package has."""
    rooms: dict[str, int] = {}
    for file in package.rglob("*.py"):
        room = file.relative_to(package).parts[0]
        lines = file.read_text(encoding="utf-8").count("\n")
        rooms[room] = rooms.get(room, 0) + lines
    return rooms


def find_faults(count: Count, rooms: dict[str, int]) -> list[str]:
    """Say what is denser than agreed."""
    faults = []
    if count.nodes_per_line > MOST_NODES_PER_LINE:
        faults.append(
            f"{count.nodes_per_line:.2f} nodes per line; at most {MOST_NODES_PER_LINE}"
        )
    if count.nested_per_thousand > MOST_NESTED_COMPREHENSIONS:
        faults.append(
            f"{count.nested_per_thousand:.1f} nested comprehensions per 1000 lines; at most "
            f"{MOST_NESTED_COMPREHENSIONS}"
        )
    faults.extend(
        f"{one.place} has {one.branches} branches; at most {MOST_BRANCHES}"
        for one in count.branching
    )
    total = sum(rooms.values())
    for room, lines in rooms.items():
        if lines > LARGEST_ROOM * total:
            faults.append(
                f"{room} has {lines / total:.0%} of all lines; at most {LARGEST_ROOM:.0%}"
            )
    return faults


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("folder", nargs="?", type=Path, default=PACKAGE)
    parser.add_argument(
        "--worst", type=int, default=0, help="list the N densest functions"
    )
    options = parser.parse_args()
    folder = options.folder.resolve()
    count = count_files(sorted(folder.rglob("*.py")), folder)
    is_package = folder == PACKAGE
    faults = find_faults(count, count_rooms(folder) if is_package else {})
    print(
        f"{count.lines} code lines, {count.nodes_per_line:.2f} nodes per line, "
        f"{count.nested_per_thousand:.1f} nested comprehensions per 1000 lines, "
        f"{len(count.branching)} functions with more than {MOST_BRANCHES} branches"
    )
    long_enough = [one for one in count.functions if one.lines >= 6]
    densest = sorted(long_enough, key=lambda one: -one.nodes / one.lines)
    for one in densest[: options.worst]:
        print(f"{one.nodes / one.lines:5.1f} nodes per line  {one.place}")
    for fault in faults:
        print(f"too dense: {fault}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
