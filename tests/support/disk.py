"""What a power cut may leave of a disk.

A `Disk` repeats recorded calls in memory, and keeps apart what was synchronised: of the rest a power cut may leave
nothing, all, or some. A file's bytes need an fsync of the file, its name one of the directory.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Callable, Dict, Optional, Union

from support.proving import Short
from support.recorded import Call

_SECTOR_BYTES = 512
_AT_FDCWD = -100


@dataclass
class File:
    """Bytes as the processes see them, as they were synchronised last, and what was done in between."""

    data: bytes = b""
    synced: bytes = b""
    pending: list[Callable[[bytes], bytes]] = field(default_factory=list)
    writes: list[tuple[int, bytes] | None] = field(default_factory=list)
    """Of *pending*: what can be torn."""
    is_index: bool = False
    """SQLite's shared memory, which it does not believe after a power cut."""

    def change(self, how: Callable[[bytes], bytes], write: tuple[int, bytes] | None = None) -> None:
        self.data = how(self.data)
        self.pending.append(how)
        self.writes.append(write)

    def sync(self) -> None:
        self.synced = self.data
        self.pending, self.writes = [], []


@dataclass
class Directory:
    """The same for names. What one call does to the names is one change."""

    names: dict[str, Node] = field(default_factory=dict)
    synced: dict[str, Node] = field(default_factory=dict)
    pending: list[dict[str, Node | None]] = field(default_factory=list)

    def change(self, names: dict[str, Node | None]) -> None:
        _change_names(self.names, names)
        self.pending.append(names)

    def sync(self) -> None:
        self.synced, self.pending = dict(self.names), []


Node = Union[File, Directory]
Tree = Dict[str, Optional[bytes]]
"""Relative path -> bytes; None for a directory."""


def _change_names(target: dict[str, Node], names: dict[str, Node | None]) -> None:
    for name, node in names.items():
        if node is None:
            target.pop(name, None)
        else:
            target[name] = node


@dataclass
class _Open:
    node: Node
    offset: int = 0
    appends: bool = False


class Disk:
    """Everything below *root*, which is on disk and empty at first."""

    def __init__(self, root: Path) -> None:
        self._root_path = PurePosixPath(str(root))
        self._root = Directory()
        self._open: dict[int, _Open] = {}

    def apply(self, call: Call) -> bool:
        """Repeat it. True if what a power cut leaves may be another now. Raises Short for a call that is not known
        here and touches this disk."""
        handler = getattr(self, f"_do_{call.name}", None)
        if handler is None:
            if call.name in ("clone", "clone3", "fork", "vfork"):
                raise Short("it starts a process, which is not looked on")
            if any(isinstance(each, str) and each.isdigit() and int(each) in self._open for each in call.arguments):
                raise Short(f"{call.name} is not known here")
            return False
        return bool(handler(call))

    # -- what a power cut leaves -------------------------------------------------------------------------------

    def nothing_more(self) -> Tree:
        """Only what was synchronised."""
        return _tree(self._root, lambda file: file.synced, lambda directory: directory.synced)

    def everything(self) -> Tree:
        """All that was done."""
        return _tree(self._root, lambda file: file.data, lambda directory: directory.names)

    def something(self, seed: int) -> Tree:
        """What was synchronised, of the writes since then any, each perhaps torn, and of the names the first few."""
        chance = random.Random(seed)

        def data_of(file: File) -> bytes:
            data = file.synced
            for how, write in zip(file.pending, file.writes):
                if chance.random() < 0.5:
                    continue
                data = how(data) if write is None else _written(data, *_torn(write, chance))
            return data

        def names_of(directory: Directory) -> dict[str, Node]:
            names = dict(directory.synced)
            for change in directory.pending[: chance.randint(0, len(directory.pending))]:
                _change_names(names, change)
            return names

        return _tree(self._root, data_of, names_of)

    # -- calls -------------------------------------------------------------------------------------------------

    def _do_openat(self, call: Call) -> bool:
        return self._opened(call, self._located(call.fd(0), call.data(1)), 2)

    def _do_open(self, call: Call) -> bool:
        return self._opened(call, self._located(_AT_FDCWD, call.data(0)), 1)

    def _opened(self, call: Call, place: tuple[Directory, str] | None, flags: int) -> bool:
        self._open.pop(call.result, None)
        if place is None:
            return False
        directory, name = place
        node: Node | None = directory if name == "." else directory.names.get(name)
        made = node is None
        if node is None:
            node = File(is_index=name.endswith("-shm"))
            directory.change({name: node})
        if call.has(flags, "O_TRUNC") and isinstance(node, File) and node.data:
            node.change(lambda _: b"")
            made = True
        self._open[call.result] = _Open(node, appends=call.has(flags, "O_APPEND"))
        return made

    def _do_close(self, call: Call) -> bool:
        self._open.pop(call.fd(), None)
        return False

    def _do_dup(self, call: Call) -> bool:
        return self._same(call.fd(), call.result)

    _do_dup2 = _do_dup3 = _do_dup

    def _do_fcntl(self, call: Call) -> bool:
        return self._same(call.fd(), call.result) if str(call.arguments[1]).startswith("F_DUPFD") else False

    def _same(self, old: int, new: int) -> bool:
        if old != new:
            self._open.pop(new, None)
            if old in self._open:
                self._open[new] = self._open[old]
        return False

    def _do_read(self, call: Call) -> bool:
        if call.fd() in self._open:
            self._open[call.fd()].offset += call.result
        return False

    def _do_lseek(self, call: Call) -> bool:
        if call.fd() in self._open:
            self._open[call.fd()].offset = call.result
        return False

    def _do_write(self, call: Call) -> bool:
        opened = self._open.get(call.fd())
        if opened is None:
            return False
        assert isinstance(opened.node, File)
        offset = len(opened.node.data) if opened.appends else opened.offset
        opened.offset = offset + call.result
        return self._wrote(opened.node, offset, call.data(1)[: call.result])

    def _do_pwrite64(self, call: Call) -> bool:
        opened = self._open.get(call.fd())
        if opened is None:
            return False
        assert isinstance(opened.node, File)
        return self._wrote(opened.node, call.number(3), call.data(1)[: call.result])

    @staticmethod
    def _wrote(file: File, offset: int, data: bytes) -> bool:
        file.change(lambda before: _written(before, offset, data), (offset, data))
        return True

    def _do_ftruncate(self, call: Call) -> bool:
        opened, size = self._open.get(call.fd()), call.number(1)
        if opened is None:
            return False
        assert isinstance(opened.node, File)
        opened.node.change(lambda before: before[:size].ljust(size, b"\0"))
        return True

    def _do_fsync(self, call: Call) -> bool:
        opened = self._open.get(call.fd())
        if opened is not None:
            opened.node.sync()
        return opened is not None

    _do_fdatasync = _do_fsync

    def _do_mmap(self, call: Call) -> bool:
        opened = self._open.get(call.fd(4)) if str(call.arguments[4]).isdigit() else None
        node = None if opened is None else opened.node
        writable = call.has(3, "MAP_SHARED") and call.has(2, "PROT_WRITE")
        if writable and isinstance(node, File) and not node.is_index:
            raise Short("it writes to a file through memory, which is not seen")
        return False

    def _do_mkdir(self, call: Call) -> bool:
        return self._set(self._located(_AT_FDCWD, call.data(0)), Directory())

    def _do_mkdirat(self, call: Call) -> bool:
        return self._set(self._located(call.fd(0), call.data(1)), Directory())

    def _do_link(self, call: Call) -> bool:
        return self._linked(self._located(_AT_FDCWD, call.data(0)), self._located(_AT_FDCWD, call.data(1)))

    def _do_linkat(self, call: Call) -> bool:
        return self._linked(self._located(call.fd(0), call.data(1)), self._located(call.fd(2), call.data(3)))

    def _linked(self, old: tuple[Directory, str] | None, new: tuple[Directory, str] | None) -> bool:
        if old is None and new is None:
            return False
        assert old is not None and new is not None, "a link over the border of what is recorded"
        return self._set(new, old[0].names[old[1]])

    @staticmethod
    def _set(place: tuple[Directory, str] | None, node: Node | None) -> bool:
        if place is None:
            return False
        place[0].change({place[1]: node})
        return True

    def _do_unlink(self, call: Call) -> bool:
        return self._set(self._located(_AT_FDCWD, call.data(0)), None)

    _do_rmdir = _do_unlink

    def _do_unlinkat(self, call: Call) -> bool:
        return self._set(self._located(call.fd(0), call.data(1)), None)

    def _do_rename(self, call: Call) -> bool:
        return self._renamed(self._located(_AT_FDCWD, call.data(0)), self._located(_AT_FDCWD, call.data(1)))

    def _do_renameat(self, call: Call) -> bool:
        return self._renamed(self._located(call.fd(0), call.data(1)), self._located(call.fd(2), call.data(3)))

    _do_renameat2 = _do_renameat

    @staticmethod
    def _renamed(old: tuple[Directory, str] | None, new: tuple[Directory, str] | None) -> bool:
        if old is None and new is None:
            return False
        assert old is not None and new is not None, "a rename over the border of what is recorded"
        node = old[0].names[old[1]]
        if new[0].names.get(new[1]) is node:
            return False  # rename(2) leaves both names of one file
        if old[0] is new[0]:
            old[0].change({old[1]: None, new[1]: node})
        else:
            new[0].change({new[1]: node})
            old[0].change({old[1]: None})
        return True

    def _located(self, fd: int, path: bytes) -> tuple[Directory, str] | None:
        """The directory and the name in it; None if that is not on this disk."""
        text = os.fsdecode(path)
        if fd != _AT_FDCWD and not text.startswith("/"):
            opened = self._open.get(fd)
            return None if opened is None or not isinstance(opened.node, Directory) else _below(opened.node, text)
        absolute = PurePosixPath(text)
        if not absolute.is_absolute():
            return None  # its working directory is elsewhere
        if absolute == self._root_path:
            return self._root, "."
        try:
            return _below(self._root, str(absolute.relative_to(self._root_path)))
        except ValueError:
            return None


def _below(directory: Directory, path: str) -> tuple[Directory, str]:
    *way, name = PurePosixPath(path).parts or (".",)
    for each in way:
        found = directory.names[each]
        assert isinstance(found, Directory)
        directory = found
    return directory, name


def _written(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset].ljust(offset, b"\0") + new + data[offset + len(new) :]


def _torn(write: tuple[int, bytes], chance: random.Random) -> tuple[int, bytes]:
    """Sectors are whole; of several the first few may be there."""
    offset, data = write
    sectors = -(-len(data) // _SECTOR_BYTES)
    return offset, data[: _SECTOR_BYTES * chance.randint(1, max(1, sectors))]


def _tree(
    directory: Directory, data_of: Callable[[File], bytes], names_of: Callable[[Directory], dict[str, Node]]
) -> Tree:
    tree: Tree = {}
    known: dict[int, bytes] = {}  # a file with two names is one file

    def walk(where: Directory, prefix: str) -> None:
        for name, node in sorted(names_of(where).items()):
            if isinstance(node, Directory):
                tree[prefix + name] = None
                walk(node, f"{prefix}{name}/")
            else:
                tree[prefix + name] = known.setdefault(id(node), data_of(node))

    walk(directory, "")
    return tree


def laid_out(tree: Tree, directory: Path) -> Path:
    """*tree* in the new *directory*."""
    directory.mkdir(parents=True)
    for path, data in tree.items():
        if data is None:
            (directory / path).mkdir()
        else:
            (directory / path).write_bytes(data)
    return directory
