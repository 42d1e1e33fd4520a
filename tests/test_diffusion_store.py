"""Diffusion models by folder: imported, fetched from a server here, and used."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import torch
from diffusion_models import save_diffusion
from folders import assert_refused, command
from safetensors.torch import load_file, save_file

from napari_medseg._types import InputError, MedsegError, WeightsError, finish
from napari_medseg.engine.jobs import Context
from napari_medseg.engine.segmenting import forget, relabel, segment
from napari_medseg.io.images import read_annotation
from napari_medseg.models import diffusion, diffusion_store
from napari_medseg.models.diffusion_registry import DIFFUSIONS, DiffusionEntry
from napari_medseg.models.weights_file import WeightsFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Compute on one thread: the networks are so small that others only wait."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_diffusion(tmp_path_factory.mktemp("diffusion") / "small", pixels=2)


@pytest.fixture
def copied(source: Path, tmp_path: Path) -> Path:
    return shutil.copytree(source, tmp_path / "mine")


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 90, (48, 60)).astype(np.uint8)
    image[10:30, 15:40] += 150
    return image


# ------------------------------------------------------------------------- import


def test_a_folder_is_imported_and_found_by_name(source: Path) -> None:
    assert diffusion_store.here() == []
    (source / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    folder = diffusion_store.import_folder(source)
    assert diffusion_store.here() == ["small"]
    assert diffusion_store.find("small") == diffusion_store.find("") == folder
    there = {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    }
    assert there == {
        "medseg.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    }
    # the note spares reading all files again
    assert diffusion_store.digest_of(folder) == diffusion_store.digest_of(source)
    assert diffusion_store.import_folder(source) == folder
    (source / "unet" / "diffusion_pytorch_model.bin").unlink()


@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_that_lies_where_it_belongs_stays(
    source: Path, copied: Path, replace: bool
) -> None:
    folder = diffusion_store.import_folder(source, "mine")
    before = {path for path in folder.rglob("*") if path.is_file()}
    if replace:
        config = folder / "unet" / "config.json"
        config.write_text(config.read_text() + "\n")
    assert diffusion_store.import_folder(folder, replace=replace) == folder
    assert {path for path in folder.rglob("*") if path.is_file()} == before
    assert diffusion_store.find("mine") == folder


def test_another_model_of_a_name_is_not_replaced_unasked(
    source: Path, copied: Path
) -> None:
    diffusion_store.import_folder(source, "mine")
    vocabulary = copied / "tokenizer" / "merges.txt"
    vocabulary.write_text(vocabulary.read_text() + "z z\n")
    with pytest.raises(InputError, match="already"):
        diffusion_store.import_folder(copied)
    for name in ("sd15", "../up", ""):
        with pytest.raises(InputError, match="cannot be the name"):
            diffusion_store.import_folder(source, name)


def spoil(folder: Path, what: str) -> None:
    unet = folder / "unet"
    weights = unet / "diffusion_pytorch_model.safetensors"
    config = json.loads((unet / "config.json").read_text())
    if what == "no unet":
        shutil.rmtree(unet)
    elif what == "pickle":
        weights.rename(unet / "diffusion_pytorch_model.bin")
    elif what == "cut":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif what == "class":
        config["_class_name"] = "UNet3DConditionModel"
    elif what == "width":
        config["cross_attention_dim"] = 24
    elif what == "blocks":
        config["layers_per_block"] = 2
    elif what == "weight":
        state = load_file(weights)
        state.pop("conv_in.bias")
        save_file(state, weights)
    elif what == "no words":
        (folder / "tokenizer" / "vocab.json").unlink()
    elif what == "no config":
        (folder / "text_encoder" / "config.json").unlink()
    if unet.is_dir():
        (unet / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("no unet", "no folder unet"),
        ("pickle", "may hold programs"),
        ("cut", "damaged"),
        ("class", "not a UNet2DConditionModel"),
        ("width", "damaged|not whole|shape"),
        ("blocks", "damaged or of another kind"),
        ("weight", "conv_in.bias is missing"),
        ("no words", "vocab.json is missing"),
        ("no config", "config.json is missing"),
    ],
)
def test_what_is_no_model_gets_a_sentence(copied: Path, what: str, told: str) -> None:
    spoil(copied, what)
    with pytest.raises(WeightsError, match=told):
        diffusion_store.import_folder(copied)
    assert diffusion_store.here() == []


def test_without_the_libraries_a_sentence_says_what_to_install(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(diffusion, "import_module", missing)
    with pytest.raises(MedsegError, match=r"napari-medseg\[text\]"):
        diffusion.read_diffusion(source)


def test_a_model_that_is_not_here_gets_a_sentence() -> None:
    for name in ("", "sd15"):
        with pytest.raises(WeightsError, match="models fetch sd15"):
            diffusion_store.find(name)
    with pytest.raises(InputError, match="no diffusion model named 'sd16'"):
        diffusion_store.find("sd16")


def test_the_table_names_every_file_with_its_hash() -> None:
    for entry in DIFFUSIONS.values():
        assert entry.licence_note
        assert entry.licence_url.startswith("https://")
        for file in entry.files:
            assert diffusion_store.is_taken(file.name)
            assert len(file.sha256 or "") == 64
            assert file.bytes
            assert str(file.url).startswith("https://")
            assert str(file.url).endswith(file.name)


# -------------------------------------------------------------------------- fetch


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def entry(source: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DiffusionEntry]:
    """A known model, served on this computer."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(source))
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    files = []
    for path in sorted(source.glob("*/*")):
        name, content = f"{path.parent.name}/{path.name}", path.read_bytes()
        files.append(
            WeightsFile(
                name=name,
                url=f"http://127.0.0.1:{server.server_port}/{name}",
                sha256=hashlib.sha256(content).hexdigest(),
                bytes=len(content),
                licence="CC0-1.0",
                licence_note="Nobody's.",
            )
        )
    known = replace(DIFFUSIONS["sd15"], files=tuple(files))
    for module in ("diffusion_store", "diffusion_registry"):
        monkeypatch.setattr(
            f"napari_medseg.models.{module}.DIFFUSIONS", {"sd15": known}
        )
    monkeypatch.setattr("napari_medseg.cli.models.DIFFUSIONS", {"sd15": known})
    yield known
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_model_is_fetched_after_its_licence_is_agreed_to(
    entry: DiffusionEntry,
) -> None:
    refused = command("models", "fetch", "sd15")
    assert refused.exit_code == 2
    assert "Open RAIL-M" in refused.output
    assert "--accept-licence" in refused.output
    assert diffusion_store.here() == []
    done = command("models", "fetch", "sd15", "--accept-licence")
    assert done.exit_code == 0, done.output
    assert "Open RAIL-M" in done.output
    assert diffusion_store.here() == ["sd15"]
    folder = diffusion_store.find("")
    assert diffusion.read_diffusion(folder).grid == 16
    assert diffusion_store.note_of(folder)["licence"] == entry.licence
    told = command("models", "info", "sd15", "--json")
    assert json.loads(told.stdout)["folder"] == str(folder)


def test_a_file_that_is_not_as_published_is_refused(entry: DiffusionEntry) -> None:
    wrong = replace(entry.files[-1], sha256="0" * 64)
    spoilt = replace(entry, files=(*entry.files[:-1], wrong))
    with pytest.raises(WeightsError, match="SHA-256"):
        finish(diffusion_store.fetch(spoilt, pause=0.0))
    assert diffusion_store.here() == []
    # what is whole is not fetched again
    assert finish(diffusion_store.fetch(entry, pause=0.0)).name == "sd15"
    assert diffusion_store.here() == ["sd15"]


def test_a_known_model_is_recognised_in_a_folder(
    entry: DiffusionEntry, copied: Path
) -> None:
    assert diffusion_store.import_folder(copied).name == "sd15"


# ----------------------------------------------------------------------- commands


def test_a_phrase_from_the_command_line(
    source: Path, tmp_path: Path, scene: np.ndarray
) -> None:
    image, out, parts = (tmp_path / name for name in ("i.tif", "o.tif", "s.tif"))
    tifffile.imwrite(image, scene)
    done = command("models", "import", str(source), "--name", "mine")
    assert done.exit_code == 0, done.output
    asked = ("prompt", str(image), "--out", str(out), "--tau", "0.5", "--json")
    done = command(*asked, "--text", "infected wound", "--segments", str(parts))
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    labels, segments = read_annotation(out).labels, read_annotation(parts).labels
    chosen = [row["segment"] for row in told["segments"] if row["chosen"]]
    assert 0 < len(chosen) < len(told["segments"])
    np.testing.assert_array_equal(labels == 1, np.isin(segments, chosen))
    assert told["area_px"] == int(labels.sum())
    # a click takes a segment away, another one adds one
    inside, beside = np.argwhere(labels == 1)[0], np.argwhere(labels == 0)[0]
    places = ("--points", f"{beside[0]},{beside[1]}")
    places = (*places, "--negative", f"{inside[0]},{inside[1]}", "--overwrite")
    done = command(*asked, "--text", "infected wound", *places)
    assert done.exit_code == 0, done.output
    changed = read_annotation(out).labels
    wanted = {*chosen, segments[tuple(beside)]} - {segments[tuple(inside)]}
    np.testing.assert_array_equal(changed == 1, np.isin(segments, list(wanted)))
    # folders get the same
    folder = tmp_path / "results"
    name = "infected wound; tau=0.5"
    words = ("segment", str(image), "--out", str(folder), "--model", "mine")
    done = command(*words, "--text", "infected wound")
    assert done.exit_code == 0, done.output
    done = command(*words[:-1], f"phrase:{name}", "--redo")
    assert done.exit_code == 0, done.output
    (found,) = folder.glob("*.tif")
    np.testing.assert_array_equal(read_annotation(found).labels, labels)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--text", "x", "--boxes", "1,1,5,5"), "--boxes, --each and --idea"),
        (("--tau", "1", "--points", "1,1"), "add --text"),
        (("--text", "x", "--tau", "9"), "at most 5"),
        (("--text", "x"), "models fetch sd15"),
    ],
)
def test_wrong_options_get_a_sentence(
    tmp_path: Path, scene: np.ndarray, given: tuple[str, ...], told: str
) -> None:
    tifffile.imwrite(tmp_path / "i.tif", scene)
    out = str(tmp_path / "o.tif")
    assert_refused(
        command("prompt", str(tmp_path / "i.tif"), "--out", out, *given), told
    )


# ------------------------------------------------------------------------- engine


def test_tau_and_clicks_act_on_what_is_kept(source: Path, scene: np.ndarray) -> None:
    context = Context()
    asked = {
        "key": "k",
        "objects": None,
        "model": f"phrase:nuclei; model={source}",
        "device": "cpu",
        "phrase": {"tau": 0.5, "clicks": {}},
    }
    image = scene[None].astype(np.float32)
    first = finish(segment(asked | {"image": image}, context))
    again = {"key": "k", "objects": None}
    fewer = finish(relabel(again | {"phrase": {"tau": 1.0}}, context))
    assert fewer["segments"].max() < first["segments"].max()
    back = finish(relabel(again | {"phrase": {"tau": 0.5}}, context))
    np.testing.assert_array_equal(back["labels"], first["labels"])
    row, column = (int(each) for each in np.argwhere(first["labels"] == 0)[0])
    clicks = {"k": [[row, column, True]], "other": [[0, 0, False]]}
    given = {"tau": 0.5, "clicks": clicks}
    added = finish(relabel(again | {"phrase": given}, context))["labels"]
    segments = first["segments"]
    wanted = (first["labels"] == 1) | (segments == segments[row, column])
    np.testing.assert_array_equal(added == 1, wanted)
    # another phrase does not read the model again
    model = context.shelf.get("diffusion", f"cpu {source}")
    other = asked | {"model": f"phrase:wound; model={source}", "image": image}
    finish(segment(other, context))
    assert context.shelf.get("diffusion", f"cpu {source}") is model
    finish(forget({"key": "k"}, context))
    assert context.shelf.get("partition", "k") is None


# --------------------------------------------------------- files as they are published


def older(state: dict[str, torch.Tensor], part: str) -> dict[str, torch.Tensor]:
    """Return weights in 16 bits, under the names of Stable Diffusion's own files."""
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    found = {}
    for key, weights in state.items():
        name = f"text_model.{key}" if part == "text_encoder" else key
        for new, old in names.items() if part == "vae" else ():
            name = name.replace(f".attentions.0.{new}.", f".attentions.0.{old}.")
        found[name] = weights.half()
    if part == "text_encoder":
        found["text_model.embeddings.position_ids"] = torch.arange(12)[None]
    return found


def test_files_of_older_versions_in_16_bits_are_read(tmp_path: Path) -> None:
    folder = save_diffusion(tmp_path / "model")
    new = diffusion.read_diffusion(folder)
    for part in ("unet", "vae", "text_encoder"):
        path = diffusion.weights_file(folder / part)
        half = path.with_suffix(".fp16.safetensors")
        save_file(older(load_file(path), part), half, metadata={"format": "pt"})
        path.unlink()
    old = diffusion.read_diffusion(folder)
    image = torch.rand(1, 3, old.side, old.side)
    torch.testing.assert_close(
        old.latent(image), new.latent(image), rtol=0.05, atol=0.01
    )
    states = old.states(["wound"]).float()
    torch.testing.assert_close(states, new.states(["wound"]), rtol=0.1, atol=0.1)
    imported = diffusion_store.import_folder(folder)
    assert diffusion.weights_file(imported / "vae").name.endswith(".fp16.safetensors")
