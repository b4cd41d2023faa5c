"""What the pocket models' world is made of, as plain data and language: no picture is drawn here.

A *scene* names what is in a picture (subject, colour, setting, light, style, size, side, qualities). `sample_scene`
makes one up, `caption` says it in plain English; both depend on nothing but a random generator, so one seed rebuilds
every scene and every caption. How a scene is painted, the factory knows (``factory/scenes.py``).

Some pairs (subject with setting, with colour, with style) are *held out*: they are never drawn for training, so that
a trained model can be asked whether it composes what it has only seen apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

SIZE = 128
"""Pixels a side of a composed picture where nothing else is said: as many as the model draws."""

Rng = np.random.Generator

# name -> (emoji code point, category, other words for it)
SUBJECTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "fox": ("1f98a", "animal", ()),
    "cat": ("1f431", "animal", ("kitten",)),
    "dog": ("1f436", "animal", ("puppy",)),
    "rabbit": ("1f430", "animal", ("bunny",)),
    "horse": ("1f40e", "animal", ("pony",)),
    "cow": ("1f42e", "animal", ()),
    "pig": ("1f437", "animal", ("piglet",)),
    "sheep": ("1f411", "animal", ("lamb",)),
    "elephant": ("1f418", "animal", ()),
    "penguin": ("1f427", "bird", ()),
    "owl": ("1f989", "bird", ()),
    "duck": ("1f986", "bird", ()),
    "chick": ("1f424", "bird", ("baby chicken",)),
    "flamingo": ("1f9a9", "bird", ()),
    "parrot": ("1f99c", "bird", ()),
    "frog": ("1f438", "animal", ("toad",)),
    "turtle": ("1f422", "animal", ("tortoise",)),
    "fish": ("1f41f", "animal", ()),
    "whale": ("1f433", "animal", ()),
    "squid": ("1f991", "animal", ("octopus",)),
    "crab": ("1f980", "animal", ()),
    "butterfly": ("1f98b", "insect", ()),
    "bee": ("1f41d", "insect", ("bumblebee",)),
    "ladybug": ("1f41e", "insect", ("beetle",)),
    "snail": ("1f40c", "animal", ()),
    "dinosaur": ("1f996", "animal", ("t-rex",)),
    "lion": ("1f981", "animal", ()),
    "tiger": ("1f42f", "animal", ()),
    "bear": ("1f43b", "animal", ()),
    "panda": ("1f43c", "animal", ("panda bear",)),
    "monkey": ("1f435", "animal", ("ape",)),
    "giraffe": ("1f992", "animal", ()),
    "zebra": ("1f993", "animal", ()),
    "camel": ("1f42a", "animal", ()),
    "car": ("1f697", "vehicle", ("automobile",)),
    "bus": ("1f68c", "vehicle", ()),
    "train": ("1f682", "vehicle", ("locomotive",)),
    "bicycle": ("1f6b2", "vehicle", ("bike",)),
    "rocket": ("1f680", "vehicle", ("spaceship",)),
    "airplane": ("2708-fe0f", "vehicle", ("plane",)),
    "helicopter": ("1f681", "vehicle", ()),
    "sailboat": ("26f5", "vehicle", ("boat", "sailing boat")),
    "tractor": ("1f69c", "vehicle", ()),
    "castle": ("1f3f0", "building", ()),
    "house": ("1f3e0", "building", ("cottage", "home")),
    "tent": ("26fa", "building", ()),
    "tree": ("1f333", "plant", ("oak",)),
    "cactus": ("1f335", "plant", ()),
    "mushroom": ("1f344", "plant", ("toadstool",)),
    "sunflower": ("1f33b", "flower", ()),
    "tulip": ("1f337", "flower", ()),
    "apple": ("1f34e", "fruit", ()),
    "banana": ("1f34c", "fruit", ()),
    "strawberry": ("1f353", "fruit", ()),
    "pineapple": ("1f34d", "fruit", ()),
    "pizza": ("1f355", "food", ("slice of pizza",)),
    "burger": ("1f354", "food", ("hamburger",)),
    "cake": ("1f382", "food", ("birthday cake",)),
    "ice cream": ("1f366", "food", ("ice cream cone",)),
    "donut": ("1f369", "food", ("doughnut",)),
    "robot": ("1f916", "toy", ("android",)),
    "ghost": ("1f47b", "creature", ("spirit",)),
    "snowman": ("26c4", "creature", ()),
    "teddy bear": ("1f9f8", "toy", ("teddy", "plush bear")),
    "balloon": ("1f388", "toy", ()),
    "umbrella": ("2602-fe0f", "thing", ("parasol",)),
    "guitar": ("1f3b8", "thing", ("electric guitar",)),
    "crown": ("1f451", "thing", ()),
    "gift": ("1f381", "thing", ("present", "gift box")),
    "ball": ("26bd", "toy", ("football", "soccer ball")),
    "alien": ("1f47d", "creature", ("extraterrestrial",)),
    "pumpkin": ("1f383", "food", ("jack-o-lantern",)),
}

# name -> (paint in 0..255, other words)
COLOURS: dict[str, tuple[tuple[int, int, int], tuple[str, ...]]] = {
    "red": ((225, 30, 35), ("crimson", "scarlet")),
    "orange": ((250, 130, 20), ()),
    "yellow": ((250, 215, 30), ()),
    "green": ((45, 175, 60), ("emerald",)),
    "blue": ((35, 95, 235), ("azure",)),
    "purple": ((140, 50, 200), ("violet",)),
    "pink": ((250, 120, 185), ("magenta",)),
    "black": ((38, 38, 44), ("dark",)),
    "white": ((243, 243, 246), ("pale",)),
}

SETTINGS: dict[str, tuple[str, ...]] = {
    "snow": ("in the snow", "in a snowy field", "on a snowy hill", "in winter", "in deep snow"),
    "meadow": ("in a meadow", "in a green field", "on the grass", "in a grassy meadow", "on a lawn"),
    "forest": ("in a forest", "in the woods", "among the trees", "in front of pine trees"),
    "desert": ("in the desert", "on the sand dunes", "in a sandy desert", "on the sand"),
    "mountains": ("in the mountains", "on a mountain", "in front of the mountains", "among rocky peaks"),
    "sea": ("by the sea", "at the ocean", "at the seaside", "by the water", "on the waves"),
    "city": ("in a city", "in the city", "in town", "among tall buildings", "downtown", "on a street"),
    "space": ("in space", "in outer space", "among the stars", "in the galaxy", "between planets"),
}

LIGHTS: dict[str, tuple[str, ...]] = {
    "noon": ("at noon", "in daylight", "on a sunny day", "at midday", "under a blue sky", "on a clear day"),
    "dawn": ("at dawn", "at sunrise", "in the early morning", "in pink morning light"),
    "golden hour": ("at golden hour", "at sunset", "at dusk", "in the evening", "in warm evening light"),
    "night": ("at night", "under the moon", "in the moonlight", "at midnight", "in the dark"),
}

STYLES: dict[str, tuple[str, ...]] = {
    "render": ("a 3d render of", "a photo of", "a picture of", "an image of"),
    "flat": ("a flat drawing of", "a cartoon of", "an illustration of", "a drawing of"),
    "silhouette": ("a silhouette of", "the silhouette of", "a dark silhouette of", "the shadow of"),
    "line": ("a line drawing of", "a sketch of", "a pencil sketch of", "an outline of"),
}

QUALITIES: dict[str, tuple[str, ...]] = {
    "blurry": ("blurry", "blurred", "out of focus"),
    "noisy": ("noisy", "grainy"),
    "pixelated": ("pixelated", "blocky"),
    "low contrast": ("low contrast", "washed out", "faded"),
}
BAD = ("low quality", "bad quality", "worst quality")
GOOD = ("high quality", "best quality", "sharp", "detailed", "in focus", "sharp and clean")

SIDES: dict[str, tuple[str, ...]] = {
    "left": ("on the left", "on the left side"),
    "right": ("on the right", "on the right side"),
    "centre": ("in the middle", "in the centre", "in the center"),
}

SCALES: dict[str, tuple[str, ...]] = {
    "small": ("small", "tiny", "little"),
    "medium": ("",),
    "large": ("large", "big", "huge", "giant"),
}


# How often training shows what, and how often a caption says what it could leave out.
STYLE_SHARES = {"render": 0.70, "flat": 0.12, "silhouette": 0.09, "line": 0.09}
PAINTED = 0.38  # of the renders and flat drawings, in a colour that is not the subject's own
PLAIN = 0.10  # of all but line drawings, without a setting
SAID = {"setting": 0.93, "light": 0.85, "render": 0.18}


@dataclasses.dataclass(frozen=True)
class Scene:
    """What is in one picture. `colour` None is the subject's own; `setting` None is a plain background.

    `flaws` are `QUALITIES`, in the order in which they befall the picture.
    """

    subject: str
    colour: str | None = None
    setting: str | None = "meadow"
    light: str | None = "noon"
    style: str = "render"
    scale: str = "medium"
    side: str = "centre"
    flaws: tuple[str, ...] = ()
    backdrop: str | None = None

    @property
    def attributes(self) -> dict[str, str]:
        """The attributes a viewer could read off the picture: name -> value, undecidable ones left out."""
        out = {"subject": self.subject, "style": self.style}
        if len(self.flaws) < 2:
            out["quality"] = self.flaws[0] if self.flaws else "clean"
        if self.colour and self.style in ("render", "flat"):
            out["colour"] = self.colour
        if self.setting:
            out["setting"] = self.setting
            if self.setting != "space" and self.style != "line":
                out["light"] = str(self.light)
        return out


def held_out(scene: Scene) -> bool:
    """Whether a scene pairs things that training never shows together.

    Each subject misses one setting and one colour, and every second subject one of the drawn styles.
    """
    i = list(SUBJECTS).index(scene.subject)
    settings, colours, styles = list(SETTINGS), list(COLOURS), [s for s in STYLES if s != "render"]
    return (
        scene.setting == settings[(3 * i + 5) % len(settings)]
        or scene.colour == colours[(4 * i + 4) % len(colours)]
        or (i % 2 == 1 and scene.style == styles[(i // 2) % len(styles)])
    )


def sample_scene(rng: Rng, *, holdout: bool = False, clean: bool = False) -> Scene:
    """A random scene: from the held-out pairs if `holdout`, never from them otherwise; undegraded if `clean`."""
    while True:
        scene = _any_scene(rng, clean)
        if held_out(scene) == holdout:
            return scene


def _any_scene(rng: Rng, clean: bool) -> Scene:
    subject = _pick(rng, SUBJECTS)
    style = str(rng.choice(list(STYLES), p=list(STYLE_SHARES.values())))
    colour = _pick(rng, COLOURS) if style in ("render", "flat") and rng.random() < PAINTED else None
    plain = rng.random() < PLAIN and style != "line"
    setting = None if plain else _pick(rng, SETTINGS)
    backdrop = _pick(rng, [c for c in COLOURS if c != colour and (c != "black" or style != "silhouette")])
    return Scene(
        subject=subject,
        colour=colour,
        setting=setting,
        light=None if plain or setting == "space" else _pick(rng, LIGHTS),
        style=style,
        scale=str(rng.choice(list(SCALES), p=[0.10, 0.75, 0.15])),
        side=str(rng.choice(list(SIDES), p=[0.08, 0.08, 0.84])),
        flaws=() if clean else _any_flaws(rng),
        backdrop=backdrop if plain else None,
    )


def _any_flaws(rng: Rng) -> tuple[str, ...]:
    """Mostly none, else one to three: a negative prompt names several, so it has to be known what that looks like."""
    count = int(rng.choice(4, p=[0.82, 0.10, 0.03, 0.05]))
    flaws = [str(flaw) for flaw in rng.permutation(list(QUALITIES))[:count]]
    # Grain over a blur would be the sharpest thing in the picture, and a prompt against it would ask for more blur.
    return tuple(sorted(flaws, key=lambda flaw: flaw != "noisy"))


def _pick(rng: Rng, names: Iterable[str]) -> str:
    names = list(names)
    return str(names[int(rng.integers(len(names)))])


def taught(named: Mapping[str, str], subjects: Iterable[str] = ()) -> dict[str, dict[str, float]]:
    """What training showed under captions that say just this: of each attribute that they leave open, how often each
    value was in the picture.

    Exact, by counting through all scenes. Left out, since they hardly count: captions that name a kind ("an animal") in
    place of a subject, and the flaws, which are always said.

    Args:
        named: what the captions say, attribute -> value: of "subject", "colour", "setting", "light" and "style".
        subjects: where no subject is said, those it may be; none: any.

    Returns:
        attribute -> value -> share, of sum 1: of "subject", "setting" ("none" is a plain background), "light", "style"
        and "colour" ("own" is the subject's). The light is of the scenes that have one.

    Raises:
        ValueError: training never showed that.
    """
    found: dict[str, dict[str, float]] = {name: {} for name in ("subject", "colour", "setting", "light", "style")}
    for subject in [named["subject"]] if "subject" in named else list(subjects) or SUBJECTS:
        for scene, share in _scenes_of(subject):
            has = {
                "subject": scene.subject, "style": scene.style, "colour": scene.colour or "own",
                "setting": scene.setting or "none", "light": scene.light if scene.style != "line" else None,
            }  # fmt: skip
            said = {
                "style": 1.0 if scene.style != "render" else SAID["render"], "colour": float(scene.colour is not None),
                "setting": SAID["setting"] if scene.setting else 1.0, "light": SAID["light"] if has["light"] else 0.0,
            }  # fmt: skip
            for name, chance in said.items():
                share *= (chance if has[name] == named[name] else 0.0) if name in named else 1 - chance
            for name, value in has.items():
                if share and name not in named and value is not None:
                    found[name][value] = found[name].get(value, 0.0) + share
    totals = {name: sum(values.values()) for name, values in found.items()}
    if not any(totals.values()):
        raise ValueError(f"training showed nothing with {', '.join(f'{k} {v}' for k, v in named.items())} together")
    return {
        name: {value: share / totals[name] for value, share in values.items()}
        for name, values in found.items()
        if values
    }


def _scenes_of(subject: str) -> Iterator[tuple[Scene, float]]:
    """Every scene of a subject that training shows, flaws, size and place aside, with how often it is drawn."""
    for style, of_style in STYLE_SHARES.items():
        paints: list[tuple[str | None, float]] = [(None, 1.0)]
        if style in ("render", "flat"):
            paints = [(None, 1 - PAINTED), *((colour, PAINTED / len(COLOURS)) for colour in COLOURS)]
        plain = PLAIN if style != "line" else 0.0
        places: list[tuple[str | None, str | None, float]] = [(None, None, plain)]
        for place in SETTINGS:
            lights: list[str | None] = [None] if place == "space" else list(LIGHTS)
            places += [(place, one, (1 - plain) / len(SETTINGS) / len(lights)) for one in lights]
        for colour, of_colour in paints:
            for setting, lit, of_place in places:
                scene = Scene(subject, colour, setting, lit, style)
                if of_place and not held_out(scene):
                    yield scene, of_style * of_colour * of_place


# --- words ---------------------------------------------------------------------------------------------------------


def caption(scene: Scene, rng: Rng) -> str:
    """One of many ways to say a scene in plain English, sometimes leaving parts unsaid.

    What is unusual is always said (a degraded quality, a drawn style, a paint, a plain background), since a model
    cannot guess it; what is ordinary (light, setting, size) may go unsaid, which is what makes a vague prompt vague.
    Of a degraded picture some captions say nothing but the flaws, as a negative prompt does.
    """
    flaws = [_pick(rng, QUALITIES[flaw]) for flaw in rng.permutation(list(scene.flaws))]
    bad = [_pick(rng, BAD)] if flaws and rng.random() < 0.5 else []
    if flaws and rng.random() < 0.2:
        return ", ".join([*flaws, *bad])
    _, category, synonyms = SUBJECTS[scene.subject]
    noun = scene.subject
    if synonyms and rng.random() < 0.25:
        noun = _pick(rng, synonyms)
    elif rng.random() < 0.04 and category != "thing":
        noun = category
    words = []
    if scene.scale != "medium" and rng.random() < 0.85:
        words.append(_pick(rng, SCALES[scene.scale]))
    if scene.colour:
        other = COLOURS[scene.colour][1]
        words.append(_pick(rng, other) if other and rng.random() < 0.15 else scene.colour)
    phrase = " ".join([*words, noun])
    roll = rng.random()
    if roll < 0.80:
        phrase = f"{article(phrase)} {phrase}"
    elif roll < 0.88:
        phrase = f"the {phrase}"
    adjective = ""
    tail: list[str] = []
    if flaws:
        if rng.random() < 0.35:
            adjective = flaws.pop()
        tail += [*flaws, *bad]
    elif rng.random() < 0.12:
        tail.append(_pick(rng, GOOD))
    if scene.style != "render" or rng.random() < SAID["render"] or adjective:
        lead = _pick(rng, STYLES[scene.style])
        if adjective:
            rest = lead.split(" ", 1)[1]
            lead = f"{article(adjective)} {adjective} {rest}"
        phrase = f"{lead} {phrase}"
    places: list[str] = []
    if scene.setting and (rng.random() < SAID["setting"]):
        words_for = SETTINGS[scene.setting]
        places.append(words_for[0] if rng.random() < 0.5 else _pick(rng, words_for))
    if scene.light and scene.style != "line" and rng.random() < SAID["light"]:
        words_for = LIGHTS[scene.light]
        places.append(words_for[0] if rng.random() < 0.5 else _pick(rng, words_for))
    if scene.backdrop:
        places.append(f"on {article(scene.backdrop)} {scene.backdrop} background")
    if scene.side != "centre" or rng.random() < 0.04:
        side = _pick(rng, SIDES[scene.side])
        if rng.random() < 0.5:
            places.insert(0, side)
        else:
            tail.insert(0, side)
    if len(places) > 1 and rng.random() < 0.2:
        places.reverse()
    text = " ".join([phrase, *places])
    return ", ".join([text, *tail])


def article(phrase: str) -> str:
    """The article that goes before a phrase: "a" or "an"."""
    return "an" if phrase[0] in "aeiou" else "a"


# Words people put in prompts that name nothing drawn here. Some captions carry one, so that a model learns to pass over
# what it does not know instead of being thrown by it.
FILLERS = (
    "beautiful", "nice", "lovely", "cute", "pretty", "amazing", "majestic", "professional", "realistic", "happy",
    "masterpiece", "artistic", "very", "really", "4k", "hd", "trending", "award winning", "vivid", "fluffy", "old",
    "young", "fast", "magic", "great", "please", "some", "with", "and", "of", "photorealistic", "stunning",
)  # fmt: skip


def with_filler(text: str, rng: Rng) -> str:
    """A caption with one or two meaningless words put in: a filler, or letters that are no word at all."""
    words = text.split()
    for _ in range(int(rng.integers(1, 3))):
        if rng.random() < 0.5:
            new = _pick(rng, FILLERS)
        else:
            letters = rng.choice(list("etaoinshrdlcumwfgypbvkjxqz"), int(rng.integers(3, 9)))
            new = "".join(letters)
        words.insert(int(rng.integers(len(words) + 1)), new)
    return " ".join(words)


def vocabulary() -> list[str]:
    """Every word a caption can contain, sorted."""
    phrases = [*SUBJECTS, *COLOURS, *BAD, *GOOD, "a", "an", "the", "on", "background"]
    for _, category, synonyms in SUBJECTS.values():
        phrases += [category, *synonyms]
    phrases += [word for _, words in COLOURS.values() for word in words]
    for table in (SETTINGS, LIGHTS, STYLES, QUALITIES, SIDES, SCALES):
        phrases += [phrase for words in table.values() for phrase in words]
    return sorted({word for phrase in phrases for word in phrase.split()})


# What people ask for that is not drawn here, and what comes nearest to it.
NEAR: dict[str, tuple[str, ...]] = {
    "wolf": ("dog", "fox"), "coyote": ("fox", "dog"), "hound": ("dog",), "dogs": ("dog",), "cats": ("cat",),
    "hare": ("rabbit",), "hamster": ("rabbit", "bear"), "mouse": ("rabbit",), "squirrel": ("fox", "rabbit"),
    "hedgehog": ("rabbit", "cactus"), "donkey": ("horse",), "unicorn": ("horse",), "deer": ("giraffe", "horse"),
    "bull": ("cow",), "goat": ("sheep",), "hippo": ("elephant", "pig"), "rhino": ("elephant",),
    "leopard": ("tiger",), "cheetah": ("tiger",), "puma": ("lion", "tiger"), "koala": ("bear", "panda"),
    "gorilla": ("monkey",), "chimpanzee": ("monkey",), "eagle": ("owl", "parrot"), "crow": ("black owl",),
    "hen": ("chick", "duck"), "rooster": ("chick",), "goose": ("duck",), "swan": ("duck",),
    "pigeon": ("owl", "parrot"), "peacock": ("parrot", "flamingo"), "snake": ("snail",), "lizard": ("dinosaur",),
    "crocodile": ("dinosaur",), "dragon": ("dinosaur",), "shark": ("whale", "fish"), "dolphin": ("whale",),
    "lobster": ("crab",), "moth": ("butterfly",), "wasp": ("bee",), "spider": ("ladybug", "crab"),
    "truck": ("bus", "tractor"), "lorry": ("bus", "tractor"), "taxi": ("yellow car",), "van": ("bus", "car"),
    "motorcycle": ("bicycle",), "motorbike": ("bicycle",), "tram": ("train", "bus"), "ship": ("sailboat",),
    "yacht": ("sailboat",), "jet": ("airplane",), "ufo": ("spaceship", "alien"), "shuttle": ("rocket",),
    "palace": ("castle",), "tower": ("castle",), "hut": ("house", "tent"), "church": ("castle", "house"),
    "skyscraper": ("tall buildings",), "bush": ("tree",), "palm": ("tree",), "rose": ("tulip",),
    "daisy": ("sunflower",), "flowers": ("flower",), "pear": ("apple",), "cherry": ("apple",),
    "peach": ("apple",), "lemon": ("banana",), "mango": ("pineapple",),
    "sandwich": ("burger",), "cupcake": ("cake",), "pie": ("pizza", "cake"), "cookie": ("donut",),
    "person": ("robot", "alien"), "man": ("snowman", "robot"), "woman": ("robot", "alien"), "boy": ("teddy bear",),
    "girl": ("teddy bear",), "people": ("robot", "alien"), "child": ("teddy bear",), "monster": ("ghost", "alien"),
    "doll": ("teddy bear",), "piano": ("guitar",), "violin": ("guitar",), "hat": ("crown", "umbrella"),
    "basketball": ("ball",), "tennis": ("ball",),
    "brown": ("orange", "black"), "grey": ("black", "white"), "gray": ("black", "white"), "gold": ("yellow",),
    "silver": ("white",), "turquoise": ("blue", "green"), "cyan": ("blue",), "teal": ("green",),
    "navy": ("blue",), "rainbow": ("pink", "purple"), "colorful": ("red", "yellow"), "colourful": ("red", "yellow"),
    "beach": ("seaside", "sand"), "lake": ("water", "sea"), "river": ("water", "sea"), "underwater": ("sea",),
    "garden": ("meadow", "lawn"), "park": ("meadow", "lawn"), "jungle": ("forest",), "wood": ("woods",),
    "village": ("town", "city"), "farm": ("meadow",), "snowfall": ("snow",), "moonscape": ("space",),
    "universe": ("space", "galaxy"), "hills": ("hill", "mountains"), "savanna": ("desert", "meadow"),
    "twilight": ("dusk",), "rain": ("umbrella",),
    "nighttime": ("night",), "daytime": ("noon", "daylight"), "afternoon": ("noon", "evening"),
    "painting": ("illustration", "drawing"), "watercolor": ("illustration",), "watercolour": ("illustration",),
    "anime": ("cartoon",), "comic": ("cartoon",), "photograph": ("photo",), "realistic": ("photo", "3d render"),
    "doodle": ("sketch",), "outlined": ("outline",), "crisp": ("sharp",), "unsharp": ("blurry",), "hazy": ("blurry",),
    "ugly": ("low quality",), "pixel": ("pixelated",), "grain": ("grainy",), "bright": ("daylight", "sunny"),
}  # fmt: skip
