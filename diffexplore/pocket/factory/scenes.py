"""Draws the picture world of the pocket models: captioned square pictures of any size composed by code.

`draw` paints a `Scene`; ``pocket/world.py`` says what there is and how it is said. A picture depends on nothing but
its scene and a random generator, so one seed rebuilds every one.

Subjects are MIT-licensed 3-D emoji (npm package ``@lobehub/fluent-emoji-3d``, after Microsoft's Fluent Emoji); skies,
ground, mountains, houses and stars are drawn here. Pictures are painted at twice their size and halved at the end,
which is what gives smooth edges. Everything is laid out on a field of 128 units a side, so that one scene and one
generator give the same picture at any size, only finer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from diffexplore.pocket.world import COLOURS, SIZE, SUBJECTS, Rng, Scene

_FIELD = 128  # units a side

RGB = tuple[float, float, float]
Point = tuple[float, float]


class Pen:
    """Draws shapes given in units of the field into a picture of any size."""

    def __init__(self, picture: Image.Image) -> None:
        self.picture = picture
        self._unit = picture.width / _FIELD
        self._draw = ImageDraw.Draw(picture)

    def ellipse(self, box: Sequence[float], fill: RGB) -> None:
        self._draw.ellipse(self._scaled(box), fill=_whole(fill))

    def rectangle(self, box: Sequence[float], fill: RGB) -> None:
        self._draw.rectangle(self._scaled(box), fill=_whole(fill))

    def polygon(self, points: Sequence[Point], fill: RGB) -> None:
        unit = self._unit
        self._draw.polygon([(x * unit, y * unit) for x, y in points], fill=_whole(fill))

    def arc(self, box: Sequence[float], start: float, end: float, fill: RGB, width: float) -> None:
        self._draw.arc(self._scaled(box), start, end, fill=_whole(fill), width=round(width * self._unit))

    def colour_at(self, x: float, y: float) -> tuple[int, int, int]:
        """What is painted there already."""
        return self.picture.getpixel((int(x * self._unit), int(y * self._unit)))  # type: ignore[return-value]

    def _scaled(self, box: Sequence[float]) -> list[float]:
        return [value * self._unit for value in box]


def _whole(colour: RGB) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in colour)
    return red, green, blue


# --- art -----------------------------------------------------------------------------------------------------------


class Art:
    """The subjects' cut-outs, read from an unpacked ``@lobehub/fluent-emoji-3d`` package.

    Args:
        folder: the package folder (it holds ``assets/*.webp``, 256 px RGBA).

    Raises:
        FileNotFoundError: the folder lacks a subject, named with the command that fetches it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        missing = [name for name in SUBJECTS if not self.path_of(name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"{self.folder} holds no picture of {missing[0]!r} ({len(missing)} missing); "
                "fetch it with: npm pack @lobehub/fluent-emoji-3d && tar xzf lobehub-fluent-emoji-3d-*.tgz"
            )
        self.cutout = functools.lru_cache(maxsize=None)(self._cutout)

    def path_of(self, subject: str) -> Path:
        """The file of a subject's cut-out."""
        return self.folder / "assets" / f"{SUBJECTS[subject][0]}.webp"

    def _cutout(self, subject: str, longest: int) -> Image.Image:
        """The subject, cropped to its own outline, RGBA, its longest side at most so many pixels."""
        picture = Image.open(self.path_of(subject)).convert("RGBA")
        picture = picture.crop(picture.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox())
        picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
        return picture


# --- paint ---------------------------------------------------------------------------------------------------------

_SKIES = {  # top, horizon
    "noon": ((70, 150, 240), (190, 225, 250)),
    "dawn": ((120, 110, 190), (255, 190, 185)),
    "golden hour": ((240, 130, 50), (255, 215, 120)),
    "night": ((8, 12, 40), (35, 45, 95)),
}
_TINT = {  # how light colours everything it falls on
    "noon": (1.0, 1.0, 1.0),
    "dawn": (0.93, 0.82, 0.90),
    "golden hour": (1.0, 0.82, 0.60),
    "night": (0.42, 0.46, 0.66),
}
_GROUND = {
    "snow": ((246, 249, 253), (208, 222, 240)),
    "meadow": ((120, 200, 70), (60, 140, 45)),
    "forest": ((84, 128, 58), (45, 84, 40)),
    "desert": ((240, 208, 140), (214, 170, 98)),
    "mountains": ((136, 140, 120), (98, 104, 92)),
    "sea": ((40, 120, 190), (15, 70, 140)),
    "city": ((128, 130, 138), (84, 86, 96)),
}


GRID = 16
"""Places a side at which it is told where the subject is: as many as a latent has."""


def draw(scene: Scene, art: Art, rng: Rng, size: int = SIZE) -> np.ndarray:
    """Paint a scene: an array of shape (size, size, 3), uint8 RGB. Equal scenes and generators give equal pictures."""
    return painted(scene, art, rng, size)[0]


def painted(scene: Scene, art: Art, rng: Rng, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """What `draw` paints, and where its subject is: (`GRID`, `GRID`) uint8, 255 where there is nothing else."""
    side = 2 * size
    sky = _backdrop(scene, side, rng) if scene.setting is None else _scenery(scene, side, rng)
    cutout = _subject(scene, art, side, rng)
    if scene.style == "line":
        sky, cutout = _pencilled(sky), _inked(cutout, side)
    picture, shape = _place(scene, sky, cutout, rng)
    pixels = np.asarray(picture.reduce(2))
    for flaw in scene.flaws:
        pixels = _degraded(pixels, flaw, rng, hard=len(scene.flaws) > 1)
    return pixels, np.asarray(shape.resize((GRID, GRID), Image.Resampling.BOX))


def _backdrop(scene: Scene, side: int, rng: Rng) -> Image.Image:
    colour = np.array(COLOURS[str(scene.backdrop)][0], np.float32) + rng.normal(0, 4, 3)
    shade = np.linspace(1.04, 0.94, side, dtype=np.float32)[:, None]
    return _wide(np.clip(colour * shade, 0, 255), side)


def _wide(column: np.ndarray, side: int) -> Image.Image:
    """A picture whose rows are of one colour each, given (height, 3)."""
    rows = np.broadcast_to(column.astype(np.uint8)[:, None], (len(column), side, 3))
    return Image.fromarray(np.ascontiguousarray(rows))


def _gradient(top: RGB, bottom: RGB, height: int, *, bands: int = 0) -> np.ndarray:
    """A vertical gradient (height, 3) float32; in `bands` equal steps if given, as a flat drawing has it."""
    t = np.linspace(0, 1, max(height, 1), dtype=np.float32)
    if bands:
        t = (np.floor(t * bands) / max(bands - 1, 1)).clip(0, 1)
    column: np.ndarray = np.asarray(top, np.float32) + t[:, None] * (
        np.asarray(bottom, np.float32) - np.asarray(top, np.float32)
    )
    return column


def _tinted(colour: RGB, light: str | None, factor: float = 1.0) -> tuple[int, int, int]:
    tint = _TINT[light or "noon"]
    red, green, blue = (int(min(255, max(0, c * t * factor))) for c, t in zip(colour, tint, strict=True))
    return red, green, blue


def _scenery(scene: Scene, side: int, rng: Rng) -> Image.Image:
    if scene.setting == "space":
        return _space(side, rng)
    light, setting = str(scene.light), str(scene.setting)
    bands = 3 if scene.style == "flat" else 0
    horizon = int(_FIELD * rng.uniform(0.60, 0.70))
    middle = horizon * side // _FIELD
    near, far = _GROUND[setting]
    sky = _gradient(*_SKIES[light], middle, bands=bands)
    ground = _gradient(near, far, side - middle, bands=bands) * np.asarray(_TINT[light], np.float32)
    picture = _wide(np.clip(np.concatenate([sky, ground]), 0, 255), side)
    pen = Pen(picture)
    _heavens(pen, light, horizon, rng)
    _FEATURES[setting](pen, light, horizon, rng)
    return picture


def _heavens(pen: Pen, light: str, horizon: int, rng: Rng) -> None:
    x = rng.uniform(0.12, 0.88) * _FIELD
    if light == "night":
        for _ in range(14):
            sx, sy = rng.uniform(0, _FIELD), rng.uniform(0, horizon * 0.9)
            pen.ellipse((sx - 1, sy - 1, sx + 1, sy + 1), fill=(225, 228, 245))
        y, r = rng.uniform(0.10, 0.22) * _FIELD, 9
        pen.ellipse((x - r, y - r, x + r, y + r), fill=(240, 238, 210))
        pen.ellipse((x - r + 6, y - r - 2, x + r + 6, y + r - 2), fill=pen.colour_at(2, y))
        return
    if light == "noon":
        y, r, disc, halo = rng.uniform(0.10, 0.20) * _FIELD, 9, (255, 245, 170), (225, 235, 225)
    elif light == "dawn":
        y, r, disc, halo = horizon - 10, 11, (255, 240, 215), (255, 210, 195)
    else:
        y, r, disc, halo = horizon - 16, 14, (255, 245, 190), (255, 220, 130)
    pen.ellipse((x - r - 4, y - r - 4, x + r + 4, y + r + 4), fill=halo)
    pen.ellipse((x - r, y - r, x + r, y + r), fill=disc)
    if light == "noon" or rng.random() < 0.4:
        cloud = {"noon": (255, 255, 255), "dawn": (255, 215, 215), "golden hour": (255, 200, 120)}[light]
        for _ in range(int(rng.integers(1, 3))):
            cx, cy = rng.uniform(0, _FIELD), rng.uniform(0.08, 0.38) * _FIELD
            for dx, dy, w in ((-11, 2, 9), (0, -2, 12), (11, 2, 9)):
                pen.ellipse((cx + dx - w, cy + dy - w * 0.5, cx + dx + w, cy + dy + w * 0.5), fill=cloud)


def _ridge(rng: Rng, base: float, height: float, waves: float) -> list[tuple[float, float]]:
    """A smooth skyline from left to right as points, `height` above `base` at most."""
    x = np.linspace(0, _FIELD, 17)
    phase = rng.uniform(0, 6.28, 2)
    y = 0.6 * np.sin(x / _FIELD * waves * 6.28 + phase[0]) + 0.4 * np.sin(x / _FIELD * waves * 11 + phase[1])
    return [(float(a), float(base - height * (0.5 + 0.5 * b))) for a, b in zip(x, y, strict=True)]


def _fill_below(pen: Pen, ridge: list[tuple[float, float]], bottom: float, colour: tuple[int, int, int]) -> None:
    pen.polygon([*ridge, (_FIELD, bottom), (0, bottom)], fill=colour)


def _snow(pen: Pen, light: str, horizon: int, rng: Rng) -> None:
    _fill_below(pen, _ridge(rng, horizon + 2, 16, 1), horizon + 4, _tinted((214, 226, 243), light))
    for _ in range(2):
        _pine(
            pen,
            rng.uniform(4, _FIELD - 4),
            horizon + rng.uniform(-2, 4),
            rng.uniform(18, 28),
            light,
            (60, 110, 95),
            snowy=True,
        )
    for _ in range(22):
        x, y = rng.uniform(0, _FIELD), rng.uniform(0, _FIELD * 0.75)
        pen.ellipse((x - 1.4, y - 1.4, x + 1.4, y + 1.4), fill=_tinted((255, 255, 255), light, 1.25))


def _meadow(pen: Pen, light: str, horizon: int, rng: Rng) -> None:
    _fill_below(pen, _ridge(rng, horizon + 2, 18, 0.8), horizon + 4, _tinted((92, 170, 62), light))
    for _ in range(14):
        x, y = rng.uniform(0, _FIELD), rng.uniform(horizon + 6, _FIELD - 2)
        paint = [(250, 230, 80), (250, 250, 250), (240, 110, 140)][int(rng.integers(3))]
        pen.ellipse((x - 1.6, y - 1.6, x + 1.6, y + 1.6), fill=_tinted(paint, light))


def _pine(pen: Pen, x: float, base: float, height: float, light: str, colour: RGB, *, snowy: bool = False) -> None:
    pen.rectangle((x - 1.5, base - 3, x + 1.5, base + 3), fill=_tinted((95, 65, 45), light))
    for k in range(3):
        y = base - k * height * 0.26
        w = height * (0.36 - 0.08 * k)
        shade = _tinted((225, 235, 245) if snowy and k == 2 else colour, light, 0.9 + 0.12 * k)
        pen.polygon([(x - w, y), (x + w, y), (x, y - height * 0.48)], fill=shade)


def _forest(pen: Pen, light: str, horizon: int, rng: Rng) -> None:
    for row, (count, shade) in enumerate(((10, 0.75), (7, 1.0))):
        xs = (np.arange(count) + rng.uniform(0.2, 0.8, count)) * _FIELD / count
        for x in xs:
            colour = (34 * shade, 98 * shade, 52 * shade)
            _pine(pen, float(x), horizon + 2 + 4 * row, rng.uniform(40, 62), light, colour)


def _desert(pen: Pen, light: str, horizon: int, rng: Rng) -> None:
    _fill_below(pen, _ridge(rng, horizon + 3, 20, 0.7), horizon + 4, _tinted((224, 184, 112), light))
    _fill_below(pen, _ridge(rng, horizon + 24, 12, 0.6), _FIELD, _tinted((236, 198, 126), light))


def _mountains(pen: Pen, light: str, horizon: int, rng: Rng) -> None:
    centres = (np.arange(4) + rng.uniform(0.1, 0.9, 4)) * _FIELD / 4
    for k, cx in enumerate(centres[rng.permutation(4)]):
        h, w = rng.uniform(34, 58), rng.uniform(30, 44)
        stone = _tinted((112, 116, 134), light, 0.82 + 0.1 * k)
        top = (cx, horizon - h)
        pen.polygon([(cx - w, horizon + 2), top, (cx + w, horizon + 2)], fill=stone)
        cap = 0.34
        pen.polygon(
            [
                (cx - w * cap, horizon - h * (1 - cap)),
                top,
                (cx + w * cap, horizon - h * (1 - cap)),
                (cx + w * 0.1, horizon - h * 0.58),
                (cx - w * 0.1, horizon - h * 0.7),
            ],
            fill=_tinted((246, 248, 252), light),
        )


def _sea(pen: Pen, light: str, horizon: int, rng: Rng) -> None:
    for _ in range(12):
        x, y = rng.uniform(-6, _FIELD), rng.uniform(horizon + 3, _FIELD - 2)
        pen.arc((x, y - 3, x + 18, y + 3), 200, 340, fill=_tinted((170, 215, 245), light), width=2)


def _city(pen: Pen, light: str, horizon: int, rng: Rng) -> None:
    x = -rng.uniform(0, 10)
    while x < _FIELD:
        w, h = rng.uniform(14, 26), rng.uniform(26, 70)
        wall = [(150, 155, 172), (176, 140, 128), (128, 138, 156), (186, 176, 160)][int(rng.integers(4))]
        pen.rectangle((x, horizon - h, x + w, horizon + 2), fill=_tinted(wall, light, 0.9))
        for wx in np.arange(x + 3, x + w - 4, 6):
            for wy in np.arange(horizon - h + 4, horizon - 5, 8):
                lit = rng.random() < 0.55
                glass = (255, 222, 120) if light == "night" and lit else _tinted((205, 226, 240), light, 0.95)
                if light == "night" and not lit:
                    glass = (28, 32, 55)
                pen.rectangle((wx, wy, wx + 2.5, wy + 3.5), fill=glass)
        x += w + rng.uniform(0, 3)
    y = _FIELD - 8
    for k in range(4):
        pen.rectangle((k * 36 + 4, y, k * 36 + 22, y + 2), fill=_tinted((235, 230, 200), light))


_FEATURES: dict[str, Callable[[Pen, str, int, Rng], None]] = {
    "snow": _snow, "meadow": _meadow, "forest": _forest, "desert": _desert,
    "mountains": _mountains, "sea": _sea, "city": _city,
}  # fmt: skip


def _space(side: int, rng: Rng) -> Image.Image:
    coarse = 64  # the glow is smooth: it is computed coarsely and enlarged
    y, x = np.mgrid[0:coarse, 0:coarse].astype(np.float32) / coarse
    cx, cy, angle = rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8), rng.uniform(0, 3.14)
    band = np.exp(-((((x - cx) * np.sin(angle) - (y - cy) * np.cos(angle)) / 0.22) ** 2))[..., None]
    glow = np.array([[110, 50, 150], [40, 70, 160], [150, 50, 110]], np.float32)[int(rng.integers(3))]
    sky = Image.fromarray((np.array([14, 10, 34], np.float32) + band * glow * 0.75).astype(np.uint8))
    picture = sky.resize((side, side), Image.Resampling.BILINEAR)
    pen = Pen(picture)
    for _ in range(40):
        sx, sy, r = rng.uniform(0, _FIELD), rng.uniform(0, _FIELD), rng.uniform(0.6, 1.5)
        pen.ellipse((sx - r, sy - r, sx + r, sy + r), fill=(240, 240, 255))
    px, py, r = rng.uniform(0.08, 0.92) * _FIELD, rng.choice([0.16, 0.84]) * _FIELD, rng.uniform(12, 19)
    paint = [(225, 150, 90), (110, 170, 220), (200, 110, 120), (150, 200, 160)][int(rng.integers(4))]
    pen.ellipse((px - r, py - r, px + r, py + r), fill=paint)
    pen.ellipse(
        (px - r * 0.7, py - r * 0.8, px + r * 0.4, py + r * 0.3), fill=(paint[0] + 28, paint[1] + 28, paint[2] + 28)
    )
    pen.arc((px - r * 1.7, py - r * 0.5, px + r * 1.7, py + r * 0.5), 0, 360, fill=(235, 220, 190), width=2)
    return picture


def _subject(scene: Scene, art: Art, side: int, rng: Rng) -> Image.Image:
    share = {
        "small": rng.uniform(0.36, 0.44),
        "medium": rng.uniform(0.58, 0.70),
        "large": rng.uniform(0.82, 0.94),
    }
    cutout = art.cutout(scene.subject, side)
    scale = share[scene.scale] * side / max(cutout.size)
    cutout = cutout.resize(tuple(max(1, round(n * scale)) for n in cutout.size), Image.Resampling.BILINEAR)  # type: ignore[arg-type]
    if rng.random() < 0.5:
        cutout = cutout.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(cutout).astype(np.float32)
    rgb: np.ndarray = pixels[..., :3]
    alpha = pixels[..., 3:]
    if scene.colour:
        rgb = _paint(rgb, scene.colour)
    if scene.style == "silhouette":
        rgb = np.full_like(rgb, 16)
    elif scene.style == "flat":
        rgb = np.round(rgb / 64) * 64
    if scene.light and scene.style != "silhouette":
        tint = np.asarray(_TINT[scene.light], np.float32)
        # A lit subject keeps more of its own colour than the ground does: it is what the picture is about.
        rgb = rgb * (0.45 + 0.55 * tint)
    out = Image.fromarray(np.clip(np.concatenate([rgb, alpha], -1), 0, 255).astype(np.uint8), "RGBA")
    if scene.style == "flat":
        out = _outlined(out, side)
    return out


def _paint(rgb: np.ndarray, colour: str) -> np.ndarray:
    """Dye a cut-out: darks stay dark (eyes, wheels), lights stay light, all between takes the colour."""
    paint = np.asarray(COLOURS[colour][0], np.float32)
    luma = (rgb @ np.array([0.299, 0.587, 0.114], np.float32) / 255)[..., None]
    if colour == "white":
        return 255 * np.clip(0.34 + 0.75 * luma, 0, 1) * (paint / 255)
    if colour == "black":
        grey: np.ndarray = 20 + 95 * luma**1.3 * np.array([1.0, 1.0, 1.06], np.float32)
        return grey
    dark: np.ndarray = paint * np.clip(luma / 0.42, 0, 1)
    white = np.clip((luma - 0.62) / 0.38, 0, 1) ** 1.5 * 0.62
    return dark * (1 - white) + 255 * white


def _framed(cutout: Image.Image, side: int) -> Image.Image:
    """With room for an outline of 4 units all around."""
    edge = 4 * side // _FIELD
    frame = Image.new("RGBA", (cutout.width + 2 * edge, cutout.height + 2 * edge))
    frame.paste(cutout, (edge, edge))
    return frame


def _grown(shape: Image.Image, units: int, side: int) -> Image.Image:
    """A shape that reaches so many units further on every side; less where that is negative."""
    kind = ImageFilter.MaxFilter if units > 0 else ImageFilter.MinFilter
    for _ in range(abs(units) * side // _FIELD):  # one after the other: a wide filter takes the square of the time
        shape = shape.filter(kind(3))
    return shape


def _outlined(cutout: Image.Image, side: int) -> Image.Image:
    frame = _framed(cutout, side)
    edge = _grown(frame.getchannel("A"), 2, side)
    out = Image.new("RGBA", frame.size, (28, 24, 32, 255))
    out.putalpha(edge)
    out.alpha_composite(frame)
    return out


def _place(scene: Scene, ground: Image.Image, cutout: Image.Image, rng: Rng) -> tuple[Image.Image, Image.Image]:
    """The subject put on its ground, and its shape there."""
    side, unit = ground.width, ground.width / _FIELD
    w, h = cutout.size
    centre = {"left": 0.27, "centre": 0.5, "right": 0.73}[scene.side] + rng.uniform(-0.06, 0.06)
    x = int(np.clip(centre * side - w / 2, -0.12 * w, side - 0.88 * w))
    floating = scene.setting in (None, "space")
    middle = (side - h) / 2 + rng.uniform(-5, 5) * unit
    y = int(middle if floating else min(side * rng.uniform(0.86, 0.94) - h, side - h))
    if not floating and scene.style != "line":
        shadow = Image.new("L", ground.size)
        foot = y + h - 2 * unit
        ImageDraw.Draw(shadow).ellipse((x + w * 0.12, foot - h * 0.06, x + w * 0.88, foot + h * 0.06), fill=95)
        ground.paste((10, 14, 30), (0, 0), shadow)
    ground.paste(cutout.convert("RGB"), (x, y), cutout.getchannel("A"))
    shape = Image.new("L", ground.size)
    shape.paste(cutout.getchannel("A"), (x, y))
    return ground, shape


_PAPER = np.array([250, 248, 242], np.float32)
_PENCIL = np.array([105, 108, 118], np.float32)
_INK = np.array([24, 24, 30], np.float32)


def _edges(pixels: np.ndarray, least: float, width: float) -> np.ndarray:
    """Where brightness or colour changes, (h, w, 1) in 0 to 1: nothing below `least`, a full line above the sum."""
    most = np.zeros((2, *pixels.shape[:2]), np.float32)
    for k in range(pixels.shape[2]):  # channel by channel: a maximum over a last axis of three takes ten times as long
        one = np.ascontiguousarray(pixels[..., k])
        np.maximum(most[0, 1:], np.abs(one[1:] - one[:-1]), out=most[0, 1:])
        np.maximum(most[1, :, 1:], np.abs(one[:, 1:] - one[:, :-1]), out=most[1, :, 1:])
    edges: np.ndarray = np.clip((np.hypot(most[0], most[1]) - least) / width, 0, 1)[..., None]
    return edges


def _pencilled(ground: Image.Image) -> Image.Image:
    """A background in thin grey lines on paper."""
    pixels = np.asarray(ground.filter(ImageFilter.GaussianBlur(0.5 * ground.width / _FIELD))).astype(np.float32)
    line = _edges(pixels, 8, 34)
    return Image.fromarray((_PAPER * (1 - line) + _PENCIL * line).astype(np.uint8))


def _inked(cutout: Image.Image, side: int) -> Image.Image:
    """A subject as an empty shape with a broad black outline and its main inner lines, to stand out from the ground."""
    frame = _framed(cutout, side)
    shape = frame.getchannel("A").point(lambda a: 255 * (a > 96))
    body = Image.new("RGB", frame.size, (128, 128, 128))
    body.paste(frame.convert("RGB"), (0, 0), shape)
    inside = np.asarray(_grown(shape, -2, side), np.float32)[..., None] / 255
    inner = _edges(np.asarray(body.filter(ImageFilter.GaussianBlur(0.8))).astype(np.float32), 16, 24) * inside
    outer = _grown(shape, 1, side)
    outline = np.asarray(outer, np.float32)[..., None] / 255 - inside
    line = np.maximum(inner, outline.clip(0, 1))
    out = Image.fromarray((_PAPER * (1 - line) + _INK * line).astype(np.uint8)).convert("RGBA")
    out.putalpha(outer)
    return out


def _degraded(pixels: np.ndarray, flaw: str, rng: Rng, *, hard: bool) -> np.ndarray:
    """The picture with a flaw; `hard` as when it is one of several, which nobody would say of a good picture."""
    size = len(pixels)
    if flaw == "blurry":
        radius = rng.uniform(2.2, 3.4) if hard else rng.uniform(1.6, 2.6)
        return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius * size / 64)))
    if flaw == "noisy":
        # Grains as large as a 64th of the picture and as fine as a pixel: what is seen must not vanish with the size.
        noise = rng.normal(0, rng.uniform(20, 36), (64, 64, 3)).astype(np.float32)
        if size != 64:
            grain = noise.repeat(-(-size // 64), 0).repeat(-(-size // 64), 1)[:size, :size]
            noise = 0.75 * grain + 0.75 * rng.standard_normal(pixels.shape, np.float32) * noise.std()
        return np.clip(pixels + noise, 0, 255).astype(np.uint8)
    if flaw == "pixelated":
        side = int(rng.choice([8, 10, 13] if hard else [10, 13, 16]))
        small = Image.fromarray(pixels).resize((side, side), Image.Resampling.BOX)
        return np.asarray(small.resize((size, size), Image.Resampling.NEAREST))
    assert flaw == "low contrast"
    keep = rng.uniform(0.28, 0.42)
    return (128 + keep * (pixels.astype(np.float32) - 128)).astype(np.uint8)
