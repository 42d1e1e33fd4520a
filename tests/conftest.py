"""Fixtures that every test has: a home of its own, one thread, no network."""

from __future__ import annotations

import gc
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# Read by torch and its relatives when they are first imported, here and in the
# processes that tests start. Sums in the same order give the same digits, and on small
# images a second thread waits more than it works; a second core has tests of its own.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

# Read by napari when it is first imported: no settings of whoever runs the tests.
os.environ["NAPARI_CONFIG"] = ""

# Before the first window, and after the variables above: software OpenGL and torch's
# compiler bring an LLVM each, and crash where that of torch comes second.
import torchvision  # noqa: E402, F401

_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "ftp_proxy")


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give the tests a home folder, so that they neither read nor write a real one.

    One for all of them: what matplotlib and others cache there takes seconds to make.
    """
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("HOME", "USERPROFILE"):
            patch.setenv(variable, str(home))
        for variable, folder in {
            "APPDATA": "appdata",
            "LOCALAPPDATA": "localappdata",
            "XDG_CACHE_HOME": ".cache",
            "XDG_CONFIG_HOME": ".config",
            "XDG_DATA_HOME": ".local/share",
            "XDG_STATE_HOME": ".local/state",
        }.items():
            patch.setenv(variable, str(home / folder))
        yield home


@pytest.fixture(scope="module", autouse=True)
def _quick_collections() -> None:
    """Take all that is imported by now out of the garbage collector's sight.

    napari has garbage collected whenever a layer goes, and each time the collector
    would look at the million objects that torch and others keep for good.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _weights_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start every test without downloaded weights."""
    monkeypatch.setenv("NAPARI_MEDSEG_WEIGHTS", str(tmp_path / "weights-of-the-test"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection to another computer, by name or by address."""
    for name in _PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex
    getaddrinfo = socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:
        _refuse_remote(self.family, address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        _refuse_remote(self.family, address)
        return connect_ex(self, address)

    def guarded_getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        _refuse_remote(socket.AF_INET, (host,))
        return getaddrinfo(host, *args, **options)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_getaddrinfo)


def _refuse_remote(family: int, address: Any) -> None:
    """Raise unless the address is on this computer."""
    if family not in (socket.AF_INET, socket.AF_INET6):
        return  # a pipe or a file
    host = address[0].decode() if isinstance(address[0], bytes) else address[0]
    local = host in (None, "", "localhost", "::1", socket.gethostname())
    if not local and not str(host).startswith("127."):
        # no OSError, which the code under test might take for a network that is down
        raise AssertionError(f"a test reaches for the network: {host}")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real image sets, one folder each; skip where there is none.

    ``NAPARI_MEDSEG_DATA`` names it; otherwise it is ``shared/data`` beside the
    checkout. Each set has ``images`` and ``masks``.
    """
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("NAPARI_MEDSEG_DATA") or beside)
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}; NAPARI_MEDSEG_DATA can name them")
    return folder


@pytest.fixture(scope="session")
def sam(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the path of a ``nano`` with random weights."""
    # a fixture that few tests need shall not bring torch to all of them
    from networks import save_fresh_nano

    return str(
        save_fresh_nano(tmp_path_factory.mktemp("at home") / "random.safetensors")
    )
