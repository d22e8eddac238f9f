"""A Debian 13 in a folder, with its Blender 4.3, Python 3.13, PyTorch and a screen that nobody sees. Needs root and debootstrap.

ANYRIG_DEBIAN_MIRROR names the mirror to take it from; debootstrap's own is used without.
Commands run in namespaces of their own: what is mounted for them, and all that they started, is gone when they end.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PACKAGES = ("blender", "xvfb", "xdotool", "imagemagick", "libgl1-mesa-dri")
LIBRARIES = ("python3-torch", "python3-opencv", "python3-scipy", "python3-safetensors")
READY = "anyrig-ready.txt"
TORCH = "usr/lib/python3/dist-packages/torch"
# Software rendering, one thread: the same images everywhere, and a machine that stays usable
ENVIRONMENT = {
    "HOME": "/root",
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "LIBGL_ALWAYS_SOFTWARE": "1",
    "OMP_NUM_THREADS": "1",
    "BLENDER_USER_RESOURCES": "/shared/profile",
}


def obstacle() -> str:
    """Why no such folder can be used here, or ''."""
    missing = [tool for tool in ("debootstrap", "unshare", "chroot") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not found: apt-get install debootstrap util-linux coreutils"
    tried = subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, text=True)
    return "" if tried.returncode == 0 else f"namespaces need root: {tried.stderr.strip()}"


@dataclass(frozen=True)
class Debian:
    """root: the folder. shared, repository: folders seen inside as /shared and, read-only, /repo."""

    root: Path
    shared: Path
    repository: Path
    more: Mapping[str, str] = field(default_factory=dict)

    def make(self) -> None:
        """Fill the folder, unless that was done before. Takes minutes and 3.3 GB."""
        if (self.root / READY).exists():
            return
        self.root.mkdir(parents=True, exist_ok=True)
        mirror = os.environ.get("ANYRIG_DEBIAN_MIRROR", "").split()
        subprocess.run(["debootstrap", "--variant=minbase", "trixie", str(self.root), *mirror], check=True)
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES, *LIBRARIES]
        self.run(["sh", "-c", f"apt-get update -qq && {shlex.join(install)} && apt-get clean"], timeout=1800)
        (self.root / READY).write_text("made by tests/ui/real.py\n")

    def command(self, command: Sequence[str], *, without_torch: bool = False) -> list[str]:
        """The command that runs `command` inside; its processes end with it."""
        for name in ("shared", "repo"):
            (self.root / name).mkdir(exist_ok=True)
        mounts = [
            ["mount", "-t", "proc", "proc", f"{self.root}/proc"],
            ["mount", "--rbind", "/dev", f"{self.root}/dev"],
            ["mount", "--bind", str(self.shared), f"{self.root}/shared"],
            ["mount", "--bind", "-o", "ro", str(self.repository), f"{self.root}/repo"],
        ]
        if without_torch:
            mounts.append(["mount", "--bind", str(self._absent()), f"{self.root}/{TORCH}"])
        environment = [f"{key}={value}" for key, value in {**ENVIRONMENT, **self.more}.items()]
        steps = [*mounts, ["exec", "chroot", str(self.root), "env", "-i", *environment, *command]]
        script = " && ".join(step[0] + " " + shlex.join(step[1:]) for step in steps)
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script]

    def run(
        self, command: Sequence[str], *, check: bool = True, timeout: float = 300, without_torch: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run inside to the end. With `check`, an exit code other than 0 fails with what was printed."""
        whole = self.command(command, without_torch=without_torch)
        done = subprocess.run(whole, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
        if check:
            assert done.returncode == 0, f"{shlex.join(command)[:300]}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done

    def _absent(self) -> Path:
        """A package that says of itself what Python says of one that is not there."""
        folder = self.shared / "absent"
        folder.mkdir(exist_ok=True)
        line = "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')\n"
        (folder / "__init__.py").write_text(line)
        return folder
