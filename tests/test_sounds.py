"""Sounds as pictures and as something to hear: frequencies, decibels and lengths are those of the sound."""

import numpy as np
import pytest
from moving import RATE, sound, tone

from diffexplore.looks import sounds, views
from diffexplore.looks.sounds import FLOOR, PLOT, SIZE, lighter, mel_spectrogram


@pytest.mark.parametrize("hertz", [300.0, 1000.0, 5000.0])
def test_a_tone_is_one_line_at_its_frequency_and_its_level(hertz: float) -> None:
    decibels, middles = mel_spectrogram(tone(hertz, loud=0.1), RATE, 120)
    assert decibels.shape == (96, 120)
    loudest = decibels[:, 60].argmax()
    apart = np.diff(middles)[loudest - 1]
    assert abs(middles[loudest] - hertz) <= apart
    assert decibels[loudest, 60] == pytest.approx(-20, abs=3), "a tenth of full scale"
    assert decibels[:, 60].min() < FLOOR


def test_the_bands_are_even_in_mel() -> None:
    _, middles = mel_spectrogram(tone(100), RATE, 10)
    mel = 2595 * np.log10(1 + middles / 700)
    np.testing.assert_allclose(np.diff(mel), np.diff(mel)[0])
    assert 0 < middles[0] < middles[-1] < RATE / 2


def test_silence_and_sounds_of_a_few_samples_have_pictures() -> None:
    for samples, rate in ((np.zeros((2, RATE)), RATE), (np.zeros((2, 7)), 4), (np.ones((1, 1)), 44_100)):
        assert sounds.heard(samples, rate).shape == (SIZE[1], SIZE[0], 3)


def test_what_begins_later_lies_further_right() -> None:
    late = np.concatenate([np.zeros((1, RATE)), tone(1000)], axis=1)
    colours = sounds.heard(late, RATE)[100:280, PLOT[0] : PLOT[1]].astype(int).sum(axis=2).max(axis=0)
    middle = len(colours) // 2
    assert colours[middle + 20 : -10].min() > 2 * colours[10 : middle - 20].max()


def test_every_view_of_a_sound_has_one_size_and_shows_latents_as_they_are() -> None:
    trace = sound()
    for kind in views.KINDS:
        assert views.frame(trace, kind, 1).shape == (320, 640, 3)
    assert trace.view("x0", 1, size=320).size == (320, 160)
    # A row for each channel and frequency, low ones at the bottom of a channel; grey is zero.
    table = sounds.table(trace, "latents", 1)
    assert table.shape == (8, 16, 25)
    unit = trace[1].latents / np.hypot(trace[1].a, trace[1].b)
    np.testing.assert_allclose(table, unit.numpy().transpose(0, 2, 1), rtol=1e-5)
    pixels = views.frame(trace, "latents", 1)
    first = pixels[9, PLOT[0] + 2]
    assert first[0] == pytest.approx(np.clip(0.5 + 0.2 * table[0, 15, 0], 0, 1) * 255, abs=1)
    assert np.all(views.frame(trace, "change", 0) == 128), "there is none before"
    trace.decode = None
    assert not np.array_equal(views.frame(trace, "x0", 1), views.frame(trace, "latents", 1))


def test_a_lighter_sound_keeps_its_length_its_pitch_and_its_level_while_there_is_room() -> None:
    stereo = np.concatenate([tone(440, 2), tone(440, 2)])
    same, rate = lighter(stereo, RATE, 10**6)
    assert rate == RATE
    np.testing.assert_allclose(same, stereo, atol=1e-6)
    light, rate = lighter(stereo, RATE, 40_000)
    assert (light.shape, rate) == ((1, 16_000), 8000)
    np.testing.assert_allclose(light[0], stereo[0, ::2], atol=0.02)
    cut, rate = lighter(stereo, RATE, 8000)
    assert (cut.shape, rate) == ((1, 4000), 8000)
    many, rate = lighter(np.zeros((2, 7)), 4, 10**6)
    assert (many.shape, rate) == ((2, 14_000), 8000)
