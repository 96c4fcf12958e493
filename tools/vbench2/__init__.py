"""VBench-2.0: its prompts, its rule for a score, its published scores."""
