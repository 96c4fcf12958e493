"""Imports that wait: what the libraries import for nothing is not there until it is used."""

import subprocess
import sys
import types

import pytest
from conftest import ROOT

from third_party.deferred import deferred_imports


@pytest.fixture
def heavy(tmp_path, monkeypatch):
    """A package `heavy_package` with a module `tools`, as a plotting library might be."""
    folder = tmp_path / "heavy_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("class Base: pass\n")
    (folder / "tools.py").write_text(
        "def double(x): return 2 * x\ndef plain(f): return lambda x: f(x) + 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "heavy_package"
    for name in [name for name in sys.modules if name.startswith("heavy_package")]:
        del sys.modules[name]


def test_a_deferred_function_imports_its_module_when_called(heavy):
    with deferred_imports((heavy,)):
        import heavy_package.tools as tools
        from heavy_package.tools import double
    assert heavy not in sys.modules
    assert double(3) == 6 and tools.double(4) == 8
    assert isinstance(sys.modules["heavy_package.tools"].double, types.FunctionType)


def test_a_decorator_and_a_base_class_may_be_deferred(heavy):
    with deferred_imports((heavy,)):
        from heavy_package import Base
        from heavy_package.tools import plain

        class Child(Base):
            @plain
            def number(self) -> int:
                return 41

    assert heavy not in sys.modules
    assert Child().number() == 42 and Child.number.__name__ == "number"


def test_what_is_imported_already_stays_real(heavy):
    import heavy_package

    with deferred_imports((heavy,)):
        from heavy_package import Base
    assert Base is heavy_package.Base


def test_scoring_starts_without_what_nothing_calls(tmp_path):
    """The whole of a scoring run but its networks: no compiler, no plots, no scikit-learn."""
    program = (
        "import sys, inference\n"
        "status = inference.main(['--output', sys.argv[1], '--frame-stride', '100'])\n"
        "from third_party.deferred import NAMES\n"
        "found = [name for name in NAMES if name in sys.modules]\n"
        "assert status == 0 and not found, (status, found)\n"
        "import torch._dynamo, scipy.optimize\n"
        "assert callable(torch._dynamo.disable) and scipy.optimize.linear_sum_assignment\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, tmp_path], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-2000:]
