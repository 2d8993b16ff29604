"""A run of several modules on every core: when all is collected, processes are forked, and each is dealt whole modules to run.

A module stays in one process, so that what its tests share is made once. What a process reports (outcomes, durations, warnings)
goes through a pipe to the first one, which runs no test itself and prints as if it had. One module, one core, a GPU, a debugger, or
`SSMGEN_TEST_WORKERS=1`: all in one process, as pytest has it.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from types import SimpleNamespace

import pytest

MOST = 8
"""Processes: each holds torch and a few packages, about 1 GiB."""


def wanted(config) -> int:
    """How many processes a run may take."""
    alone = config.option.usepdb or config.option.trace or config.option.collectonly or config.option.capture == "no"
    if alone or sys.platform != "linux" or hasattr(config, "workerinput"):  # a worker of pytest-xdist has its share already
        return 1
    return int(os.environ.get("SSMGEN_TEST_WORKERS", 0)) or min(len(os.sched_getaffinity(0)), MOST)


def units(items: list) -> list[list[int]]:
    """Places in `items` by module, those with most slow tests first: what is long is not begun last."""
    modules: dict[str, list[int]] = {}
    slow: Counter = Counter()
    for place, item in enumerate(items):
        module = item.nodeid.split("::")[0]
        modules.setdefault(module, []).append(place)
        slow[module] += item.get_closest_marker("slow") is not None
    return [modules[module] for module in sorted(modules, key=lambda module: -slow[module])]


@dataclass
class Worker:
    """A forked process as the first one sees it: the tests that it has not reported as finished."""

    process: object
    left: list[int] = field(default_factory=list)


class Told:
    """In a worker, in the terminal's place: what hooks say goes into the pipe."""

    def __init__(self, config, pipe):
        self.config, self.pipe = config, pipe

    def pytest_runtest_logstart(self, nodeid, location):
        self.pipe.send(("pytest_runtest_logstart", {"nodeid": nodeid, "location": location}))

    def pytest_runtest_logfinish(self, nodeid, location):
        self.pipe.send(("pytest_runtest_logfinish", {"nodeid": nodeid, "location": location}))

    def pytest_runtest_logreport(self, report):
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        self.pipe.send(("pytest_runtest_logreport", data))

    def pytest_warning_recorded(self, warning_message, when, nodeid, location):
        # as text: its class may be of a package that only this process has loaded
        said = {key: getattr(warning_message, key) for key in ("filename", "lineno", "line")}
        said |= {"message": str(warning_message.message), "category": warning_message.category.__name__}
        self.pipe.send(("pytest_warning_recorded", {"when": when, "nodeid": nodeid, "location": location, "said": said}))


def _work(session, pipe, inherited) -> None:
    """In a worker: run what is dealt until there is no more."""
    for other in inherited:  # ends of pipes that the first process holds: who holds one too keeps it from closing
        other.close()
    config = session.config
    capture = config.pluginmanager.getplugin("capturemanager")
    capture.stop_global_capturing()  # its files are shared with the process that forked
    capture.start_global_capturing()
    capture.suspend_global_capture()
    config.pluginmanager.unregister(config.pluginmanager.getplugin("terminalreporter"))
    past = SimpleNamespace(send=lambda message: None)  # warnings of the collection come again to a hook that is registered late
    told = Told(config, past)
    config.pluginmanager.register(told)
    told.pipe = pipe
    try:
        while places := pipe.recv():
            for place, following in zip(places, [*places[1:], None]):
                item, after = session.items[place], None if following is None else session.items[following]
                config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            pipe.send(("done", None))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):  # the first process has ended, or ends the run
        pass


def _relay(session, what: str, data) -> None:
    """In the first process: a worker's hook, called here."""
    hook = session.config.hook
    if what == "pytest_runtest_logreport":
        hook.pytest_runtest_logreport(report=hook.pytest_report_from_serializable(config=session.config, data=data))
    elif what == "pytest_warning_recorded":
        said = data.pop("said")
        said["category"] = type(said["category"], (Warning,), {})
        hook.pytest_warning_recorded.call_historic(kwargs={"warning_message": SimpleNamespace(**said, source=None), **data})
    else:
        getattr(hook, what)(**data)


def _crashed(session, item, code: int) -> None:
    """The test that a process ended in has failed, and says so."""
    words = f"the process that ran it ended with code {code}"
    report = pytest.TestReport(item.nodeid, item.location, {}, "failed", words, "call")
    session.config.hook.pytest_runtest_logreport(report=report)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session) -> bool | None:
    waiting = units(session.items)[::-1]
    count = min(wanted(session.config), len(waiting))
    if count < 2 or _has_gpu() or (session.testsfailed and not session.config.option.continue_on_collection_errors):
        return None
    session.config._tmp_path_factory.getbasetemp()  # one folder of all, which the first process locks
    context, workers = get_context("fork"), {}

    def begin() -> None:
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(session, theirs, [*workers, ours]))
        process.start()
        theirs.close()
        workers[ours] = Worker(process)
        deal(ours)

    def deal(pipe) -> None:
        workers[pipe].left = waiting.pop() if waiting else []
        pipe.send(list(workers[pipe].left))
        if not workers[pipe].left:
            workers.pop(pipe).process.join()
            pipe.close()

    try:
        for _ in range(count):
            begin()
        while workers:
            for pipe in connection.wait(list(workers)):
                try:
                    what, data = pipe.recv()
                except EOFError:
                    worker = workers.pop(pipe)
                    worker.process.join()
                    pipe.close()
                    if worker.left:
                        _crashed(session, session.items[worker.left.pop(0)], worker.process.exitcode)
                    waiting += [worker.left] if worker.left else []
                    begin()
                else:
                    if what == "done":
                        deal(pipe)
                    else:
                        _relay(session, what, data)
                        if what == "pytest_runtest_logfinish":
                            workers[pipe].left.pop(0)
                if session.shouldfail:
                    raise session.Failed(session.shouldfail)
                if session.shouldstop:
                    raise session.Interrupted(session.shouldstop)
    finally:
        for worker in workers.values():
            worker.process.kill()
            worker.process.join()
    return True


def _has_gpu() -> bool:
    """Tests share a GPU badly, and its driver does not outlive a fork."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_available()
