"""The checks of this project: ``nox -l`` lists them, ``nox -s NAME`` runs one.

``python3 run_tests.py`` runs the tests and ``lint`` from a bare checkout.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from pathlib import Path

import nox

PROJECT = nox.project.load_toml("pyproject.toml")
THIS = f"{sys.version_info.major}.{sys.version_info.minor}"
PYTHONS = list(dict.fromkeys(["3.11", "3.12", "3.13", THIS]))

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
# torch alone is gigabytes: an environment that is there is updated, not remade
nox.options.reuse_venv = "yes"
nox.options.sessions = [f"tests-{THIS}"]

LIBRARIES = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libX11-xcb.so.1": "libx11-xcb1",
    "libdbus-1.so.3": "libdbus-1-3",
    "libfontconfig.so.1": "libfontconfig1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxcb-glx.so.0": "libxcb-glx0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-image.so.0": "libxcb-image0",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxcb-randr.so.0": "libxcb-randr0",
    "libxcb-render-util.so.0": "libxcb-render-util0",
    "libxcb-shape.so.0": "libxcb-shape0",
    "libxcb-sync.so.1": "libxcb-sync1",
    "libxcb-xfixes.so.0": "libxcb-xfixes0",
    "libxcb-xkb.so.1": "libxcb-xkb1",
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
    "libxkbcommon.so.0": "libxkbcommon0",
}
"""What Qt and OpenGL load on Linux, with the Debian package of each."""


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Install the project as a user does and run every test."""
    _install_project(session, ".[test]")
    _run_pytest(session)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format and types."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy", "--python-executable", _python_with_dependencies(session))


@nox.session(python="3.11", venv_backend="uv", reuse_venv=False)
def lowest(session: nox.Session) -> None:
    """Run every test with the oldest dependencies that pyproject.toml allows."""
    _install_project(session, "--resolution", "lowest-direct", ".[test]")
    # old releases warn about each other; here only what they do counts
    _run_pytest(session, "-W", "default")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; ``nox -s docs -- serve`` shows it while it changes."""
    # the pages are made from the source alone: without the package, without torch
    session.install(*PROJECT["project"]["optional-dependencies"]["docs"])
    quiet = {"NO_MKDOCS_2_WARNING": "1"}
    session.run("mkdocs", *(session.posargs or ["build", "--strict"]), env=quiet)


@nox.session
def build(session: nox.Session) -> None:
    """Build the source archive and the wheel and check what they say of themselves."""
    session.install("build", "twine")
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build")
    session.run("twine", "check", "--strict", *map(str, Path("dist").iterdir()))


def _install_project(session: nox.Session, *what: str) -> None:
    """Install the project from the checkout, also where an older copy is there."""
    # uv takes a checkout for unchanged as long as pyproject.toml is
    again = ["--reinstall-package", PROJECT["project"]["name"]]
    session.install(*(again if session.venv_backend == "uv" else []), *what)


def _run_pytest(session: nox.Session, *options: str) -> None:
    """Run pytest in two processes side by side; ``nox -s tests -- -n 0`` uses one.

    Where Linux has no screen, each has a virtual one of its own: the focus and the
    clipboard of one screen belong to one window at a time.
    """
    env = {"QT_API": "pyside6"}
    process = "popen"
    if sys.platform.startswith("linux"):
        screenless = not os.environ.get("DISPLAY")
        _provide_libraries(session, screenless=screenless)
        if screenless:
            # not Qt's "offscreen" platform, which has no OpenGL for napari
            env |= {"QT_QPA_PLATFORM": "xcb", "LIBGL_ALWAYS_SOFTWARE": "1"}
            screen = "'-screen 0 1280x1024x24 +extension GLX'"
            process += f"//python=xvfb-run -a -s {screen} python"
    # half of the files each, and whoever is done takes over some of the other's
    side_by_side = ["--tx", f"2*{process}", "--dist", "worksteal"]
    pytest = ["python", "-m", "pytest", "--durations=10", *side_by_side]
    session.run(*pytest, *options, *session.posargs, env=env)


def _provide_libraries(session: nox.Session, *, screenless: bool) -> None:
    """Install the system's part of Qt and OpenGL, or say how to."""
    missing = [name for library, name in LIBRARIES.items() if not _loads(library)]
    if screenless and not (shutil.which("xvfb-run") and shutil.which("xauth")):
        missing += ["xvfb", "xauth"]
    if screenless and missing:
        missing.append("libgl1-mesa-dri")  # OpenGL in software
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        session.error(
            "The tests open napari windows, for which this computer lacks system "
            "libraries. On Debian or Ubuntu install them with: sudo apt-get install "
            f"{' '.join(missing)} (elsewhere, the packages with the same libraries)."
        )
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    # 100: one of several sources could not be read, which need not matter
    session.run("apt-get", "update", "-q", external=True, success_codes=[0, 100])
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends"]
    session.run(*install, *missing, external=True, env=quiet)


def _loads(library: str) -> bool:
    """Tell whether the dynamic linker finds a library."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _python_with_dependencies(session: nox.Session) -> str:
    """Return a Python with torch and napari installed, for mypy to read their types.

    That of the tests where there is one, so that nothing large is installed twice.
    """
    environment = Path(session.virtualenv.location)
    scripts = Path(session.bin).relative_to(environment)
    beside = environment.with_name(f"tests-{THIS.replace('.', '-')}") / scripts
    python = shutil.which("python", path=str(beside))
    if python is None:
        _install_project(session, ".[test]")
        python = shutil.which("python", path=session.bin)
    return str(python)
