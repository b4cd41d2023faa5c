"""Whether words look where they should: composed pictures, whose subject's place is known, and the maps of their words.

Each of `count` scenes is painted three times, with the subject as it is, white and black: where the last two differ is
the subject's true mask. The picture gets noise up to a share of its variance, the model is asked for the noise with a
caption, and the *overlap* of a word is the part of its attention that falls on the mask. The same is measured of a word
drawn at random from the others of the caption.

    python -m diffexplore.pocket.factory.gaze --art package --count 100
"""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from diffexplore.model import Model, load
from diffexplore.pocket import world
from diffexplore.pocket.factory.scenes import Art, draw
from diffexplore.progress import progress
from diffexplore.record.heat import SINKS
from diffexplore.settings import Settings

__all__ = ["Gaze", "caption", "masked", "measure"]

MINOR = frozenset(("a", "an", "the", "in", "at", "on", "under", "of", "by", "among", "during"))


class Gaze(NamedTuple):
    """What was found of one picture; each part of attention from 0 to 1.

    Attributes:
        prompt: what the model was told.
        area: the part of the picture that the subject covers: the overlap of a map that is even.
        subject: the overlap of the subject's words.
        other: that of a word drawn from the others.
        word: which that was.
    """

    prompt: str
    area: float
    subject: float
    other: float
    word: str


class _Dyed(Art):
    """The same shapes in one colour."""

    def __init__(self, art: Art, shade: int) -> None:
        super().__init__(art.folder)
        self._shade = shade

    def _cutout(self, subject: str, longest: int) -> Image.Image:
        shape = super()._cutout(subject, longest)
        dyed = Image.new("RGBA", shape.size, (self._shade,) * 3)
        dyed.putalpha(shape.getchannel("A"))
        return dyed


def masked(scene: world.Scene, art: Art, seed: int) -> tuple[Image.Image, np.ndarray]:
    """A picture of a scene, and how far each of its pixels is the subject, (H, W) from 0 to 1.

    Args:
        scene: what is painted; without a paint of its own in the two that are compared, since that would hide them.
        art: the cut-outs.
        seed: of the painting.
    """
    picture = draw(scene, art, np.random.default_rng(seed))
    plain = dataclasses.replace(scene, colour=None)
    white, black = (draw(plain, _Dyed(art, shade), np.random.default_rng(seed)).astype(float) for shade in (255, 0))
    apart = np.abs(white - black).mean(-1)
    return Image.fromarray(picture), np.clip(apart / max(float(apart.max()), 1.0), 0, 1)


def caption(scene: world.Scene) -> str:
    """A scene in plain words, all of it said."""
    what = " ".join(part for part in (scene.colour, scene.subject) if part)
    where = world.SETTINGS[scene.setting][0] if scene.setting else ""
    when = world.LIGHTS[scene.light][0] if scene.light else ""
    return " ".join(part for part in (world.article(what), what, where, when) if part)


def measure(model: Model, art: Art, count: int = 100, *, share: float = 0.5, seed: int = 0) -> list[Gaze]:
    """The overlap of words with the subject, picture by picture.

    Args:
        model: one of the pocket world that keeps where words look.
        art: the cut-outs of its subjects.
        count: how many scenes; the same ones for the same `seed`.
        share: of noise in x_t.
        seed: of the scenes, their painting, the noise and the choice of the other word.
    """
    rng = np.random.default_rng(seed)
    found: list[Gaze] = []
    with progress(count, "where words look") as bar:
        while len(found) < count:
            scene = world.sample_scene(rng, clean=True)
            if scene.style != "render" or scene.setting is None:
                continue  # an outline or a silhouette is not the shape alone
            number = int(rng.integers(2**31))
            picture, mask = masked(scene, art, number)
            prompt = caption(scene)
            settings = Settings(prompt=prompt, steps=20, sampler="DDIM", guidance=1.0, seed=number, strength=share)
            trace = model.trace(settings, image=picture, attention=True)
            subject = scene.subject.split()
            others = [word for word in trace.words if word not in SINKS and word not in subject]
            word = others[int(rng.integers(len(others)))]
            height, width = trace.heat(subject, 0).shape
            part = np.asarray(Image.fromarray(mask.astype(np.float32)).resize((width, height), Image.Resampling.BOX))
            found.append(
                Gaze(
                    prompt, float(part.mean()), overlap(trace.heat(subject, 0), part),
                    overlap(trace.heat(word, 0), part), word,
                )
            )  # fmt: skip
            bar.update()
    return found


def overlap(heat: np.ndarray, mask: np.ndarray) -> float:
    """The part of a map that falls on a mask."""
    return float((heat * mask).sum() / heat.sum())


def told(found: Sequence[Gaze]) -> str:
    """What was found, in a few lines."""
    area, subject, other = (np.array([getattr(one, name) for one in found]) for name in ("area", "subject", "other"))
    plain = np.array([one.other for one in found if one.word not in MINOR])
    return (
        f"{len(found)} pictures, of which the subject covers {area.mean():.3f}\n"
        f"overlap of the subject's words {subject.mean():.3f}, of another word {other.mean():.3f}: "
        f"{subject.mean() / other.mean():.2f} times\n"
        f"of another word that is none of {', '.join(sorted(MINOR))}: {plain.mean():.3f} ({len(plain)} pictures), "
        f"{subject.mean() / plain.mean():.2f} times\n"
        f"above what an even map has: {(subject / area).mean():.2f} times; "
        f"more than the other word in {(subject > other).mean():.0%}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the pocket model and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m diffexplore.pocket.factory.gaze", description=__doc__)
    parser.add_argument("--art", required=True, help="an unpacked @lobehub/fluent-emoji-3d package")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--share", type=float, default=0.5, help="of noise in the pictures")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    print(told(measure(load(), Art(asked.art), asked.count, share=asked.share, seed=asked.seed)))


if __name__ == "__main__":
    main()
