"""The commands for many machines in docs/scale.md, run dry: their launchers only write down."""

from pathlib import Path

import pytest
from conftest import ROOT
from docs_runs import blocks, commands

from human_anomaly import inference, main_finetune

LINES = 15
SCRIPTS = blocks(ROOT / "docs/scale.md", "bash")
SLURM = {
    "SLURM_JOB_NODELIST": "node[1-2]",
    "SLURM_NNODES": "2",
    "SLURM_JOB_ID": "7",
    "SLURM_CPUS_PER_TASK": "64",
}


def check_training(words: list[str]) -> None:
    """Read the words by the parsers of torchrun and of the script."""
    from torch.distributed.run import get_args_parser

    assert Path(words[0]).name == "torchrun"
    launch = get_args_parser().parse_args(words[1:])
    assert (launch.training_script, launch.nnodes, launch.nproc_per_node) == (
        "main_finetune.py",
        "2",
        "8",
    )
    assert launch.rdzv_backend == "c10d" and launch.rdzv_endpoint.endswith(":29500")
    args = vars(main_finetune.parse_args(launch.training_script_args))
    assert args["DATA.BATCH_SIZE"] * 2 * 8 == 128
    assert args["OUTPUT"] and args["PRETRAINED"] and args["DATA.TRAIN_PATH"]
    assert (ROOT / args["cfg"]).is_file()


def test_training_on_two_machines(tmp_path):
    [words] = commands(SCRIPTS[0], tmp_path)
    check_training(words)


def test_slurm_script(tmp_path):
    script = SCRIPTS[-1]
    assert script.startswith("#!/bin/bash\n#SBATCH --nodes=2 ")
    assert len(script.splitlines()) <= LINES
    training, scoring = commands(script, tmp_path, SLURM)
    check_training(training)
    assert "node1:29500" in training

    symmetric_run = pytest.importorskip("ray.scripts.symmetric_run")
    assert scoring[:2] == ["ray", "symmetric-run"]
    middle = scoring.index("--")
    found = symmetric_run.symmetric_run.make_context("ray", scoring[2:middle]).params
    assert (found["address"], found["min_nodes"]) == ("node1:6379", 2)
    from ray.scripts.scripts import start

    started = start.make_context("ray", list(found["ray_args_and_entrypoint"])).params
    assert (started["num_cpus"], started["num_gpus"]) == (64, 8)
    assert scoring[middle + 1 : middle + 3] == ["python", "inference.py"]
    args = inference.parse_args(scoring[middle + 3 :])
    assert (args.ray, args.release, args.output) == ("auto", True, "SHARED/scores")
