"""Cells of a benchmark in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

__all__ = ["in_fresh_process"]


def in_fresh_process(module: str, cell: str, **arguments: Any) -> dict[str, Any]:
    """Measure one cell of a benchmark with ``--cell`` in a process of its own, whose peak memory is the cell's."""
    command = [sys.executable, "-m", module, "--cell", json.dumps({"cell": cell, **arguments})]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603  # our own command
    return dict(json.loads(done.stdout))
