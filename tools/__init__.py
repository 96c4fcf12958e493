"""Commands beside the three scripts: `python -m tools.NAME`."""
