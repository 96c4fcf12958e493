"""The kinds of anomalies that a drawn person can have, by part."""

KINDS = {
    "human": ("third_arm", "missing_lower_leg", "bent_wrong", "detached"),
    "face": ("misplaced", "doubled", "melted"),
    "hand": ("three_fingers", "extra_fingers", "fused_fingers"),
}
PART_OF = {kind: part for part, kinds in KINDS.items() for kind in kinds}


def choose(rng, anomaly):
    """Return a kind of anomaly, or None for a normal person.

    `anomaly`: None (normal), "random" (normal in half of the cases), a part (one of its kinds), or
    a kind. Raises ValueError for any other word.
    """
    if anomaly == "random":
        anomaly = None if rng.random() < 0.5 else str(rng.choice(list(KINDS)))
    if anomaly in KINDS:
        anomaly = str(rng.choice(KINDS[anomaly]))
    if anomaly is not None and anomaly not in PART_OF:
        words = ", ".join(["random", *KINDS, *PART_OF])
        raise ValueError(f"anomaly: expected None or one of {words}; got {anomaly!r}")
    return anomaly
