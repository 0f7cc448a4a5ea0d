"""Say in one sentence what this machine lacks for a build; print nothing when it lacks nothing.

Runs on any Python 3, since an old Python is one of the things it reports. The one argument is the
C++ compiler.
"""

import importlib.util
import os
import shutil
import sys
import sysconfig


def missing(compiler):
    """Return what is missing, in words, one string a thing."""
    lacks = []
    if sys.version_info < (3, 10):
        lacks.append(
            "Python 3.10 or newer ({} is {}.{}; choose another with make PYTHON=...)".format(
                sys.executable, *sys.version_info[:2]
            )
        )
    if not all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
        lacks.append("Python's venv module (Debian and Ubuntu: apt install python3-venv)")
    if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        lacks.append("Python's C headers (Debian and Ubuntu: apt install python3-dev)")
    if not shutil.which(compiler):
        lacks.append("a C++ compiler (Debian and Ubuntu: apt install g++; or make CXX=...)")
    return lacks


if __name__ == "__main__":
    lacks = missing(sys.argv[1])
    if lacks:
        sys.exit("This machine lacks " + " and ".join(lacks) + ".")
