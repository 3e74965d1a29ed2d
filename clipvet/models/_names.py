"""Which names in a pickle mean what: those that are understood, and those that ordinary training files carry.

Standard library only (the child process imports it).
"""

from __future__ import annotations

import re

__all__ = ["DTYPES", "ENVELOPES", "NUMPY_DTYPES", "STORAGES", "clean", "is_interpreted", "is_ordinary"]

ENVELOPES = ("state_dict", "model_state_dict", "model", "weights")

# Bytes per element, by torch's name of the dtype.
DTYPES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "uint16": 2,
    "uint32": 4,
    "uint64": 8,
    "bool": 1,
    "complex64": 8,
    "complex128": 16,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
}

STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}

NUMPY_DTYPES = {
    "f8": "float64",
    "f4": "float32",
    "f2": "float16",
    "i8": "int64",
    "i4": "int32",
    "i2": "int16",
    "i1": "int8",
    "u1": "uint8",
    "u2": "uint16",
    "u4": "uint32",
    "u8": "uint64",
    "b1": "bool",
    "c8": "complex64",
    "c16": "complex128",
}

_BUILTINS = "dict list tuple set frozenset int float complex str bytes bytearray bool object slice range"

# Names that the reader itself gives a meaning to: they never reach Python's own machinery, so they are not reported.
_INTERPRETED = re.compile(
    r"collections\.OrderedDict"
    rf"|(builtins|__builtin__)\.({'|'.join(_BUILTINS.split())})"
    r"|_codecs\.encode"
    r"|(copyreg|copy_reg)\._reconstructor"
    rf"|torch(\.storage|\.cuda)?\.({'|'.join(STORAGES)}|TypedStorage)"
    rf"|torch\.({'|'.join(DTYPES)}|Size|Tensor|device)"
    r"|torch\._utils\._rebuild_(tensor|tensor_v2|tensor_v3|parameter|parameter_with_state)"
    r"|torch\._tensor\._rebuild_from_type_v2"
    r"|torch\.nn\.parameter\.(Parameter|Buffer)"
    r"|torch\.jit\._pickle\.(restore_type_tag|build_(intlist|tensorlist|doublelist|boollist))"
    r"|numpy\.(dtype|ndarray)"
    r"|numpy\.(core|_core)\.multiarray\.(_reconstruct|scalar)"
    r"|numpy\.(core|_core)\.numeric\._frombuffer"
    r"|__torch__\.[\w.]+"
)

# Names that training code leaves in its files, and that do nothing when an unpickler calls them: plain classes only.
_ORDINARY = re.compile(
    r"torch\.optim\.(\w+\.)?[A-Z]\w*"
    r"|torch\.nn\.modules\.\w+\.[A-Z]\w*"
    r"|collections\.(defaultdict|Counter|deque)"
    r"|numpy\.(bool_?|(u?int|float|complex)\d*)"
    r"|numpy\.dtypes\.[A-Z]\w*"
    r"|argparse\.Namespace"
    r"|yacs\.config\.CfgNode"
    r"|omegaconf\.\w+\.[A-Z]\w*"
    r"|typing\.Any"
    r"|datetime\.(datetime|date|timedelta)"
    r"|pathlib\.(Posix|Windows|PurePosix|PureWindows)?Path"
)


def is_interpreted(name: str) -> bool:
    """Say whether ``module.name`` is one that the reader gives a meaning to."""
    return _INTERPRETED.fullmatch(name) is not None


def is_ordinary(name: str) -> bool:
    """Say whether ``module.name`` is one that ordinary training files carry."""
    return _ORDINARY.fullmatch(name) is not None


def clean(text: str, length: int = 200) -> str:
    """Foreign text made fit to print: control characters and lone surrogates escaped, cut at ``length``."""
    shown = text[:length] if text.isprintable() else ascii(text[:length])[1:-1]
    return shown if len(text) <= length else f"{shown}..."
