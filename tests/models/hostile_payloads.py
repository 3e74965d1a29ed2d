"""Files that run code when pickle or torch opens them without a guard: all they do is create a marker."""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.models.hostile_files import Build, Call, Hostile, Named, PickleModule, dumps

__all__ = ["EXECUTION"]


def shell(marker: Path) -> str:
    return f"touch '{marker}'"


def code(marker: Path) -> str:
    return f"open({str(marker)!r}, 'w').close()"


def state() -> dict[str, torch.Tensor]:
    return {"ctx": torch.ones(4, 8), "token_prefix": torch.zeros(3, 1, 8)}


OS = Call(Named("importlib", "import_module"), "os")
PICKLE = Call(Named("importlib", "import_module"), "pickle")
SYSTEM = Call(Named("builtins", "getattr"), OS, "system")

PAYLOADS: dict[str, Callable[[Path], Any]] = {
    "os.system": lambda m: Call(Named("os", "system"), shell(m)),
    "posix.system": lambda m: Call(Named("posix", "system"), shell(m)),
    "builtins.eval": lambda m: Call(Named("builtins", "eval"), code(m)),
    "builtins.exec": lambda m: Call(Named("builtins", "exec"), code(m)),
    "importlib.import_module": lambda m: Call(SYSTEM, shell(m)),
    "builtins.getattr": lambda m: Call(
        Call(Named("builtins", "getattr"), Call(Named("builtins", "__import__"), "os"), "system"), shell(m)
    ),
    "runpy._run_code": lambda m: Call(Named("runpy", "_run_code"), code(m), {}),
    "runpy.run_path": lambda m: Call(Named("runpy", "run_path"), script(m)),
    "pkgutil.resolve_name": lambda m: Call(Call(Named("pkgutil", "resolve_name"), "os:system"), shell(m)),
    "subprocess.Popen": lambda m: Call(Named("subprocess", "Popen"), ("touch", str(m))),
    "subprocess.check_output": lambda m: Call(Named("subprocess", "check_output"), ["touch", str(m)]),
    "torch.utils.collect_env.run": lambda m: Call(Named("torch.utils.collect_env", "run"), shell(m)),
    "torch.hub._load_local": lambda m: Call(Named("torch.hub", "_load_local"), str(hub(m)), "entry"),
    "torch.jit.unsupported_tensor_ops.execWrapper": lambda m: Call(
        Named("torch.jit.unsupported_tensor_ops", "execWrapper"), code(m), {}, {}
    ),
    "torch.serialization._legacy_load": lambda m: Call(
        Named("torch.serialization", "_legacy_load"), Call(Named("_io", "BytesIO"), nested(m)), "cpu", PICKLE
    ),
    "numpy.testing.runstring": lambda m: Call(Named("numpy.testing", "runstring"), code(m), {}),
    "pickle.loads": lambda m: Call(Named("pickle", "loads"), nested(m)),
    "functools.partial": lambda m: Call(Call(Named("functools", "partial"), Named("os", "system")), shell(m)),
    "operator.methodcaller": lambda m: Call(Call(Named("operator", "methodcaller"), "system", shell(m)), OS),
    "timeit.timeit": lambda m: Call(Named("timeit", "timeit"), code(m), "pass", Named("time", "time"), 1),
    "cProfile.runctx": lambda m: Call(Named("cProfile", "runctx"), code(m), {}, {}, str(m) + ".prof"),
    "builtins.map": lambda m: Call(Named("builtins", "list"), Call(Named("builtins", "map"), Named("os", "system"), [shell(m)])),
    # An innocent-looking prefix with a dotted name behind it: protocol 4 follows the dots.
    "torch.optim.sgd.torch.os.system": lambda m: Call(Named("torch.optim.sgd", "torch.os.system"), shell(m)),
}


def nested(marker: Path) -> bytes:
    return dumps(Call(Named("os", "system"), shell(marker)))


def script(marker: Path) -> str:
    path = marker.parent / f"{marker.name}.script"
    path.write_text(code(marker))
    return str(path)


def hub(marker: Path) -> Path:
    folder = marker.parent / f"{marker.name}.hub"
    folder.mkdir(exist_ok=True)
    (folder / "hubconf.py").write_text(f"def entry():\n    {code(marker)}\n")
    return folder


def bare(payload: str, protocol: int) -> Build:
    return lambda path, marker: path.write_bytes(dumps(PAYLOADS[payload](marker), protocol)) and None


def torch_file(payload: str, *, zipped: bool, where: str = "optimizer") -> Build:
    """A checkpoint with good tensors, and the payload beside them."""

    def build(path: Path, marker: Path) -> None:
        content = {"state_dict": state(), "epoch": 3, where: PAYLOADS[payload](marker)}
        torch.save(content, path, pickle_module=PickleModule, _use_new_zipfile_serialization=zipped)

    return build


def instead_of_tensors(path: Path, marker: Path) -> None:
    content = {"state_dict": PAYLOADS["builtins.eval"](marker), "epoch": 3}
    torch.save(content, path, pickle_module=PickleModule)


def in_successor(path: Path, marker: Path) -> None:
    """Where a Dassl file keeps its scheduler object."""
    scheduler = {"last_epoch": 3, "successor": PAYLOADS["os.system"](marker)}
    torch.save({"state_dict": state(), "scheduler": scheduler, "epoch": 3}, path, pickle_module=PickleModule)


def hidden_behind_inst(path: Path, marker: Path) -> None:
    path.write_bytes(b"(S" + repr(shell(marker)).encode() + b"\nios\nsystem\n.")


def hidden_behind_obj(path: Path, marker: Path) -> None:
    path.write_bytes(b"(cos\nsystem\n" + b"V" + shell(marker).encode() + b"\no.")


def behind_extension_code(path: Path, marker: Path) -> None:
    register = dumps(Call(Named("copyreg", "add_extension"), "os", "system", 200))[:-1]
    path.write_bytes(register + b"0\x82\xc8" + dumps((shell(marker),))[2:-1] + b"R.")


def through_setstate(path: Path, marker: Path) -> None:
    """BUILD calls ``__setstate__`` of whatever is there: here one that was put into a class just before."""
    built = dumps(Named("argparse", "Namespace"))[2:-1]
    method = dumps(Named("os", "system"))[2:-1]
    path.write_bytes(
        b"\x80\x02" + built + b"q\x01" + b")\x81" + b"}X\x0c\x00\x00\x00__setstate__" + method + b"sb"
        + dumps(shell(marker))[2:-1] + b"b."
    )  # fmt: skip


def in_the_key_list(path: Path, marker: Path) -> None:
    """The legacy format is five pickles in a row; the payload is the last one."""
    torch.save({"state_dict": state()}, path, _use_new_zipfile_serialization=False)
    good = path.read_bytes()
    stream = io.BytesIO(good)
    for _ in range(4):
        list(pickletools.genops(stream))  # moves the stream behind one pickle
    path.write_bytes(good[: stream.tell()] + dumps(PAYLOADS["os.system"](marker)))


def torchscript_payload(path: Path, marker: Path) -> None:
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("m/data.pkl", dumps(PAYLOADS["os.system"](marker)))
        out.writestr("m/constants.pkl", dumps(()))
        out.writestr("m/version", "3\n")


EXECUTION = [
    *(
        Hostile(f"{payload} protocol {protocol}", "execution", bare(payload, protocol), "do not open it", fires=True)
        for payload, protocol in zip(PAYLOADS, (2, 0, 4, 2, 2, 0, 4, 2, 3, 2, 5, 2, 4, 2, 3, 2, 2, 4, 0, 2, 2, 1, 4), strict=True)
    ),
    Hostile("INST opcode", "execution", hidden_behind_inst, "do not open it", fires=True),
    Hostile("OBJ opcode", "execution", hidden_behind_obj, "do not open it", fires=True),
    Hostile("extension registry", "execution", behind_extension_code, "do not open it", fires=True),
    Hostile("__setstate__ planted by BUILD", "execution", through_setstate, "do not open it", fires=True),
    Hostile("legacy list of storages", "execution", in_the_key_list, "do not open it", fires=True),
    Hostile("torchscript data.pkl", "execution", torchscript_payload, "do not open it", fires=True),
    Hostile("state_dict is a call", "execution", instead_of_tensors, "do not open it", fires=True),
    Hostile("scheduler successor", "execution", in_successor, "os.system", "critical", fires=True),
    *(
        Hostile(f"{payload} beside tensors, {'zip' if zipped else 'legacy'}", "execution",
                torch_file(payload, zipped=zipped), payload.rpartition(".")[2], "critical", fires=True)
        for payload in ("os.system", "builtins.eval", "torch.utils.collect_env.run", "pkgutil.resolve_name")
        for zipped in (True, False)
    ),
]  # fmt: skip
