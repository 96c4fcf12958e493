"""The console commands of an installed package: `human-anomaly` is inference.py, and so on."""

from collections.abc import Callable
from importlib import import_module

from human_anomaly.utils import run_main


def _command(module: str) -> Callable[[], None]:
    def run() -> None:
        run_main(import_module(f"human_anomaly.{module}").main, (OSError,))

    return run


score = _command("inference")
crop = _command("preprocess")
train = _command("main_finetune")
vbench2 = _command("tools.vbench2.__main__")
weights = _command("tools.fetch_weights")
compare = _command("tools.compare")
serve = _command("serve")
