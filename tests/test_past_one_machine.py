"""The README's commands for many machines, run dry: bash with launchers that only write down."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

from human_anomaly import inference, main_finetune

LINES = 15
SLURM = {
    "SLURM_JOB_NODELIST": "node[1-2]",
    "SLURM_NNODES": "2",
    "SLURM_JOB_ID": "7",
    "SLURM_CPUS_PER_TASK": "64",
}


def scripts() -> list[str]:
    """Return the bash blocks of the section, the Slurm script last."""
    text = (ROOT / "README.md").read_text()
    section = re.search(r"^## Past one machine$(.*?)^##", text, re.MULTILINE | re.DOTALL)[1]
    return re.findall(r"```bash\n(.*?)```", section, re.DOTALL)


def commands(script: str, folder: Path) -> list[list[str]]:
    """Run a script where torchrun and srun write down their words; return them."""
    for name, words in {"torchrun": '"$0" "$@"', "srun": '"$@"'}.items():
        stub = folder / name
        stub.write_text(f'#!/bin/sh\nprintf "%s\\n" {words} end >> "{folder}/words"\n')
        stub.chmod(0o755)
    (folder / "scontrol").write_text("#!/bin/sh\nprintf 'node1\\nnode2\\n'\n")
    (folder / "scontrol").chmod(0o755)
    env = SLURM | {"PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-eu", "-c", script], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    written = (folder / "words").read_text().split("\nend\n")[:-1]
    return [command.split("\n") for command in written]


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
    [words] = commands(scripts()[0], tmp_path)
    check_training(words)


def test_slurm_script(tmp_path):
    script = scripts()[-1]
    assert script.startswith("#!/bin/bash\n#SBATCH --nodes=2 ")
    assert len(script.splitlines()) <= LINES
    training, scoring = commands(script, tmp_path)
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
