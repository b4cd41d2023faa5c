"""An honest eye on the pocket models: by a second judge, that of another architecture which nothing was chosen by.

    python -m diffexplore.pocket.factory.measure draw --art FOLDER --model pocket-turbo --out runs/turbo.npz
    python -m diffexplore.pocket.factory.measure compare runs/turbo.npz runs/pocket.npz --eye runs/judge2.safetensors
    python -m diffexplore.pocket.factory.measure guidance runs/pocket.npz --at 1 2 3 5 8 --eye runs/judge2.safetensors
    python -m diffexplore.pocket.factory.measure sheet runs/pocket.npz --out runs

`draw` puts into one file all that a measurement needs: what a model draws of the benchmark's captions, what the factory
composes of the same scenes, twice, and the second of these through the model's own VAE. `compare` looks at such files,
also those of models that are gone, and says how far each set is from the composed one. All distances are between the
features of one eye, so figures of two eyes do not compare. `guidance` draws the same captions from the same seeds at
each of several guidances, which trade likeness against variety. `sheet` is for people: the rows are the subjects.

Sources: Frechet distance, https://arxiv.org/abs/1706.08500; precision and recall, https://arxiv.org/abs/1904.06991.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffexplore.model import Model, load
from diffexplore.pocket.factory import eyes, scenes, sheets
from diffexplore.pocket.factory.obedience import as_json, bench_scenes, full_caption
from diffexplore.pocket.factory.pool import end_with_parent, truth
from diffexplore.pocket.judge import ATTRIBUTES, frechet
from diffexplore.pocket.world import SETTINGS, SUBJECTS, Scene, article
from diffexplore.progress import progress
from diffexplore.record.file import written
from diffexplore.settings import Settings
from diffexplore.words import sentence

NEIGHBOURS = 3
"""A picture counts as near a set that has one of its own as near to its third neighbour."""
NEAR = (200, 8)
"""Of so many captions so many more pictures are composed, to look for the nearest."""
SEED = 4242
SIDE = 128
"""Pixels a side at which the eye looks at every picture."""

# --- what is measured ----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What a measurement needs of one model; N captions, half of trained pairs, half of held-out ones.

    Attributes:
        model: what it is called.
        settings: how it drew, as a sentence.
        kinds: (N,) "trained" or "held-out".
        truths: for each caption what can be read off its picture, attribute -> value.
        drawn: (N, S, S, 3) uint8, the model's pictures; the others likewise.
        composed, again: the factory's pictures of the same scenes, two sets.
        through: `again` through the model's VAE.
        near: (n, k, S, S, 3), for the first captions of each kind k more composed pictures; `near_of` says which.
        near_of: (n,) indices into the captions.
        subjects: those in the sheet.
        sheet: (subjects, 8, S, S, 3), each of them in the eight settings, with seeds 0 to 7.
        art: (subjects, S, S, 3), how they are to look.
    """

    model: str
    settings: str
    kinds: np.ndarray
    truths: list[dict[str, str]]
    drawn: np.ndarray
    composed: np.ndarray
    again: np.ndarray
    through: np.ndarray
    near: np.ndarray
    near_of: np.ndarray
    subjects: list[str]
    sheet: np.ndarray
    art: np.ndarray

    WORDS = ("model", "settings", "truths", "subjects")
    ARRAYS = ("kinds", "drawn", "composed", "again", "through", "near", "near_of", "sheet", "art")

    def save(self, path: Path) -> None:
        """Write it as one npz file."""
        said = json.dumps({name: getattr(self, name) for name in self.WORDS})
        path.parent.mkdir(parents=True, exist_ok=True)
        with written(path) as file:
            np.savez(file, said=np.array(said), **{name: getattr(self, name) for name in self.ARRAYS})

    @classmethod
    def open(cls, path: Path) -> Evidence:
        """Read what `save` wrote.

        Raises:
            ValueError: it is another kind of file.
            OSError: it cannot be read.
        """
        try:
            with np.load(path, allow_pickle=False) as kept:
                return cls(**json.loads(str(kept["said"])), **{name: kept[name] for name in cls.ARRAYS})
        except (KeyError, ValueError, TypeError, EOFError) as error:
            raise ValueError(f"{path} is no file that `measure draw` wrote: {sentence(error)}") from None


def draw(
    source: Any, art: str, *, prompts: int = 500, device: str | None = None, changed: dict[str, Any] | None = None,
    at_once: int = 8, workers: int = 1, subjects: Sequence[str] = tuple(SUBJECTS),
) -> Evidence:  # fmt: skip
    """Draw and compose all that `Evidence` holds.

    Args:
        source: a model, as `load` takes it.
        art: folder of the subjects.
        prompts: captions of each kind.
        device: where to draw.
        changed: `Settings` other than the model's usual steps, guidance 5 and its own sampler.
        at_once: pictures in one batch.
        workers: processes that compose while the model draws; 1: it is done here, before.
        subjects: whom the sheet shows.
    """
    cutouts = scenes.Art(art)
    model = load(source, device, reuse=0)
    base = _base(model, changed)
    chosen, kinds = _captions(prompts)
    count, size = len(chosen), model.size[0]
    near_of = [k for k in range(count) if k % prompts < NEAR[0] // 2]
    seeds: list[tuple[int, ...]] = [(part, k) for part in range(2) for k in range(count)]
    seeds += [(2, k, n) for k in near_of for n in range(NEAR[1])]
    wanted = [(str(art), size, chosen[seed[1]], seed) for seed in seeds]
    asked = _asked(base, chosen)
    shows = [base.replace(prompt=text, seed=seed) for subject in subjects for seed, text in enumerate(asks(subject))]
    with contextlib.ExitStack() as stack:
        if workers > 1:
            pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(workers, end_with_parent))
            coming = pool.map_async(_composed, wanted, chunksize=32)
            made = _drawn(model, [*asked, *shows], at_once)
            composed = np.stack(coming.get())
        else:
            composed = np.stack([_composed(one) for one in progress(wanted, "composing")])
            made = _drawn(model, [*asked, *shows], at_once)
    again = composed[count : 2 * count]
    return Evidence(
        model=model.name,
        settings=f"{base.sampler or 'its own sampler'}, {base.steps} steps, guidance {base.guidance:g}",
        kinds=np.array(kinds),
        truths=[truth(scene) for scene in chosen],
        drawn=made[: len(asked)],
        composed=composed[:count],
        again=again,
        through=through(model.pipeline.vae, again),
        near=composed[2 * count :].reshape(len(near_of), NEAR[1], *composed.shape[1:]),
        near_of=np.array(near_of),
        subjects=list(subjects),
        sheet=made[len(asked) :].reshape(len(subjects), len(SETTINGS), size, size, 3),
        art=np.stack([sheets.on_white(cutouts.cutout(subject, size), size) for subject in subjects]),
    )


def _base(model: Model, changed: dict[str, Any] | None) -> Settings:
    return Settings(**{"steps": model.usual_steps, "guidance": 5.0, **(changed or {})})


def _captions(prompts: int) -> tuple[list[Scene], list[str]]:
    """So many scenes of each kind, and of which kind each is."""
    kinds = ("trained", "held-out")
    scenes_of = [(scene, kind) for kind in kinds for scene in bench_scenes(prompts, holdout=kind == "held-out")]
    return [scene for scene, _ in scenes_of], [kind for _, kind in scenes_of]


def _asked(base: Settings, chosen: Sequence[Scene]) -> list[Settings]:
    half = len(chosen) // 2
    return [base.replace(prompt=full_caption(scene), seed=k % half) for k, scene in enumerate(chosen)]


def asks(subject: str) -> list[str]:
    """The prompts of a row of the sheet: the subject in each of the settings, at noon."""
    said = f"{article(subject)} {subject}"
    return [f"{said} {words[0]}" + ("" if name == "space" else " at noon") for name, words in SETTINGS.items()]


_art = functools.lru_cache(1)(scenes.Art)


def _composed(one: tuple[str, int, Scene, tuple[int, ...]]) -> np.ndarray:
    art, size, scene, seed = one
    return scenes.draw(scene, _art(art), np.random.default_rng([SEED, *seed]), size)


def _drawn(model: Model, wanted: Sequence[Settings], at_once: int) -> np.ndarray:
    out: list[np.ndarray] = []
    for start in progress(range(0, len(wanted), at_once), "drawing"):
        out += [np.array(trace.image) for trace in model.trace_many(list(wanted[start : start + at_once]))]
    return np.stack(out)


def through(vae: Any, pictures: np.ndarray, at_once: int = 32) -> np.ndarray:
    """(N, S, S, 3) uint8 encoded and decoded again."""
    import torch

    out = []
    with torch.inference_mode():
        for part in np.split(pictures, range(at_once, len(pictures), at_once)):
            x = torch.from_numpy(part).permute(0, 3, 1, 2).to(vae.device, vae.dtype) / 127.5 - 1
            made = vae.decode(vae.encode(x).latent_dist.mode()).sample.float().clamp(-1, 1)
            out.append(((made + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(out)


# --- the eye -------------------------------------------------------------------------------------------------------


class Eye:
    """A trained second judge as an instrument: what it reads, and the features it reads it from.

    Args:
        network: as `eyes.make_second` makes it.
        size: pixels a side at which it looks; pictures of other sizes are brought to that, smoothly.
        device: where it computes.
    """

    def __init__(self, network: Any, size: int = SIDE, device: str = "cpu") -> None:
        self.network, self.size, self.device = network, size, device

    def look(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, S, S, 3) uint8 -> features (N, D) float64 and what it takes each for (N, attributes), as indices."""
        features, scores = eyes.features(self.network, list(pictures), self.size, self.device)
        parts = np.split(scores, np.cumsum([len(values) for values in ATTRIBUTES.values()])[:-1], 1)
        return features.astype(np.float64), np.stack([part.argmax(1) for part in parts], 1)


def open_eye(path: Path, device: str = "cpu") -> Eye:
    """The second judge whose weights lie in a file.

    Raises:
        ValueError: they are not those of a second judge.
        OSError: the file cannot be read.
    """
    from safetensors import SafetensorError

    try:
        return Eye(eyes.read_second(path), device=device)
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} holds no second judge: {sentence(error)}") from None


# --- figures -------------------------------------------------------------------------------------------------------


def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Euclidean distances between all of (N, D) and all of (M, D): (N, M)."""
    squares = np.square(one).sum(1)[:, None] + np.square(other).sum(1)[None] - 2 * one @ other.T
    return np.sqrt(squares.clip(0))


def covered(points: np.ndarray, by: np.ndarray, neighbours: int = NEIGHBOURS) -> float:
    """The share of `points` that lie in the manifold of the set `by`: no further from one of it than that is from its
    third neighbour. Of drawn ones by composed ones it is the precision, the other way round the recall."""
    reach = np.sort(distances(by, by), 1)[:, neighbours]
    return float((distances(points, by) <= reach).any(1).mean())


def nearest(points: np.ndarray, near: np.ndarray) -> np.ndarray:
    """For each of (n, D) which of its own (n, k, D) is nearest, and how far: (n, 2)."""
    far = np.linalg.norm(near - points[:, None], axis=-1)
    return np.stack([far.argmin(1), far.min(1)], 1)


def compare(evidence: Evidence, eye: Eye, world: Evidence | None = None) -> dict[str, dict[str, float]]:
    """What an eye says of a model.

    Args:
        evidence: of the model.
        eye: a judge that the model was not chosen by.
        world: whose composed pictures to compare with; None: the model's own.

    Returns:
        For the sets "drawn", "through the VAE", "composed again" (what a perfect model would get) and, with another
        world, "its own world": "frechet" to the composed pictures, in percent of their spread; "precision", "recall";
        "nearest", the mean distance to the nearest of the composed pictures of the same caption, in units of the
        composed pictures' usual distance from their middle; and what the eye reads: "subject", the share of right ones,
        "trained" and "held-out", the shares of pictures in which everything the caption says is right.
    """
    sets = {"drawn": evidence.drawn, "through the VAE": evidence.through, "composed again": (world or evidence).again}
    if world is not None:
        sets["its own world"] = evidence.composed
    return _against(sets, evidence, eye, world or evidence)


def over(
    guidance: Sequence[float], source: Any, evidence: Evidence, eye: Eye, *, device: str | None = None,
    changed: dict[str, Any] | None = None, at_once: int = 8,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """What an eye says of a model under several guidances: the same captions, the same seeds.

    Args:
        guidance: under which it draws.
        source: a model, as `load` takes it.
        evidence: whose captions it draws and whose composed pictures it is compared with, of another model's too.
        eye: a judge that the model was not chosen by.
        device, changed, at_once: as `draw` takes them.

    Returns:
        For "guidance 1" and so on the figures of `compare`.
    """
    model = load(source, device, reuse=0)
    chosen, _ = _captions(len(evidence.kinds) // 2)
    rows = {f"guidance {value:g}": _base(model, {**(changed or {}), "guidance": value}) for value in guidance}
    sets = {name: _drawn(model, _asked(base, chosen), at_once) for name, base in rows.items()}
    return _against(sets, evidence, eye, evidence)


def _against(sets: dict[str, np.ndarray], evidence: Evidence, eye: Eye, other: Evidence) -> dict[str, dict[str, float]]:
    """The figures of several sets of pictures of the captions of `evidence`, beside what `other` has composed."""
    base = eye.look(other.composed)[0]
    scale = np.sqrt(base.var(0, ddof=1).sum())
    base = base / scale
    count = len(evidence.near_of)
    near, _ = eye.look(other.near.reshape(-1, *other.near.shape[2:]))
    near = near.reshape(count, -1, near.shape[-1]) / scale
    out = {}
    for name, pictures in sets.items():
        features, read = eye.look(pictures)
        features = features / scale
        out[name] = {
            "frechet": 100 * frechet(features, base),
            "precision": covered(features, base),
            "recall": covered(base, features),
            "nearest": float(nearest(features[evidence.near_of], near)[:, 1].mean()),
            **_right(read, evidence),
        }
    return out


def _right(read: np.ndarray, evidence: Evidence) -> dict[str, float]:
    """Shares of pictures of which the eye reads what their captions say."""
    said = [name for name in ATTRIBUTES if name != "quality"]
    right = np.ones(read.shape, bool)
    for k, known in enumerate(evidence.truths):
        for column, (name, values) in enumerate(ATTRIBUTES.items()):
            if name in said and name in known:
                right[k, column] = values[int(read[k, column])] == known[name]
    everything = np.asarray(right.all(1))
    out = {"subject": float(right[:, list(ATTRIBUTES).index("subject")].mean())}
    for kind in ("trained", "held-out"):
        out[kind] = float(everything[evidence.kinds == kind].mean())
    return out


def misread(evidence: Evidence, eye: Eye, least: int = 2) -> list[tuple[str, int, str]]:
    """The subjects that an eye misreads in the sheet at least so often: name, how often, and as what most of all."""
    names = ATTRIBUTES["subject"]
    rows, columns = evidence.sheet.shape[:2]
    _, read = eye.look(evidence.sheet.reshape(-1, *evidence.sheet.shape[2:]))
    taken = read[:, list(ATTRIBUTES).index("subject")].reshape(rows, columns)
    out = []
    for subject, row in zip(evidence.subjects, taken, strict=True):
        wrong = [names[k] for k in row if names[k] != subject]
        if len(wrong) >= least:
            out.append((subject, len(wrong), max(wrong, key=wrong.count)))
    return sorted(out, key=lambda one: -one[1])


def as_text(result: dict[str, dict[str, float]]) -> str:
    """A row for each set, a column for each figure."""
    names = list(next(iter(result.values())))
    first = max(len(row) for row in result)
    lines = [" " * first + "".join(f"{name:>11}" for name in names)]
    for row, figures in result.items():
        lines.append(f"{row:<{first}}" + "".join(_figure(name, figures[name]) for name in names))
    return "\n".join(lines)


def _figure(name: str, value: float) -> str:
    return f"{value:>11.2f}" if name in ("frechet", "nearest") else f"{100 * value:>9.1f} %"


# --- for people ----------------------------------------------------------------------------------------------------


def beside_nearest(evidence: Evidence, eye: Eye, path: Path, pairs: int = 48) -> None:
    """Drawn pictures, each with the nearest of the composed ones of its caption below it, sixteen to a row."""
    drawn = evidence.drawn[evidence.near_of]
    k = eye.look(evidence.near.reshape(-1, *evidence.near.shape[2:]))[0]
    which = nearest(eye.look(drawn)[0], k.reshape(*evidence.near.shape[:2], -1))[:, 0].astype(int)
    chosen = np.linspace(0, len(drawn) - 1, min(pairs, len(drawn))).astype(int)
    sheets.pair_page(drawn[chosen], evidence.near[chosen, which[chosen]], path)


def main(argv: list[str] | None = None) -> None:
    """Draw, compare, or show."""
    parser = argparse.ArgumentParser(
        prog="python -m diffexplore.pocket.factory.measure", description=__doc__.splitlines()[0]
    )
    commands = parser.add_subparsers(dest="what", required=True)
    one = commands.add_parser("draw", help="draw and compose what a measurement needs")
    one.add_argument("--art", required=True, metavar="FOLDER", help="unpacked npm package @lobehub/fluent-emoji-3d")
    one.add_argument("--out", type=Path, required=True, metavar="FILE", help="the npz file to write")
    one.add_argument("--prompts", type=int, default=500, help="captions of each kind (default: %(default)s)")
    one.add_argument("--guidance", type=float, help="guidance (default: 5)")
    one.add_argument("--workers", type=int, default=1, help="processes that compose (default: %(default)s)")
    two = commands.add_parser("compare", help="look at such files with an eye")
    two.add_argument("files", nargs="+", type=Path, metavar="FILE", help="what `draw` wrote")
    two.add_argument("--device", default="cpu", help="where to look (default: %(default)s)")
    two.add_argument("--world", type=Path, metavar="FILE", help="compare with what was composed for this one")
    two.add_argument("--pairs", type=Path, metavar="FOLDER", help="show drawn pictures over their nearest there")
    four = commands.add_parser("guidance", help="draw under several guidances and look at that with an eye")
    four.add_argument("file", type=Path, metavar="FILE", help="what `draw` wrote, of this model or another")
    four.add_argument("--at", type=float, nargs="+", required=True, metavar="NUMBER", help="the guidances")
    for command in (two, four):
        command.add_argument("--eye", type=Path, required=True, metavar="FILE", help="weights of the second judge")
        command.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    for command in (one, four):
        command.add_argument("--model", help="a name, a folder or a file, as load takes it (default: the pocket model)")
        command.add_argument("--steps", type=int, help="steps (default: 20, of a model of few steps 4)")
        command.add_argument("--sampler", help="the sampler (default: the model's own)")
        command.add_argument("--device", help="where to draw (default: a GPU if there is one)")
        command.add_argument("--at-once", type=int, default=8, help="pictures in a batch (default: %(default)s)")
    three = commands.add_parser("sheet", help="contact sheets: the subjects, to be looked at")
    three.add_argument("file", type=Path, metavar="FILE", help="what `draw` wrote")
    three.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the pages go")
    three.add_argument("--blind", action="store_true", help="without names and art")
    args = parser.parse_args(argv)
    try:
        if args.what == "draw":
            _draw(args)
        elif args.what == "compare":
            _compare(args)
        elif args.what == "guidance":
            _over(args)
        else:
            for page in sheets.subject_pages(Evidence.open(args.file), args.out, named=not args.blind):
                print(page)
    except (ValueError, OSError) as error:
        parser.error(sentence(error))


def _known(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that were asked for, and ValueError where a count is less than one."""
    for name in ("prompts", "at_once", "workers"):
        if getattr(args, name, 1) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be 1 or more, got {getattr(args, name)}")
    asked = {name: getattr(args, name, None) for name in ("steps", "guidance", "sampler")}
    return {name: value for name, value in asked.items() if value is not None}


def _draw(args: argparse.Namespace) -> None:
    known = _known(args)
    made = draw(
        args.model, args.art, prompts=args.prompts, device=args.device, changed=known, at_once=args.at_once,
        workers=args.workers,
    )  # fmt: skip
    made.save(args.out)
    print(f"{args.out}: {len(made.drawn)} pictures by {made.model} ({made.settings})")


def _compare(args: argparse.Namespace) -> None:
    eye = open_eye(args.eye, args.device)
    world = Evidence.open(args.world) if args.world else None
    results: dict[str, Any] = {}
    for path in args.files:
        evidence = Evidence.open(path)
        figures = compare(evidence, eye, world)
        wrong = misread(evidence, eye)
        results[path.stem] = {"model": evidence.model, "settings": evidence.settings, "sets": figures, "misread": wrong}
        print(f"{path.stem}: {evidence.model}, {evidence.settings}\n{as_text(figures)}")
        print("misread in the sheet: " + (", ".join(f"{a} ({n} of 8, {b})" for a, n, b in wrong) or "none") + "\n")
        if args.pairs:
            args.pairs.mkdir(parents=True, exist_ok=True)
            beside_nearest(evidence, eye, args.pairs / f"{path.stem}-nearest.png")
    _keep(results, args.json)


def _over(args: argparse.Namespace) -> None:
    known = _known(args)
    evidence, eye = Evidence.open(args.file), open_eye(args.eye)
    found = over(args.at, args.model, evidence, eye, device=args.device, changed=known, at_once=args.at_once)
    print(as_text(found))
    _keep(found, args.json)


def _keep(found: dict[str, Any], path: Path | None) -> None:
    if path:
        with written(path) as file:
            file.write(as_json(found).encode())


if __name__ == "__main__":
    main()
