"""What happens to JSON and CSV files, by hand and by programs."""

from __future__ import annotations

import json
import random as python_random
from collections.abc import Callable
from typing import Any

import numpy as np
from sound_files import Sound

Random = np.random.Generator
Damage = Callable[[Sound, Random], None]

_ENCODINGS = ("utf-16", "utf-8-sig", "latin-1", "utf-32", "cp037", "utf-16-le")
_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    10**30,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x" * 100_000,
    "../../../etc/passwd",
    "/dev/zero",
    "\0",
    "é\u202e",
    [],
    {},
    [[]],
    {"a": {}},
)
_DEEP = 100_000
_LONG = 200_000


def _change_text(change: Callable[[str, Random], str]) -> Damage:
    def apply(sound: Sound, random: Random) -> None:
        file = sound.files[0]
        text = change(file.read_text(encoding="utf-8"), random)
        file.write_text(text, encoding="utf-8", errors="surrogatepass")

    return apply


def _encode(sound: Sound, random: Random) -> None:
    file = sound.files[0]
    text = file.read_text(encoding="utf-8")
    encoding = str(random.choice(_ENCODINGS))
    file.write_bytes(text.encode(encoding, errors="replace"))


def _edit_nodes(text: str, random: Random) -> str:
    """Change values, keys and lists at random places."""
    content = json.loads(text)
    chance = python_random.Random(int(random.integers(1 << 60)))
    for _ in range(chance.randint(1, 3)):
        _edit_node(content, chance)
    return json.dumps(content)


def _edit_node(node: Any, chance: python_random.Random) -> None:
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = chance.choice(keys)
        inner = node[key]
        is_leaf = not isinstance(inner, dict | list) or not inner
        if is_leaf or chance.random() < 0.3:
            break
        node = inner
    action = chance.random()
    if action < 0.2:
        del node[key]
    elif action < 0.3 and isinstance(node, dict):
        node[f"{key}_"] = node.pop(key)
    elif action < 0.4 and isinstance(node, list):
        node.insert(key, node[key])
    elif action < 0.5:
        node[key] = [inner]
    else:
        node[key] = chance.choice(_VALUES)


def _repeat_key(text: str, random: Random) -> str:
    content = json.loads(text)
    key = str(random.choice(sorted(content)))
    return text.replace("{", f'{{"{key}": 1, ', 1)


def _wrap(text: str, random: Random) -> str:
    return str(random.choice(("[", '{"a":'))) * _DEEP


def _add_comment(text: str, random: Random) -> str:
    return text.replace("{", "{ // a comment\n", 1)


def _add_comma(text: str, random: Random) -> str:
    return text.rstrip()[:-1] + ",}"


def _make_other_value(text: str, random: Random) -> str:
    return str(random.choice(("null", "1", '"text"', "[]", "{}", "NaN", "")))


JSON_DAMAGES: dict[str, Damage] = {
    "values edited": _change_text(_edit_nodes),
    "key twice": _change_text(_repeat_key),
    "nested deeply": _change_text(_wrap),
    "a comment": _change_text(_add_comment),
    "a comma": _change_text(_add_comma),
    "other content": _change_text(_make_other_value),
    "other encoding": _encode,
}


def _delimit(text: str, random: Random) -> str:
    return text.replace(",", str(random.choice((";", "\t", "|", " ", ", "))))


def _quote(text: str, random: Random) -> str:
    place = int(random.integers(len(text)))
    return text[:place] + '"' + text[place:]


def _edit_cells(text: str, random: Random) -> str:
    rows = [line.split(",") for line in text.splitlines()]
    chance = python_random.Random(int(random.integers(1 << 60)))
    for _ in range(chance.randint(1, 3)):
        row = chance.choice(rows)
        if not row:
            continue
        place = chance.randrange(len(row))
        action = chance.random()
        if action < 0.25:
            del row[place]
        elif action < 0.5:
            row.insert(place, row[place])
        else:
            row[place] = str(chance.choice(_VALUES))
    return "\n".join(",".join(row) for row in rows)


def _drop_line(text: str, random: Random) -> str:
    lines = text.splitlines(keepends=True)
    del lines[int(random.integers(len(lines)))]
    return "".join(lines)


def _repeat_line(text: str, random: Random) -> str:
    lines = text.splitlines(keepends=True)
    lines.append(lines[int(random.integers(len(lines)))])
    return "".join(lines)


CSV_DAMAGES: dict[str, Damage] = {
    "other delimiter": _change_text(_delimit),
    "a quote": _change_text(_quote),
    "cells edited": _change_text(_edit_cells),
    "line lost": _change_text(_drop_line),
    "line twice": _change_text(_repeat_line),
    "line ends of old": _change_text(lambda text, _: text.replace("\n", "\r")),
    "blank lines": _change_text(lambda text, _: text.replace("\n", "\n\n")),
    "a zero": _change_text(lambda text, _: text.replace("c", "\0", 2)),
    "a long cell": _change_text(lambda text, _: text + "x" * _LONG),
    "a long line": _change_text(lambda text, _: text + "x," * _LONG),
    "other encoding": _encode,
}
