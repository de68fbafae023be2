"""Write requirements.lock from the environment this runs in: `.venv/bin/python scripts/lock.py`.

The lock holds the exact version of everything that pyproject.toml asks for, directly or through another package.
The CUDA packages are left out: torch pins its own exactly, and only on platforms that have them.
"""

import argparse
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
BROUGHT_BY_TORCH = re.compile(r"(nvidia|cuda|triton)\b")
PLATFORM_MARKERS = {"pexpect": 'sys_platform != "win32"', "ptyprocess": 'sys_platform != "win32"'}
OTHER_PLATFORMS = ['appnope==1.0.0 ; sys_platform == "darwin"']
HEADER = """\
# Exact versions for Linux (CPU or CUDA) and macOS, Python 3.11 or newer. `make` installs from here.
# torch brings the CUDA packages that belong to it. Written by scripts/lock.py.
"""


def direct_requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return [Requirement(line) for group in groups for line in group]


def closure(requirements: list[Requirement]) -> dict[str, str]:
    """Name to installed version of the requirements and of all they need on this platform."""
    versions: dict[str, str] = {}
    queue = [(requirement, "") for requirement in requirements]
    seen = set()
    while queue:
        requirement, extra = queue.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        if BROUGHT_BY_TORCH.match(name):
            continue
        for wanted in ["", *requirement.extras]:
            if (name, wanted) in seen:
                continue
            seen.add((name, wanted))
            try:
                found = distribution(name)
            except PackageNotFoundError:
                sys.exit(f"{name} is not installed in {sys.prefix}; install it there first, then run this again.")
            versions[name] = found.version.split("+")[0]
            queue += [(Requirement(line), wanted) for line in found.requires or []]
    return versions


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    lines = [
        f"{name}=={version}" + (f" ; {PLATFORM_MARKERS[name]}" if name in PLATFORM_MARKERS else "")
        for name, version in closure(direct_requirements()).items()
    ]
    path = ROOT / "requirements.lock"
    path.write_text(HEADER + "\n".join(sorted(lines + OTHER_PLATFORMS)) + "\n")
    print(f"Wrote {len(lines)} versions to {path.name}. Now bring environment.yml and binder/environment.yml along:")
    print("tests/test_project.py says which lines differ.")


if __name__ == "__main__":
    main()
