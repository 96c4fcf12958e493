"""What can be wrong with a drawn person, by the part that shows it."""

KINDS = {
    "human": ("third_arm", "missing_lower_leg", "bent_wrong", "detached"),
    "face": ("misplaced", "doubled", "melted"),
    "hand": ("three_fingers", "extra_fingers", "fused_fingers"),
}
PART_OF = {kind: part for part, kinds in KINDS.items() for kind in kinds}


def choose(rng, anomaly):
    """The anomaly kind that a request asks for, or None for a normal person.

    `anomaly`: None, "random" (normal in half of the cases), a part or a kind.
    ValueError for any other word.
    """
    if anomaly is None:
        return None
    if anomaly in PART_OF:
        return anomaly
    if anomaly in KINDS:
        return str(rng.choice(KINDS[anomaly]))
    if anomaly == "random":
        if rng.random() < 0.5:
            return None
        return str(rng.choice(KINDS[str(rng.choice(list(KINDS)))]))
    words = ", ".join(["random", *KINDS, *PART_OF])
    raise ValueError(f"anomaly: expected None or one of {words}; got {anomaly!r}")
