"""Run the tests and the lint checks from a bare checkout: ``python3 run_tests.py``.

Needs Python and a network alone. Everything is installed below ``.nox/``: first
nox, then, by the sessions of ``noxfile.py``, the project with its dependencies. Any
arguments go to pytest: ``python3 run_tests.py -k pairs``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
BOOTSTRAP = ROOT / ".nox" / "bootstrap"
SCRIPTS = BOOTSTRAP / ("Scripts" if os.name == "nt" else "bin")
PYTHON = SCRIPTS / ("python.exe" if os.name == "nt" else "python")


def main(arguments: list[str]) -> int:
    """Run the sessions and return the exit code."""
    if sys.version_info < (3, 11):  # noqa: UP036 - nothing has checked it yet
        print(f"napari-medseg needs Python 3.11 or later; this is {sys.version}.")
        return 2
    if not provide_nox():
        return 2
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    sessions = [f"tests-{version}"] if arguments else [f"tests-{version}", "lint"]
    # nox looks for "python3.11" by name, and this very Python shall be found first
    path = os.pathsep.join([str(SCRIPTS), os.environ.get("PATH", os.defpath)])
    command = [str(PYTHON), "-m", "nox", "--sessions", *sessions, "--", *arguments]
    return run(command, env={**os.environ, "PATH": path})


def provide_nox() -> bool:
    """Install nox into an environment of its own, unless it is there already."""
    if PYTHON.exists() and run([str(PYTHON), "-m", "nox", "--version"]) == 0:
        return True
    create = [sys.executable, "-m", "venv", "--clear", str(BOOTSTRAP)]
    # Debian ships Python without the means to make environments
    if run(create) != 0 and not (install_venv() and run(create) == 0):
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        print(
            "This Python cannot make virtual environments. On Debian or Ubuntu install "
            f"what it lacks with: sudo apt-get install {version}-venv; then run this "
            "again."
        )
        return False
    return run([str(PYTHON), "-m", "pip", "install", "--quiet", "nox"]) == 0


def install_venv() -> bool:
    """Install Debian's package of ``venv``, where this user may."""
    if os.name == "nt" or os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    run(["apt-get", "update", "-q"])
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", package]
    return run(install, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}) == 0


def run(command: list[str], env: dict[str, str] | None = None) -> int:
    """Run a command in the checkout, without input, and return its exit code."""
    sys.stdout.flush()
    return subprocess.run(
        command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
