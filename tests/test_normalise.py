"""What a model sees: the right channels, in [0, 1], whatever the image is."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medseg._config import from_dict, to_dict
from napari_medseg._types import InputError
from napari_medseg.io.images import sample_step
from napari_medseg.io.normalise import (
    Normalisation,
    apply_limits,
    limits,
    normalise,
)

GREY = Normalisation.for_channels(1)
RGB = Normalisation.for_channels(3, rgb=True)


def ramp(channels: int = 1, size: int = 100) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.random((channels, size, size)) * 1000).astype(np.float32)


@pytest.mark.parametrize(
    ("count", "rgb", "channels", "joint"),
    [
        (1, False, (0, 0, 0), False),
        (2, False, (0, 1, 1), False),
        (3, True, (0, 1, 2), True),
        (3, False, (0, 1, 2), False),
        (5, False, (0, 1, 2), False),
    ],
)
def test_usual_channels(
    count: int, rgb: bool, channels: tuple[int, ...], joint: bool
) -> None:
    found = Normalisation.for_channels(count, rgb)
    assert (found.channels, found.joint) == (channels, joint)
    assert from_dict(Normalisation, to_dict(found), "card") == found
    result = normalise(ramp(count), found)
    assert result.shape == (3, 100, 100) and result.dtype == np.float32
    assert result.min() == 0 and result.max() == 1


def test_order_of_values_is_kept() -> None:
    image = ramp()
    result = normalise(image, GREY)[0]
    inside = (result > 0) & (result < 1)
    assert 0.97 < inside.mean() < 0.99
    low, high = np.percentile(image, (1, 99))
    np.testing.assert_allclose(
        result[inside], ((image[0] - low) / (high - low))[inside], atol=1e-5
    )


def test_hot_pixels_do_not_matter() -> None:
    image = ramp()
    hot = image.copy()
    hot[0, 3, 4:7] = 65535
    difference = np.abs(normalise(hot, GREY) - normalise(image, GREY))
    difference[:, 3, 4:7] = 0
    assert difference.max() < 0.01
    assert normalise(hot, GREY)[0, 3, 4] == 1


def test_nan_and_infinity() -> None:
    image = ramp()
    spoilt = image.copy()
    spoilt[0, 0, :4] = np.nan, np.inf, -np.inf, 1e38
    result = normalise(spoilt, GREY)
    assert result[:, 0, :4].tolist() == [[0, 1, 0, 1]] * 3
    np.testing.assert_allclose(result[:, 1:], normalise(image, GREY)[:, 1:], atol=0.01)


@pytest.mark.parametrize("value", [0, 7.5, -3, np.nan, 3e38])
@pytest.mark.parametrize("size", [1, 20])
def test_constant_images_are_black(value: float, size: int) -> None:
    image = np.full((1, size, size), value, np.float32)
    assert not normalise(image, GREY).any()


def test_widest_range_there_is() -> None:
    top = np.finfo(np.float32).max
    image = np.linspace(-1, 1, 10_000, dtype=np.float32).reshape(1, 100, 100) * top
    result = normalise(image, GREY)[0]
    assert result.min() == 0 and result.max() == 1
    assert result[50, 0] == pytest.approx(0.5, abs=0.01)


def test_few_bright_cells_are_seen() -> None:
    image = np.zeros((1, 200, 200), np.float32)
    image[0, 50:56, 50:56] = np.arange(100, 136).reshape(6, 6)
    result = normalise(image, GREY)[0]
    assert result[50:56, 50:56].min() > 0.5
    assert not result[60:].any()


def test_colours_keep_their_hue() -> None:
    image = ramp(3)
    image[1:] /= 4
    result = normalise(image, RGB)
    np.testing.assert_allclose(result[1:].mean() / result[0].mean(), 0.25, atol=0.02)
    apart = normalise(image, Normalisation.for_channels(3))
    np.testing.assert_allclose(apart[1].mean() / apart[0].mean(), 1, atol=0.05)


def test_tiles_take_the_limits_of_the_whole() -> None:
    image = ramp(2)
    image[:, :50] *= 0.2
    chosen = Normalisation(channels=(1, 0, 1))
    whole = normalise(image, chosen)
    found = limits(image, chosen)
    for tile in (np.s_[:, :50, 20:60], np.s_[:, 50:, :7]):
        np.testing.assert_array_equal(
            apply_limits(image[tile], chosen, found), whole[tile]
        )
    np.testing.assert_array_equal(whole[0], whole[2])


def test_a_grey_image_will_do_where_colours_are_asked_for() -> None:
    grey = ramp(1)
    grey[0, 3, 4] = np.nan
    as_colours = np.concatenate([grey] * 3)
    np.testing.assert_array_equal(normalise(grey, RGB), normalise(as_colours, RGB))
    found = limits(grey, RGB)
    np.testing.assert_array_equal(
        apply_limits(grey[:, 7:40], RGB, found), normalise(grey, RGB)[:, 7:40]
    )


@pytest.mark.parametrize("place", range(3))
def test_a_stain_saved_in_one_colour_is_seen_by_a_model_of_grey(place: int) -> None:
    stain = ramp(1)
    colours = np.zeros((3, 100, 100), np.float32)
    colours[place] = stain[0]
    for wanted in (GREY, Normalisation.of_all_channels(1)):
        np.testing.assert_allclose(
            normalise(colours, wanted), normalise(stain, wanted), atol=1e-5
        )


def test_grey_saved_as_colours_is_seen_as_it_was() -> None:
    grey = ramp(1)
    grey[0, 0, :4] = np.nan, np.inf, -np.inf, 0
    as_colours = np.concatenate([grey] * 3)
    np.testing.assert_array_equal(normalise(as_colours, GREY), normalise(grey, GREY))


def test_colours_become_grey_by_their_luminance() -> None:
    colours = ramp(3)
    red, green, blue = colours
    wanted = (0.2126 * red + 0.7152 * green + 0.0722 * blue)[None]
    np.testing.assert_allclose(
        normalise(colours, GREY), normalise(wanted, GREY), atol=1e-5
    )
    # a choice of one channel that is not the only one stays a choice
    second = Normalisation(channels=(1,))
    np.testing.assert_array_equal(
        normalise(colours, second), normalise(colours[1:2], Normalisation((0,)))
    )


def test_missing_channel_gets_a_sentence() -> None:
    with pytest.raises(InputError, match=r"uses channel 3.*has 1 channel\."):
        normalise(ramp(1), Normalisation.for_channels(3))
    with pytest.raises(InputError, match=r"\(C, Y, X\)"):
        normalise(ramp(1)[0], GREY)


@pytest.mark.parametrize(
    "values",
    [
        {"lower": -1.0},
        {"upper": 101.0},
        {"lower": 60.0, "upper": 40.0},
        {"channels": ()},
        {"channels": (0, 1, -1)},
    ],
)
def test_settings_are_checked(values: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Normalisation(**values)  # type: ignore[arg-type]


def test_huge_images_are_sampled() -> None:
    assert sample_step(2000, 2000) == 1
    assert sample_step(1, 10_000_000) == 3
    for rows, columns in ((2001, 2000), (20_000, 20_000), (12_345, 999)):
        step = sample_step(rows, columns)
        assert -(-rows // step) * -(-columns // step) <= 4_000_000
    image = np.random.default_rng(0).random((1, 2100, 2000), dtype=np.float32)
    assert limits(image, GREY) == limits(image[:, ::2, ::2], GREY)
