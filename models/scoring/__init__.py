"""From frames to scores: what inference.py runs."""
