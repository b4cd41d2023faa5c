"""`Recipes`: settings that come from a picture or from a message, and go out as a line that fits a chat.

A picture that is dropped on the widget says how it was drawn, and the controls then say the same; so does a text that
is pasted into the prompt, or behind the button. What comes is a stranger's: `Settings` checks it, and what this model
cannot do of it is left out, in words.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Self

import traitlets
from PIL import Image

from diffexplore.looks.pictures import read_picture
from diffexplore.looks.recipe import Recipe, drawn_by, from_parameters, recipe_in
from diffexplore.pipelines.open import POCKETS
from diffexplore.pipelines.signature import LackingError
from diffexplore.settings import Settings
from diffexplore.widgets.browser import RECIPE, RECIPE_CSS
from diffexplore.widgets.controls import icon_chip, marked, model_of, pocket
from diffexplore.widgets.controls import sentence as whole
from diffexplore.widgets.picture import PictureField
from diffexplore.words import sentence, shown

if TYPE_CHECKING:
    from diffexplore.model import Model
    from diffexplore.widgets.runner import Runner
    from diffexplore.widgets.viewer import Viewer

__all__ = ["RecipeField", "Recipes", "fitted", "recipe_of_text"]

_PLAIN: Final = ("prompt", "negative_prompt", "steps", "guidance", "seed")  # what every model takes
_SIZE: Final = ("width", "height")


def recipe_of_text(text: str) -> Recipe:
    """Settings from a text: `Settings.to_text`, or what other programs show as ``parameters``.

    Raises:
        ValueError: One sentence, for a text that holds none, or a value that is refused.
    """
    lines = [line for line in text.strip().split("\n") if line.startswith("Steps: ")]
    return Recipe(*from_parameters(text)) if lines and "dx1{" not in text else Recipe(Settings.from_text(text), [])


def fitted(model: Model, asked: Settings) -> Recipe:
    """As much of settings as a model can do, and what it cannot, in words.

    Raises:
        ValueError: One sentence, if it cannot do even the plainest of them.
    """
    values, notes = asked.model_dump(), []
    if values.pop("strength") is not None:
        notes.append(f"strength {asked.strength:g} is of the picture that the run started from")
    made = Settings(**{name: values[name] for name in _PLAIN})
    _refuse(model, made)
    rest = [name for name in values if name not in (*_PLAIN, *_SIZE) and values[name] != getattr(made, name)]
    for names in (_SIZE, *((name,) for name in rest)):
        try:
            more = made.replace(**{name: values[name] for name in names})
            _refuse(model, more)
        except ValueError as error:
            notes.append(sentence(error))
        else:
            made = more
    return Recipe(made, notes)


def _refuse(model: Model, settings: Settings) -> None:
    try:
        model.plan(settings)
    except LackingError:  # which is asked for, and waited for
        model.resolve(settings)


class RecipeField(PictureField):
    """A field for a picture or a text that settings are read from, and their own text to be copied.

    From a page comes also ``{"kind": "text", "text": ...}``. A picture that is dropped anywhere on the widget around it
    is for this field, unless it is dropped on another one.
    """

    _esm = RECIPE
    _css = RECIPE_CSS
    text = traitlets.Unicode().tag(sync=True)
    """The settings, to be copied."""

    def __init__(self, given: Callable[[bytes, str], object], told: Callable[[str], object]) -> None:
        """Empty.

        Args:
            given: Hears of a file that was handed over: its bytes, and what it is called.
            told: Hears of a text.
        """
        self._given, self._told = given, told
        super().__init__(taken=lambda *_: None, refused=lambda _: None)
        self.show(None)

    def show(self, picture: Image.Image | None, about: str = "") -> None:
        """Show a picture, and say something of it; None for none."""
        super().show(picture, about)
        if picture is None:
            self.about = about or "drop or paste a picture with a recipe, or press to choose one"

    def receive(self, data: bytes, name: str) -> None:
        """A file was handed over."""
        self._given(data, name)

    def _on_message(self, _: Any, content: Any, buffers: Any) -> None:
        if isinstance(content, dict) and content.get("kind") == "text" and isinstance(content.get("text"), str):
            self._told(content["text"])
        else:
            super()._on_message(_, content, buffers)


class Recipes(traitlets.HasTraits):  # type: ignore[misc]
    """What an `Explorer` does with recipes: `from_image`, `use`, and a button among the controls."""

    model: Model
    viewer: Viewer
    extra: Mapping[str, Any]
    _runner: Runner
    _size: dict[str, Any]
    _plain: Settings
    _used: Recipe | None = None  # what the controls were given last, and what was to be said of it
    _drew: str = ""  # by which model
    _field: RecipeField | None = None

    @classmethod
    def from_image(cls, picture: str | os.PathLike[str] | bytes, model: Model | None = None, **more: Any) -> Self:
        """A widget whose controls say what a picture carries; what cannot be carried over is among its notes.

        Args:
            picture: A picture with a recipe, as ``diffexplore.read_recipe`` takes it: a path, or what is in a file.
            model: What draws; None: the one that drew it, if it comes with the package, else the pocket model.
            **more: What the widget takes beside, in place of what the picture says.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: One sentence: the picture carries no recipe or a damaged one, or the model cannot do it.
        """
        found = recipe_in(picture)
        drew = drawn_by(picture)
        known = model is None and drew.ours and drew.name in POCKETS
        model = pocket(drew.name) if known else model_of(model, cls.__name__)
        recipe = fitted(model, found.settings)
        made = cls(model, **recipe.settings.model_dump(exclude={"strength"}) | more)
        made._noted(found.notes + recipe.notes, drew.name)
        return made

    def use(self, settings: Settings | str) -> None:
        """Let the controls say these settings, as far as the model can do them; what it cannot is noted.

        Args:
            settings: That, or a text that says them: `Settings.to_text`, or another program's ``parameters``.

        Raises:
            ValueError: One sentence, for a text that holds none; nothing has changed.
        """
        self._use(recipe_of_text(settings) if isinstance(settings, str) else Recipe(settings, []))

    def _use(self, found: Recipe, drew: str = "") -> None:
        recipe = fitted(self.model, found.settings)
        size = {name: getattr(self.model.resolve(recipe.settings), name) for name in _SIZE}
        self._take_over(recipe.settings, size)
        self._noted(found.notes + recipe.notes, drew)

    def _take_over(self, settings: Settings, size: Mapping[str, Any]) -> None:
        """Let the controls say settings, and run them where changes run."""
        raise NotImplementedError

    def _asked_now(self) -> Settings:
        """What the controls say."""
        raise NotImplementedError

    def _notes(self) -> list[str]:
        """What is said beside the pictures."""
        raise NotImplementedError

    def _noted(self, notes: list[str], drew: str) -> None:
        self._used, self._drew = Recipe(self._asked_now(), notes), drew
        self.viewer.tell(error="", notes=self._notes())

    def _of_recipe(self) -> list[str]:
        """What of a recipe could not be carried over, for as long as the controls say what could."""
        if self._used is None or self._used.settings != self._asked_now():
            return []
        said, own = [], self.model.name
        if self._drew not in ("", own):
            said.append(f"The recipe is of a picture by {shown(self._drew)}; {shown(own)} makes another one of it.")
        if self._used.notes:
            lost = "; ".join(one.rstrip(".") for one in self._used.notes)
            said.append(f"Not all of the recipe is carried over: {lost}.")
        return said

    # --- the button ---

    def _recipe_chip(self) -> Any:
        """A button that opens the field."""
        self._field = RecipeField(self._dropped, lambda text: self._heard(lambda: self.use(text), "from a text"))
        title = "settings from a picture or a message, and as a line to share"
        return marked(icon_chip("share-alt", title, self._field), "recipe")

    def _say_recipe(self) -> None:
        """Keep the text to be copied up to date."""
        if self._field is not None:
            asked, plain = self._asked_now(), self._plain
            if all(getattr(asked, name) in (None, getattr(plain, name)) for name in _SIZE):
                asked = asked.model_copy(update=dict.fromkeys(_SIZE))  # every model has a size of its own
            self._field.text = asked.to_text()

    def _is_recipe(self, text: object) -> bool:
        """Whether a text that was pasted into the prompt is settings, which the controls then say."""
        if not isinstance(text, str) or "dx1{" not in text[:200]:
            return False
        try:
            Settings.from_text(text)
        except ValueError:
            return False  # it is being typed, or is a prompt
        self._heard(lambda: self.use(text), "from a text")
        return True

    def _dropped(self, data: bytes, name: str) -> None:
        def go() -> None:
            self._use(recipe_in(data, name), drawn_by(data).name)

        self._heard(go, f"from {name}" if name else "from the picture", data)

    def _heard(self, go: Callable[[], object], about: str, data: bytes = b"") -> None:
        """Take something in, and say in the field where it is from; or why it is not taken."""
        assert self._field is not None
        try:
            go()
        except ValueError as error:
            self._field.show(None)
            self.viewer.tell(error=whole(ValueError(f"{sentence(error)}{self._instead() if data else ''}")))
            return
        try:
            picture = read_picture(data) if data else None
        except ValueError:  # the recipe is whole, the pixels are not
            picture = None
        self._field.show(picture, about if about.isprintable() else shown(about))

    def _instead(self) -> str:
        """What else can be done with a picture that has no recipe."""
        if self.model.abilities["image"] is not True:
            return ""
        return "; a picture to start from is handed over apart, as image="
