"""For torch.hub: `torch.hub.load(FOLDER, "human_anatomy", source="local", weights="demo")`."""

dependencies = ["torch", "torchvision", "timm", "mmyolo"]


def human_anatomy(weights: str = "release", device: str = "auto", **options):
    """Return a VideoScorer with the released weights, or with the demo's for drawn people.

    `options` are those of `VideoScorer.from_files`: batch_size, stride, fps, fast, compile, and
    cores: how many CPU cores it may use (default: this process's share of the machine's). Raises
    UsageError where the weights are not on this machine.
    """
    from human_anomaly.models.guest import leave_no_trace

    if weights not in ("release", "demo"):
        raise ValueError(f"weights: expected release or demo, got {weights!r}")
    with leave_no_trace():  # of the imports, too
        from human_anomaly.configs.defaults import get_config
        from human_anomaly.models.scoring.scorer import VideoScorer
        from human_anomaly.models.weights import choose_weights

        files = choose_weights(models={}, release=weights == "release")
        return VideoScorer.from_files(
            files.detector_config,
            files.detector_weights,
            files.models,
            get_config(files.cfg),
            device=device,
            **options,
        )
