"""Earlier states of a training: kept in the model file, and used from there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_medseg._types import ModelFileError, finish
from napari_medseg.earlier import states_of
from napari_medseg.inference import Segmenter
from napari_medseg.io import model_file
from napari_medseg.io.model_file import ModelCard, ModelFile, states_in, with_states
from napari_medseg.io.pairs import Pair, gather
from napari_medseg.models.classical import open_classical
from napari_medseg.training.conduct import Conduct
from napari_medseg.training.prompt_tuning import PromptTuning
from napari_medseg.training.snapshots import snapshot_steps
from napari_medseg.training.tuning import tune

SIZE = 64


def pairs():
    """Return three images of a square."""
    rng = np.random.default_rng(0)
    labels = np.zeros((SIZE, SIZE), np.int32)
    labels[20:40, 20:40] = 1
    noisy = [(0.5 * labels + rng.normal(0.2, 0.05, labels.shape)) for _ in range(3)]
    return gather(
        [Pair(f"{i}", x.astype(np.float32)[None], labels) for i, x in enumerate(noisy)]
    )


def settings(sam, **changes):
    """Return the settings of a training of a second or two."""
    few = {"working_size": SIZE, "steps": 6, "views": 1, "validate": 0}
    return PromptTuning(sam=sam, device="cpu", **{**few, **changes})


def trained(sam, **changes):
    """Return a model file with earlier states."""
    return finish(tune(pairs(), settings(sam, **changes))).model_file


def test_states_are_taken_at_steps_that_grow_by_a_factor():
    assert snapshot_steps(5, 81) == (1, 3, 9, 27, 81)
    assert snapshot_steps(12, 200)[:4] == (1, 2, 3, 4)
    assert snapshot_steps(0, 200) == ()
    assert snapshot_steps(30, 4) == (1, 2, 3, 4)


def test_a_model_file_holds_states_and_gives_them_back(tmp_path):
    rng = np.random.default_rng(0)
    states = [{"a": rng.random((2, 3)).astype(np.float32)} for _ in range(3)]
    plain = ModelFile(ModelCard("ptsam", "", ()), {"a": states[-1]["a"]})
    found = states_in(with_states(plain, states))
    for state, back in zip(states, found, strict=True):
        assert back["a"] == pytest.approx(state["a"], abs=1e-3)
    assert with_states(plain, []) is plain
    assert states_in(plain) == []


def test_states_stay_below_a_size(monkeypatch):
    monkeypatch.setattr(model_file, "MAX_STATES", 100)
    states = [{"a": np.full(10, float(i), np.float32)} for i in range(16)]
    plain = ModelFile(ModelCard("ptsam", "", ()), {"a": states[-1]["a"]})
    kept = [state["a"][0] for state in states_in(with_states(plain, states))]
    assert kept == [3, 7, 11, 15]


def test_without_asking_no_states_are_kept(sam):
    assert not [name for name in trained(sam).tensors if name.startswith("states/")]


def test_the_last_state_is_the_model(sam, tmp_path):
    model = trained(sam, snapshots=4)
    path = model_file.save(tmp_path / "a.medseg", model)
    assert path.stat().st_size < 40_000
    segmenter = Segmenter(model_file.load(path), "cpu", sam)
    *earlier, last, now = states_of(segmenter)
    image = pairs()[0].image
    before = segmenter.predict(image).probabilities
    assert len(earlier) == 3
    assert np.abs(earlier[0].predict(image).probabilities - before).max() > 1e-3
    assert last.predict(image).probabilities == pytest.approx(before, abs=2e-2)
    assert now.predict(image).probabilities == pytest.approx(before, abs=1e-2)
    # what a state did leaves the segmenter as it was
    assert (segmenter.predict(image).probabilities == before).all()


def test_a_resumed_training_has_the_states_from_before(sam, tmp_path):
    whole = trained(sam, snapshots=4)
    asked = iter([False] * 3)
    conduct = Conduct(checkpoints=tmp_path, stop=lambda: next(asked, True))
    finish(tune(pairs(), settings(sam, snapshots=4), conduct))
    resumed = finish(
        tune(pairs(), settings(sam, snapshots=4), Conduct(checkpoints=tmp_path))
    ).model_file
    for name, values in whole.tensors.items():
        assert resumed.tensors[name] == pytest.approx(values, abs=1e-6), name


def test_states_that_do_not_fit_are_refused(sam):
    model = trained(sam, snapshots=2)
    wrong = {**model.tensors, "states/decoder_prompts": np.zeros((2, 1, 3, 256))}
    segmenter = Segmenter(replace(model, tensors=wrong), "cpu", sam)
    with pytest.raises(ModelFileError, match="earlier states"):
        states_of(segmenter)


def test_other_segmenters_have_no_states(sam):
    assert states_of(open_classical("otsu")) == ()
    assert states_of(Segmenter(trained(sam), "cpu", sam)) == ()


def test_labels_can_be_doubted_while_states_are_kept(sam):
    config = settings(sam, snapshots=2, label_noise="spatial")
    found = finish(tune(pairs(), config))
    assert len(states_in(found.model_file)) == 2
    assert [item.name for item in found.suspects] == ["0", "1", "2"]
