"JupyterLab as `make lab` starts it: a notebook runs in it, and the browser widget answers clicks."
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import Watched, needs_browser, open_browser
from conftest import ROOT

pytestmark = needs_browser


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextmanager
def open_lab(notebooks: Path, state: Path, *options):
    "The project's JupyterLab on another folder, with nothing of this user's settings; address of a path in it. Ends with all its kernels."
    token, port = secrets.token_hex(16), free_port()
    own = {f"JUPYTER_{n}_DIR": str(state / n.lower()) for n in ("CONFIG", "DATA", "RUNTIME")} | {"JUPYTERLAB_SETTINGS_DIR": str(state / "settings"),
           "JUPYTERLAB_WORKSPACES_DIR": str(state / "workspaces"), "MPLBACKEND": "", "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **own}
    del environment["MPLBACKEND"]            # pictures go into the notebooks
    command = [str(Path(sys.executable).parent / "jupyter"), "lab", f"--config={ROOT / 'lab/config.py'}", "--no-browser", "--allow-root",
               "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={notebooks}", *options]
    with open(state / "log", "w") as log:
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    at = lambda path: f"http://127.0.0.1:{port}/{path}?token={token}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(at("api/status"), timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, (state / "log").read_text()[-3000:]
                time.sleep(.1)
        yield at
    finally:
        if server.poll() is None:
            server.send_signal(signal.SIGTERM)      # it ends its kernels, which have process groups of their own
            try: server.wait(10)
            except subprocess.TimeoutExpired: pass
        try: os.killpg(server.pid, signal.SIGKILL)
        except ProcessLookupError: pass
        server.wait(10)
