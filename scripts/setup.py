"""Set up .venv from requirements.lock, unless it is there and up to date. Every `make` target calls this.

Needs nothing but the standard library, and runs on a Python that is too old for the course in order to say so.
Nothing is touched before the checks have passed; nothing outside .venv is touched at all.
"""

import hashlib
import math
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MINIMUM_PYTHON = (3, 11)
NEEDED_GB = 8 if sys.platform.startswith("linux") else 3  # with the CUDA build of torch .venv takes 6.5 GB, without it 2
NEEDED_GB_UPDATE = 2
SHOWN = re.compile(r"^(Collecting|Processing) |Downloading .*\((\d{3,}\.\d MB|\d.* GB)\)|[Ee]rror")


def python_problem(version, executable):
    """What is wrong with the Python that was found, or None. `version` is (major, minor, micro)."""
    if tuple(version[:2]) >= MINIMUM_PYTHON:
        return None
    found, wanted = ".".join(map(str, version[:3])), ".".join(map(str, MINIMUM_PYTHON))
    return (
        f"Python {wanted} or newer is needed; {executable} is Python {found}.\n"
        f"  Install a newer one and name it, for example: make lab PYTHON=python3.12"
    )


def disk_problem(free_bytes, needed_gb, folder):
    """What is wrong with the free disk space, or None."""
    if free_bytes >= needed_gb * 1e9:
        return None
    return (
        f"{math.ceil(10 * needed_gb) / 10:g} GB of free disk space are needed; {folder} has {free_bytes / 1e9:.1f} GB.\n"
        f"  Free some, or clone the repository to a larger disk."
    )


def held_bytes(folder):
    """What the files below a folder take, 0 if it is not there."""
    return sum(os.lstat(os.path.join(place, name)).st_size for place, _, names in os.walk(str(folder)) for name in names)


def machine_problem(system, machine):
    """What is wrong with the computer, or None: PyTorch is made for Intel's Macs no more."""
    if (system, machine) != ("darwin", "x86_64"):
        return None
    return (
        "PyTorch is not to be had any more for Macs with Intel processors, nor for a Python made for them.\n"
        "  On Apple silicon, install a Python for arm64; otherwise use Linux, or a hosted notebook service (binder/)."
    )


def venv_problem():
    """What keeps this Python from creating virtual environments, or None (Debian ships the module separately)."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        return (
            f"{sys.executable} cannot create virtual environments (no module {error.name}).\n"
            f"  On Debian and Ubuntu: sudo apt install python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        )
    return None


def fingerprint(root):
    """Changes with what is installed and with where: an environment does not survive being moved."""
    digest = hashlib.sha256(str(root).encode())
    for name in (
        "requirements.lock",
        "pyproject.toml",
        "scripts/jupyterlab_settings.json",
        "scripts/jupyter_server_config.json",
    ):
        digest.update((root / name).read_bytes())
    return f"{root}\n{digest.hexdigest()}\n"


def works(python):
    """Whether the environment's Python starts (its base may have been upgraded away), is new enough, and has pip."""
    check = f"import sys, pip; sys.exit(sys.version_info < {MINIMUM_PYTHON})"
    return python.exists() and subprocess.call([str(python), "-c", check], stderr=subprocess.DEVNULL) == 0


def run(*command):
    """Run a command, showing of pip's hundreds of lines only what is new and what goes wrong."""
    print("  $", " ".join(command).replace(str(ROOT) + os.sep, ""), flush=True)
    with subprocess.Popen(command, cwd=str(ROOT), stdout=subprocess.PIPE, universal_newlines=True) as process:
        for line in process.stdout:
            if SHOWN.search(line):
                print("    " + line.strip(), flush=True)
            elif line.startswith("Installing collected"):
                print("    Installing them (a minute or two)", flush=True)
    if process.returncode != 0:
        sys.exit(
            "\nSetup did not finish: the command above failed; its message says why. Installing needs a network\n"
            "connection. Nothing outside .venv has changed, and the same command continues where this one stopped."
        )


def main():
    environment = ROOT / ".venv"
    python = environment / "bin" / "python"
    stamp = environment / "tutorial_lib.stamp"
    stored = stamp.read_text() if stamp.exists() else ""
    wanted = fingerprint(ROOT)
    usable = works(python)
    if usable and stored == wanted:
        return

    moved = bool(stored) and stored.splitlines()[0] != str(ROOT)
    fresh = moved or not usable
    complete = bool(stored) and not fresh
    free = shutil.disk_usage(str(ROOT)).free
    problems = [machine_problem(sys.platform, platform.machine())]
    # What an earlier setup, cut short or elsewhere, has left is used or makes room.
    needed = NEEDED_GB_UPDATE if complete else max(NEEDED_GB_UPDATE, NEEDED_GB - held_bytes(environment) / 1e9)
    problems += [disk_problem(free, needed, ROOT)]
    if fresh:
        version_problem = python_problem(sys.version_info, sys.executable)
        problems += [version_problem, None if version_problem else venv_problem()]
    problems = [problem for problem in problems if problem]
    if problems:
        sys.exit("Setup cannot start; nothing has been changed.\n\n* " + "\n* ".join(problems))

    if complete:
        print("The requirements have changed: bringing .venv up to date", flush=True)
    else:
        version = f" with Python {sys.version.split()[0]}" if fresh else ""
        print(f"Setting up .venv{version}: up to 3 GB to download, 7 GB on disk, a few minutes", flush=True)
    if stamp.exists():
        stamp.unlink()
    if fresh:
        run(sys.executable, "-m", "venv", "--clear", str(environment))
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install"]
    run(*pip, "-r", "requirements.lock")
    run(*pip, "--quiet", "--no-deps", "-e", ".")
    # Without news, and with one thread of the kernel for cells and widgets: of two, ipykernel lets now the one and now the
    # other answer a panel.
    settings = environment / "share" / "jupyter" / "lab" / "settings"
    settings.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(str(ROOT / "scripts" / "jupyterlab_settings.json"), str(settings / "overrides.json"))
    stamp.write_text(wanted)
    print(".venv is ready", flush=True)


if __name__ == "__main__":
    main()
