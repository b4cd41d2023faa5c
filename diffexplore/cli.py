"""The `diffexplore` command: JupyterLab on the first notebook, a shared model, a check-up, or a benchmark."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

FIRST = "01_first_steps.ipynb"


def notebooks(folder: Path) -> Path:
    """The folder with copies of the notebooks and their glossary, yours to change: the originals stay, in a clone too.

    A copy that is already there is never overwritten.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for source in sorted([*originals().glob("*.ipynb"), *originals().glob("*.md")]):
        if not (folder / source.name).exists():
            shutil.copy(source, folder / source.name)
    return folder


def originals() -> Path:
    """The folder that the notebooks came in: a clone's, or that of the installed package."""
    package = Path(__file__).resolve().parent
    clone = package.parent / "notebooks"
    return (
        clone if (clone / FIRST).is_file() and (package.parent / "pyproject.toml").is_file() else package / "notebooks"
    )


def lab_command(folder: Path, arguments: Sequence[str] = ()) -> list[str]:
    """The command line that opens JupyterLab on the first notebook in `folder`, with its first widget drawing.

    What it says holds for this start alone: no question whether there may be news, no look for updates, and an
    extension that runs the first cells (``lab/diffexplore-first``, which turns the question off too).
    """
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}"]
    # Unlike a file to open, the default URL is also in the link that is printed where no browser can be started.
    command.append(f"--LabApp.default_url=/lab/tree/{FIRST}")
    command += ["--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    command.append(f"--LabApp.extra_labextensions_path={Path(__file__).resolve().parent / 'lab'}")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # containers and classroom machines often have no other user
    return [*command, *arguments]


def _become(command: list[str]) -> int:
    """Go on as another program, so that a signal to this process (Ctrl-C, an end of service) is one to that program."""
    if os.name == "posix":  # elsewhere a console takes the replaced process for an ended one
        sys.stdout.flush()
        os.execv(command[0], command)
    return subprocess.call(command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Options that are not ours (``--no-browser``, ``--port=...``) go on to JupyterLab."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    folder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    folder.add_argument(
        "--folder",
        type=Path,
        default=Path("diffexplore-notebooks"),
        help="where the notebooks are copied to (default: %(default)s)",
    )
    parser = argparse.ArgumentParser(
        prog="diffexplore", description=__doc__.splitlines()[0] if __doc__ else None, parents=[folder]
    )
    commands = parser.add_subparsers(dest="command")
    bench = commands.add_parser("bench", help="measure this machine and print a table")
    bench.add_argument("--json", metavar="FILE", help="write the figures as JSON too (- for standard output)")
    bench.add_argument("--rounds", type=int, default=5, help="repetitions of every row (default: %(default)s)")
    bench.add_argument("--gpu", action="store_true", help="measure a CUDA card, with networks of real sizes")
    share = commands.add_parser("share", help="share one model with a room of learners, until this is ended")
    share.add_argument(
        "source", nargs="?", help="pocket-turbo, pocket-flow, a folder, a file or a hub id (default: pocket)"
    )
    share.add_argument("--address", help="where to listen, such as tls://0.0.0.0:8790 (default: 127.0.0.1:8790)")
    share.add_argument("--security", metavar="FOLDER", help="who may connect: ca.pem, cert.pem and key.pem")
    share.add_argument("--device", help="where to run, such as cuda")
    share.add_argument("--dtype", help="such as float16")
    commands.add_parser("doctor", help="say what is here, what is missing, and how to get it")
    args, rest = folder.parse_known_args(arguments)
    # A first word of ours goes to our parser; after an option of JupyterLab a word is that option's ("--port 8888").
    args.command = None
    if rest and (not rest[0].startswith("-") or rest[0] in ("-h", "--help")):
        args, rest = parser.parse_known_args(arguments)
    if args.command == "doctor":
        if rest:
            parser.error(f"doctor does not know {' '.join(rest)}")
        from diffexplore.doctor import run as examine

        return examine()
    if args.command == "bench":
        if rest:
            parser.error(f"bench does not know {' '.join(rest)}")
        from diffexplore.bench import run

        try:
            return run(args.rounds, args.json, gpu=args.gpu)
        except ValueError as error:
            parser.error(str(error))
    if args.command == "share":
        if rest:
            parser.error(f"share does not know {' '.join(rest)}")
        from diffexplore.rooms.keeper import keep

        return keep(args.source, args.address, args.security, device=args.device, dtype=args.dtype)
    if importlib.util.find_spec("jupyterlab") is None:
        print("JupyterLab is not installed here; get it with: pip install jupyterlab", file=sys.stderr)
        return 1
    return _become(lab_command(notebooks(args.folder).resolve(), rest))


if __name__ == "__main__":
    sys.exit(main())
