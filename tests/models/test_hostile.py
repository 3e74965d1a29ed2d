"""Nothing in an untrusted file runs, and every hostile file ends in one sentence or in a finding."""

from __future__ import annotations

import json
import os
import pickle
import random
import re
import socket
import subprocess
import sys
import sysconfig
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import clipvet
from clipvet.errors import ClipvetError, HostileFileError, UnreadableError
from clipvet.models._child import GUARD_EXIT
from clipvet.models._plan_of import BOOTSTRAP
from clipvet.models.reading import ReadLimits, find_anomalies, read_tensors, sha256_of
from clipvet.types import Severity
from tests.models.hostile import CORPUS, QUOTAS, Hostile, write

LIMITS = ReadLimits(child_memory_bytes=160 << 20, child_seconds=20, max_pickle_bytes=8 << 20)
OURS = (sysconfig.get_paths()["stdlib"], sysconfig.get_paths()["purelib"], str(Path(clipvet.__file__).parent), "<frozen")
WATCHED = ("exec", "compile", "open", "socket.", "subprocess.", "os.", "shutil.", "ctypes.", "pickle.")
HARMLESS = ("os.listdir", "os.scandir", "os.putenv", "os.unsetenv")

_events: list[tuple[str, Any]] | None = None


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if _events is not None and event.startswith(WATCHED) and event not in HARMLESS:
        _events.append((event, args))


sys.addaudithook(_hook)


@contextmanager
def watched() -> Iterator[list[tuple[str, Any]]]:
    global _events
    _events = []
    try:
        yield _events
    finally:
        _events = None


def is_allowed(event: str, args: tuple[Any, ...]) -> bool:
    """Reading, Python's own modules being imported, and the one child process with exactly our command."""
    if event == "open":
        if isinstance(args[0], int) or args[0] == os.devnull:  # the pipes to the child, and its stderr
            return True
        return args[1] in ("r", "rb", None) and not args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    if event in ("exec", "compile"):
        where = args[0].co_filename if event == "exec" else str(args[1])
        return where.startswith(OURS)
    if event == "subprocess.Popen":
        executable, argv = args[0], args[1]
        flags = [sys.executable, "-I", "-S", "-B", "-c", BOOTSTRAP]
        return executable == sys.executable and argv[:6] == flags and len(argv) == 8
    return False


def test_quotas() -> None:
    counts = Counter(case.kind for case in CORPUS)
    assert counts.keys() == QUOTAS.keys()
    assert all(counts[kind] >= quota for kind, quota in QUOTAS.items()), counts
    assert len({case.name for case in CORPUS}) == len(CORPUS) >= 100
    assert sum(case.fires for case in CORPUS) == counts["execution"]


@pytest.mark.filterwarnings("ignore:Complex:UserWarning")
@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)
def test_corpus(case: Hostile, tmp_path: Path) -> None:
    path, marker = write(case, tmp_path)
    before = sorted(p.name for p in path.parent.iterdir())
    with watched() as events:
        try:
            found = read_tensors(path, limits=LIMITS)
            sentence = "; ".join(f.message for f in find_anomalies(found))
            worst = max((f.severity for f in find_anomalies(found)), default=Severity.INFO)
            outcome = worst.name.lower()
        except UnreadableError as error:
            sentence, outcome = str(error), "refused"
    assert outcome == case.outcome, sentence
    assert re.search(case.match, sentence), sentence
    assert sentence.isprintable()
    assert not marker.exists()
    assert sorted(p.name for p in path.parent.iterdir()) == before
    assert [event for event in events if not is_allowed(*event)] == []
    assert sum(event == "subprocess.Popen" for event, _ in events) <= 1


def test_every_execution_payload_is_real(tmp_path: Path) -> None:
    cases = [case for case in CORPUS if case.fires]
    jobs = []
    for case in cases:
        path, marker = write(case, tmp_path)
        jobs.append((str(path), str(marker)))
    done = subprocess.run(
        [sys.executable, Path(__file__).parent / "fire.py"],
        input=json.dumps(jobs), capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    quiet = [case.name for case, fired in zip(cases, json.loads(done.stdout), strict=True) if not fired]
    assert quiet == [], done.stderr[-3000:]


def test_the_watch_sees_what_it_is_there_for(tmp_path: Path) -> None:
    with watched() as events:
        (tmp_path / "x").write_text("1")
        exec(compile("1", "foreign", "exec"))
        os.system("true")
        subprocess.run([sys.executable, "-c", ""], check=True)
        socket.socket().close()
    caught = {event for event, args in events if not is_allowed(event, args)}
    assert {"open", "compile", "exec", "os.system", "subprocess.Popen", "socket.__new__"} <= caught


GUARDED = """
import sys, os, socket, subprocess
sys.path.insert(0, {root!r})
from clipvet.models._child import _guard
_guard()
{attempt}
os._exit(0)
"""


@pytest.mark.parametrize(
    ("attempt", "code"),
    [
        ("sum([1, 2])", 0),
        ("open('x', 'w')", GUARD_EXIT),
        ("open('/dev/null')", GUARD_EXIT),
        ("import decimal", GUARD_EXIT),
        ("eval('1')", GUARD_EXIT),
        ("os.system('true')", GUARD_EXIT),
        ("subprocess.Popen(['true'])", GUARD_EXIT),
        ("socket.socket()", GUARD_EXIT),
        ("os.execv('/bin/true', ['true'])", GUARD_EXIT),
        ("os.posix_spawn('/bin/true', ['true'], {})", GUARD_EXIT),
        ("os.fork()", GUARD_EXIT),
        ("os.remove('x')", GUARD_EXIT),
    ],
)
def test_the_child_ends_itself(attempt: str, code: int, tmp_path: Path) -> None:
    script = GUARDED.format(root=str(Path(clipvet.__file__).parent.parent), attempt=attempt)
    done = subprocess.run([sys.executable, "-S", "-c", script], cwd=tmp_path, capture_output=True)
    assert done.returncode == code, done.stderr
    assert not list(tmp_path.iterdir())


def test_the_child_imports_neither_torch_nor_site_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And it does not look at the working folder or the environment for modules."""
    (tmp_path / "json.py").write_text("raise SystemExit(3)")
    torch.save({"a": torch.ones(2)}, tmp_path / "x.pt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert set(read_tensors(tmp_path / "x.pt").tensors) == {"a"}
    source = BOOTSTRAP.replace("main()\n", "print(*sorted(m for m in sys.modules if 'torch' in m or 'numpy' in m))")
    argv = [sys.executable, "-I", "-S", "-B", "-c", source, "{}", str(Path(clipvet.__file__).parent)]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip() == ""


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        ("os._exit(97)", "reader was stopped"),
        ("os._exit(98)", "1024 MiB of memory"),
        ("os.kill(os.getpid(), 9)", "took longer than the limit of 2 s"),
        ("os.kill(os.getpid(), 11)", "1024 MiB of memory"),
        ("time.sleep(60)", "took longer than the limit of 2 s"),
    ],
)
def test_a_child_that_dies_is_one_sentence(status: str, sentence: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "x.pt")
    monkeypatch.setattr("clipvet.models._plan_of.BOOTSTRAP", f"import os, time; {status}")
    with pytest.raises(HostileFileError, match=sentence):
        read_tensors(tmp_path / "x.pt", limits=ReadLimits(child_seconds=2))


@pytest.mark.parametrize("name", ["missing", "a\0b", "\x1b[31mred", "x" * 5000, "."])
def test_paths_that_are_no_files(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match=r"no such file|found a folder") as caught:
        read_tensors(tmp_path / name)
    assert str(caught.value).isprintable()
    with pytest.raises(UnreadableError):
        sha256_of(tmp_path / name)


def test_a_device_is_not_read() -> None:
    with pytest.raises(UnreadableError, match="device or pipe"):
        read_tensors(Path("/dev/zero"))


def samples(folder: Path) -> list[bytes]:
    state = {"state_dict": {"a": torch.ones(8, 8), "b.c": torch.arange(5)}, "epoch": 3}
    paths = [folder / name for name in ("zip", "legacy", "script", "safe", "array")]
    torch.save(state, paths[0])
    torch.save(state, paths[1], _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(paths[0]) as source, zipfile.ZipFile(paths[2], "w") as target:
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
        target.writestr(paths[0].name + "/constants.pkl", pickle.dumps((), 2))
    save_file(state["state_dict"], paths[3])
    paths[4].write_bytes(pickle.dumps({"a": np.arange(6.0), "n": np.float32(1)}, 4))
    return [path.read_bytes() for path in paths]


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_damage_never_ends_in_a_traceback(tmp_path: Path) -> None:
    """200 files, cut at random places or with random bytes changed: each is read, or refused in one sentence."""
    choose = random.Random(20)
    originals = samples(tmp_path)
    path = tmp_path / "damaged"
    outcomes: Counter[str] = Counter()
    for case in range(200):
        content = bytearray(originals[case % len(originals)])
        if choose.random() < 0.3:
            del content[choose.randrange(len(content)) :]
        else:
            for _ in range(choose.choice((1, 1, 2, 8))):
                # Half of the changes hit the first 400 bytes: headers and pickles.
                content[choose.randrange(min(len(content), choose.choice((400, len(content)))))] = choose.randrange(256)
        path.write_bytes(content)
        try:
            find_anomalies(read_tensors(path, limits=LIMITS))
            outcomes["read"] += 1
        except ClipvetError as error:
            assert str(error).isprintable(), str(error)
            outcomes["refused"] += 1
    assert outcomes["refused"] > 60, outcomes
    assert outcomes["read"] > 20, outcomes
