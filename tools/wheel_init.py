"""A step of building a wheel (hatchling): human_anomaly.py becomes the package's __init__.py.

Without one, a folder named human_anomaly in the current folder would hide the package. An editable
install needs none: it finds human_anomaly.py in the clone.
"""

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class WheelInit(BuildHookInterface):
    def initialize(self, version: str, build_data: dict) -> None:
        if version == "standard":
            build_data["force_include"]["human_anomaly.py"] = "__init__.py"  # in `sources`' folder
