"""The command tools.vbench2, called here."""

from human_anomaly.tools.vbench2 import __main__ as vbench2


def call(*words) -> int:
    return vbench2.main([str(word) for word in words])
