"""Kill a whole run at a chosen moment. Python imports a module of this name by itself when its folder is on PYTHONPATH,
so the command, its kernels and its loader workers all carry the hook, and the product none.

FAULT="n|seconds|regular expression" kills everything at the n-th audit event of one process that the expression finds
(https://docs.python.org/3/library/audit_events.html: `open`, `os.rename`, `os.remove` with their paths), or so many
seconds after it. An audit event comes before the deed. With FAULT_ALONE, only that one process dies."""
import os
import re
import signal
import sys
import threading

os.environ.setdefault("FAULT_ROOT", str(os.getpid()))      # the first process with the hook is the command


def die():
    "Stop all, then kill all: as near to one moment as it gets."
    if os.environ.get("FAULT_ALONE"): os.kill(os.getpid(), signal.SIGKILL)
    import psutil
    root = psutil.Process(int(os.environ["FAULT_ROOT"]))
    others = [p for p in (root, *root.children(recursive=True)) if p.pid != os.getpid()]
    for how in (signal.SIGSTOP, signal.SIGKILL):
        for p in others:
            try: p.send_signal(how)
            except psutil.NoSuchProcess: pass
    os.kill(os.getpid(), signal.SIGKILL)


def watch(n: int, seconds: float, pattern: re.Pattern) -> None:
    seen = 0

    def hook(event, args):
        nonlocal seen
        if event not in ("open", "os.rename", "os.remove"): return
        if not pattern.search(" ".join(map(str, (event, *args[:2])))): return
        seen += 1
        if seen != n: return
        threading.Timer(seconds, die).start() if seconds else die()
    sys.addaudithook(hook)


if os.environ.get("FAULT"):
    number, seconds, expression = os.environ["FAULT"].split("|", 2)
    watch(int(number), float(seconds), re.compile(expression))
