"""Builds the engine's native library, `src/rllib_cikd/engine/native`, and adds data files.

All else is in pyproject.toml.

It needs a C++ compiler and nothing else. Without one, or if it fails, the package is installed
without the library and computes with PyTorch's operations.
"""

from __future__ import annotations

import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

SOURCES = Path("src/rllib_cikd/engine/native")
# No -march and no -ffast-math: the library chooses among its kernels when it is loaded, and what is
# not a number must come out as such. Python's own flags come first and often have -fwrapv, with
# which the kernels compute addresses anew in their innermost loop, and take up to twice as long.
FLAGS = [
    "-std=c++17",
    "-O2",
    "-fno-wrapv",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-exceptions",
    "-fno-rtti",
    "-fvisibility=hidden",
]
# What only one file's functions may use. They say themselves where multiplications and additions
# are fused: two compilations of the same kernel then give the same bits.
SIMD = {
    "avx512": ["-mavx512f", "-mavx2", "-mfma", "-mbmi2", "-ffp-contract=off"],
    "avx2": ["-mavx2", "-mfma", "-mbmi2", "-ffp-contract=off"],
}


class BuildLibrary(build_ext):
    """A plain shared library, for no particular version of Python."""

    def get_ext_filename(self, fullname: str) -> str:
        return fullname.replace(".", "/") + ".so"

    def build_extension(self, ext: Extension) -> None:
        on_x86 = sysconfig.get_platform().endswith(("x86_64", "amd64"))

        def compiled(source: str) -> list[str]:
            simd = SIMD.get(Path(source).stem, []) if on_x86 else []
            return self.compiler.compile(
                [source], output_dir=self.build_temp, extra_postargs=FLAGS + simd
            )

        with ThreadPoolExecutor() as pool:
            objects = [o for some in pool.map(compiled, ext.sources) for o in some]
        self.compiler.link_shared_object(
            objects, self.get_ext_fullpath(ext.name), libraries=["pthread"], target_lang="c++"
        )


class CopyFiles(build_py):
    """Puts tuned examples and studies, which lie beside `src/`, into the package."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return  # the package finds them where they are
        for folder in ("tuned_examples", "studies"):
            target = Path(self.build_lib, "rllib_cikd", "files", folder)
            self.mkpath(str(target))
            for file in sorted(Path(folder).glob("*.yaml")):
                self.copy_file(str(file), str(target / file.name))


class Wheel(bdist_wheel):
    """For every Python 3 on this platform."""

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2])


setup(
    ext_modules=[
        Extension(
            "rllib_cikd.engine.libengine",
            sources=sorted(str(path) for path in SOURCES.glob("*.cpp")),
            depends=sorted(str(path) for path in SOURCES.glob("*.h")),
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildLibrary, "build_py": CopyFiles, "bdist_wheel": Wheel},
    exclude_package_data={"rllib_cikd.engine": ["native/*"]},
)
