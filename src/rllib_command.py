"""Where the console script `rllib` begins: its help comes before Ray and PyTorch are loaded.

Python runs a package's `__init__.py` before any file in it. Ours registers CIKD with Ray Tune, and
for that it imports Ray, RLlib and PyTorch, which takes seconds. So the package is made known here
without being run. A command runs it once its options have been read (`cli/ray_command.py`).
"""

from __future__ import annotations

import importlib.util
import sys


def main() -> int:
    """Runs the `rllib` command; returns its exit code."""
    spec = importlib.util.find_spec("rllib_cikd")
    assert spec is not None
    package = sys.modules[spec.name] = importlib.util.module_from_spec(spec)

    def run_package() -> None:
        assert spec is not None
        assert spec.loader is not None
        spec.loader.exec_module(package)

    from rllib_cikd.cli.main import main

    return main(run_package=run_package)


if __name__ == "__main__":
    sys.exit(main())
