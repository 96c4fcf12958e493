"""The one name under which all code here is imported: human_anomaly.models, human_anomaly.utils, ..

A module with a `__path__` is a package, so the modules beside this file are its submodules, in a
clone as in an installed wheel (where this file is the package's `__init__.py`).
"""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parent)]
__version__ = "0.2.0"
