"""Holds fake_tensorrt against what the vendor's bindings say of themselves.

`tests/tensorrt-stubs` reads that from the wheels; tensorrt_api.json keeps what concerns us, for tests without network:
{version: {class: {member: parameters of a method, each list one overload, or "value"}}}.
"""

from __future__ import annotations

import ast
import inspect
import json
import types
from pathlib import Path
from typing import Any, Dict, List, Union

from support import fake_tensorrt

KEPT = Path(__file__).with_name("tensorrt_api.json")

# constructors that we call, and so are the vendor's; other objects come from the vendor's functions
_CALLED = {(name, "__init__") for name in ("ILogger", "Runtime", "Builder", "OnnxParser", "IInt8EntropyCalibrator2")}
_CALLED |= {("IProgressMonitor", "__init__"), ("Dims", "__len__"), ("Dims", "__getitem__")}

Member = Union[str, List[List[str]]]
Api = Dict[str, Dict[str, Member]]


def of_stub(text: str) -> Api:
    """What a generated .pyi declares, of the classes that the fake has."""
    wanted = {one.__name__ for one in vars(fake_tensorrt).values() if isinstance(one, type)}
    classes = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name in wanted]
    return {node.name: _members(node) for node in classes}


def _members(node: ast.ClassDef) -> dict[str, Member]:
    members: dict[str, Member] = {}
    for one in node.body:
        if isinstance(one, ast.FunctionDef):
            if any(isinstance(mark, ast.Name) and mark.id == "property" for mark in one.decorator_list):
                members[one.name] = "value"
            elif one.args.vararg is None and members.get(one.name) != "value":
                overloads = members.setdefault(one.name, [])
                assert isinstance(overloads, list)
                overloads.append([argument.arg for argument in one.args.args[1:]])
        elif isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            members[one.target.id] = "value"
    return members


def of_fake(version: str) -> Api:
    """The same of the fake of that release; of what begins with an underscore, only what we call."""
    module = fake_tensorrt.release(version)
    return {name: _fake_members(one) for name, one in vars(module).items() if isinstance(one, type)}


def _fake_members(one: type) -> dict[str, Member]:
    members: dict[str, Member] = {}
    if isinstance(one, type) and hasattr(one, "__members__"):
        return dict.fromkeys(one.__members__, "value")  # type: ignore[attr-defined]
    for name in dir(one):
        value = inspect.getattr_static(one, name)
        if isinstance(value, type) or (name.startswith("_") and (one.__name__, name) not in _CALLED):
            continue
        if isinstance(value, property):
            if value.fget is not fake_tensorrt.not_there:
                members[name] = "value"
        elif isinstance(value, types.FunctionType):
            members[name] = [list(inspect.signature(value).parameters)[1:]]
    return members


def differences(fake: Api, vendor: Api) -> list[str]:
    """Where the fake has what the vendor has not, or has it otherwise."""
    found = []
    for name, members in fake.items():
        if name not in vendor:
            found.append(f"{name} is not there")
            continue
        theirs = vendor[name]
        for member, shape in members.items():
            their = theirs.get(member)
            same = their == shape if isinstance(shape, str) else isinstance(their, list) and _fits(shape[0], their)
            if not same:
                found.append(f"{name}.{member}: ours {shape}, theirs {their}")
    return found


def _fits(ours: list[str], overloads: list[list[str]]) -> bool:
    """A longer overload of theirs begins with ours only where the rest has defaults: the vendor's `strategy = …`."""
    return any(theirs[: len(ours)] == ours for theirs in overloads)


def keep(apis: dict[str, Api]) -> None:
    """Write tensorrt_api.json, with no more than the fake has."""
    kept: dict[str, Any] = {}
    for version, api in apis.items():
        fake = of_fake(version)
        kept[version] = {
            name: {member: theirs for member, theirs in sorted(api[name].items()) if member in fake[name]}
            for name in sorted(fake)
            if name in api
        }
    releases = (
        f' "{version}": {{\n' + ",\n".join(f'  "{name}": {json.dumps(api[name])}' for name in api) + "\n }"
        for version, api in kept.items()
    )
    KEPT.write_text("{\n" + ",\n".join(releases) + "\n}\n")  # one line per class


def kept() -> dict[str, Api]:
    """What `keep` wrote."""
    apis: dict[str, Api] = json.loads(KEPT.read_text())
    return apis
