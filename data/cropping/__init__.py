"""From videos to a folder of crops with their lists: what preprocess.py runs."""
