"""The playbook as it was at a revision of git, in a folder of its own for as long as it is looked at. Knows no segments."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.playbook import PLAYBOOK, PlaybookError
from shopauto_pipelines.platform.words import nearest

#: Seconds that git may take.
_PATIENCE = 60


class RevisionError(ShopAutoError):
    """There is no such revision, or no playbook in it; the text says what there is."""


@contextmanager
def at_revision(ref: str, folder: Path = PLAYBOOK) -> Iterator[Path]:
    """A folder with what ``folder`` held at ``ref``: a branch, a tag, a commit, ``HEAD~3``. The work tree is left alone.

    Errors in declarations found inside the ``with`` name ``ref`` and the path in the repository. Raises
    :class:`RevisionError`.
    """
    if not folder.is_dir():
        raise RevisionError(f"there is no folder {folder}")
    commit, inside = _commit(ref, folder), _git(folder, "rev-parse", "--show-prefix").decode().strip()
    top = Path(_git(folder, "rev-parse", "--show-toplevel").decode().strip())
    if not _git(top, "ls-tree", "-d", commit, "--", inside.rstrip("/")) and inside:
        raise RevisionError(f"{ref} has no folder {inside}: there is nothing to compare with")
    archive = _git(top, "archive", "--format=tar", commit, *([inside] if inside else []))
    with tempfile.TemporaryDirectory(prefix="shopauto-playbook-") as made:
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(made, filter="data")
        try:
            yield Path(made, inside)
        except PlaybookError as error:
            raise PlaybookError(str(error).replace(f"{made}/", f"{ref}:")) from None


def _commit(ref: str, folder: Path) -> str:
    """The commit that ``ref`` names."""
    if ref.startswith("-"):
        raise RevisionError(f"{ref!r} is not a revision")
    try:
        return _git(folder, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}").decode().strip()
    except RevisionError:
        _git(folder, "rev-parse", "--git-dir")  # says so where this is no repository at all
    names = _git(folder, "for-each-ref", "--format=%(refname:short)").decode().split()
    hint = nearest(ref, names, quote="", most=8) if names else "there are no branches or tags"
    shallow = _git(folder, "rev-parse", "--is-shallow-repository").strip() == b"true"
    fetch = f"; the clone is shallow: `git fetch --unshallow`, or `git fetch origin {ref}`, first" if shallow else ""
    raise RevisionError(f"git knows no revision {ref!r}; {hint}{fetch}")


def _git(folder: Path, *arguments: str) -> bytes:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, check=False, timeout=_PATIENCE
        )
    except FileNotFoundError:
        raise RevisionError("git is not installed: give two folders instead") from None
    except subprocess.TimeoutExpired:
        raise RevisionError(f"git {arguments[0]} took longer than {_PATIENCE} seconds") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().removeprefix("fatal: ") or "failed"
        raise RevisionError(f"git {arguments[0]}: {said}")
    return done.stdout
