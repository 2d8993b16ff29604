"""Programs that run where Triton interprets kernels, which must be chosen before it is imported: each in a process of its own.

All are forked from one that has imported what they need: that takes longer than many of them run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import traceback
from functools import cache
from pathlib import Path


def printed(program: str) -> str:
    """What a program prints. An assertion fails with its last words when it does not end well."""
    with tempfile.TemporaryDirectory() as folder:
        files = [f"{folder}/{name}" for name in ("out", "err")]
        server = _server()
        server.stdin.write(json.dumps([program, *files]) + "\n")
        server.stdin.flush()
        answer = server.stdout.readline()
        out, err = (Path(file).read_text(encoding="utf-8") if answer else "" for file in files)
    assert answer == "0\n", f"ended with {answer.strip() or 'the process that forks'}: {err[-3000:]}"
    return out.strip()


@cache
def _server() -> subprocess.Popen:
    """Of this process: it ends when its standard input does."""
    here = Path(__file__).resolve()
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": f"{here.parents[1]}{os.pathsep}{here.parent}"}
    return subprocess.Popen([sys.executable, str(here)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def _serve() -> None:
    import fast_interpreter
    import test_kernels  # with torch and all that compiles

    fast_interpreter.install()
    with tempfile.TemporaryDirectory() as folder:
        test_kernels.write(test_kernels.SPECS["echo"], Path(folder))  # so does a first build: passes are imported when they run
    for line in sys.stdin:
        program, *files = json.loads(line)
        child = os.fork()
        if not child:
            os._exit(_run(program, files))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _run(program: str, files: list[str]) -> int:
    """In a child: its exit status."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
    try:
        exec(program, {"__name__": "__main__"})
        code = 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    _serve()
