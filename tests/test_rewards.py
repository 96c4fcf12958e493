"""Rewards and metrics, called as the programs that use them do."""

import subprocess
import sys
import types
import venv
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from service import running

from human_anomaly import rewards
from human_anomaly.rewards import VideoAlignReward, compute_score, human_anatomy

DEMO = {"device": "cpu", "weights": "demo"}
VIDEOS = [str(ROOT / f"demo/videos/{name}.mp4") for name in ("hand_fused", "normal_1")]


@pytest.fixture(scope="module")
def reward():
    return human_anatomy(**DEMO)


@pytest.fixture(scope="module")
def batch(clip_of_people) -> torch.Tensor:
    """Two clips as video trainers hold them: (B, T, C, H, W), 0..1."""
    clips = [clip_of_people(name, 2) for name in ("hand_fused", "normal_1")]
    return torch.from_numpy(np.stack(clips)).permute(0, 1, 4, 2, 3) / 255


@pytest.fixture(scope="module")
def expected(reward, batch):
    return reward.scorer.scorer.score_frames(batch)


def test_a_reward_of_flow_grpo_and_phymotion(reward, batch, expected):
    scores, details = reward(batch, ["a", "b"], [{}, {}])
    assert scores == [one.soft for one in expected] and all(type(s) is float for s in scores)
    assert scores[0] < 0.6 < scores[1]
    for name in ("micro", "macro", "soft", "people", "unreliable"):
        assert details[name] == [getattr(one, name) for one in expected]
    assert details["error"] == [None, None]
    arrays = (batch * 255).round().byte().permute(0, 1, 3, 4, 2).numpy()  # DDPO's way
    assert reward(arrays, ["a", "b"], [{}, {}]) == (scores, details)
    assert reward(list(batch)) == (scores, details)


@pytest.mark.parametrize(
    ("score", "key"),
    [
        ("micro", "video_results"),
        ("macro", "score_people"),
        ("soft", "score_soft"),
        ("frame_mean", "score_frame_mean"),
        ("clean_frames", "score_clean_frames"),
    ],
)
def test_each_score_can_be_the_reward(reward, batch, expected, score, key):
    one = rewards.Reward(reward.scorer, score, 0.0)
    assert one(batch)[0] == [result.summary[key] for result in expected]


def test_wrong_options():
    with pytest.raises(ValueError, match=r"score: expected one of micro, .*, got 'best'"):
        human_anatomy(score="best", **DEMO)


def test_pictures_are_clips_of_one_frame(reward, batch):
    pictures = batch[:, 0]  # (N, C, H, W) with N prompts
    scores, _ = reward(pictures, ["a", "b"], [{}, {}])
    assert scores == [reward(picture[None])[0][0] for picture in pictures]
    images = [Image.fromarray((p * 255).round().byte().permute(1, 2, 0).numpy()) for p in pictures]
    assert reward(images, ["a", "b"])[0] == scores
    assert reward(list(pictures), ["a", "b"])[0] == scores
    assert len(reward(pictures, ["a"])[0]) == 1  # one clip of two frames


def test_nobody_is_no_perfect_score(reward, batch):
    """Else a policy learns to hide people."""
    empty = torch.zeros(1, 2, 3, 64, 64)
    for score in rewards.SCORES:
        scores, details = rewards.Reward(reward.scorer, score, 0.25)(empty)
        assert scores == [0.25]
    assert details["people"] == [[]] and details["unreliable"] == ["no people"]
    assert details["error"] == [None]


def test_a_clip_that_cannot_be_scored_costs_itself_only(reward, batch, expected):
    bad = batch.clone()
    bad[0, 0, 0, 0, 0] = float("nan")
    scores, details = reward(bad, ["a", "b"], [{}, {}])
    assert scores == [0.0, expected[1].soft]
    assert details["error"][0].startswith("floats must lie in 0..1") and not details["error"][1]
    assert details["soft"][0] is None and details["people"][0] is None


def test_too_little_memory_for_one_clip(reward, batch, expected, monkeypatch):
    from human_anomaly.data.video import VideoError

    scorer = reward.scorer.scorer
    score_frames = scorer.score_frames

    def short_of_memory(clips):
        if any(float(clip.max()) < 0.5 for clip in clips):
            raise VideoError("the GPU has too little memory")
        return score_frames(clips)

    monkeypatch.setattr(scorer, "score_frames", short_of_memory)
    scores, details = reward([batch[0], batch[1] / 4, batch[1]])
    assert scores == [expected[0].soft, 0.0, expected[1].soft]
    assert details["error"] == [None, "the GPU has too little memory", None]


def test_wrong_shapes_are_raised(reward, batch):
    with pytest.raises(ValueError, match="clip must be"):
        reward(batch[..., :2, :, :])
    with pytest.raises(ValueError, match="a clip for each of 3 prompts, got 2 clips"):
        reward(batch, ["a", "b", "c"])


def test_videoalign_as_dancegrpo_calls_it(tmp_path):
    model = VideoAlignReward(**DEMO)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    found = model.reward([VIDEOS[0], str(tmp_path / "broken.mp4")], ["a", "b"], use_norm=True)
    assert 0.4 < found[0]["Overall"] < 0.6 and found[0]["micro"] == 0.5
    assert found[1]["Overall"] == 0.0 and "not a video" in found[1]["error"]


def test_verl_omni_calls_it_in_threads(batch, expected, monkeypatch):
    loads = []
    real = human_anatomy

    def load(**options):
        loads.append(options)
        return real(**options)

    monkeypatch.setattr(rewards, "human_anatomy", load)
    monkeypatch.setattr(rewards, "_loaded", {})
    clips = (batch * 255).round().byte()

    def score(number: int) -> dict:
        clip = clips[number % 2]
        if number < 2:
            return compute_score("video", clip, "a prompt", {}, router="x", **DEMO)
        named = {"data_source": "video", "solution_image": clip, "ground_truth": "a prompt"}
        return compute_score(**named, extra_info={}, **DEMO)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(score, range(4)))
    assert [row["score"] for row in found] == [expected[i % 2].soft for i in range(4)]
    assert loads == [DEMO]
    assert {key: type(value) for key, value in found[0].items()} == {
        "score": float,
        "people": int,
        "failed": bool,
    }
    assert compute_score("image", clips[0, 0], "a prompt", {}, **DEMO)["people"] == 2


def _package(monkeypatch, name: str, **content) -> None:
    parent = ""
    for part in name.split("."):
        parent = f"{parent}.{part}" if parent else part
        if parent not in sys.modules:
            module = types.ModuleType(parent)
            module.__path__ = []
            monkeypatch.setitem(sys.modules, parent, module)
    vars(sys.modules[name]).update(content)


@pytest.fixture
def fresh():
    """Build the adapters' classes again, before and after."""
    for make in (rewards._flow_factory, rewards._fastvideo):
        make.cache_clear()
    yield
    for make in (rewards._flow_factory, rewards._fastvideo):
        make.cache_clear()


@pytest.mark.parametrize("installed", [True, False])
def test_flow_factory(batch, expected, installed, monkeypatch, fresh):
    class PointwiseRewardModel:
        required_fields = ("image", "prompt")
        use_tensor_inputs = False

        def __init__(self, config, accelerator):
            self.accelerator, self.config = accelerator, config
            self.device, self.model = config.device, None

    class RewardModelOutput(SimpleNamespace):
        pass

    if installed:
        content = {c.__name__: c for c in (PointwiseRewardModel, RewardModelOutput)}
        _package(monkeypatch, "flow_factory.rewards", **content)
    config = SimpleNamespace(device=torch.device("cpu"), weights="demo", score="micro")
    accelerator = SimpleNamespace(device=torch.device("cpu"))
    model = rewards.FlowFactoryReward(config, accelerator)
    assert isinstance(model, PointwiseRewardModel) == installed
    assert model.use_tensor_inputs and set(model.required_fields) == {"prompt", "image", "video"}
    found = model(prompt=["a", "b"], video=list(batch), condition_images=None, metadata="{}")
    assert isinstance(found, RewardModelOutput) == installed
    assert found.rewards.tolist() == pytest.approx([one.micro for one in expected])
    assert found.rewards.dtype == torch.float32
    pictures = model(prompt=["a", "b"], image=list(batch[:, 0]))
    assert pictures.rewards.shape == (2,)


@pytest.mark.parametrize("installed", [True, False])
def test_fastvideo(batch, expected, installed, monkeypatch, fresh):
    class BaseMetric:
        def __init__(self):
            self._device = torch.device("cpu")

        @property
        def device(self):
            return self._device

    class MetricResult(SimpleNamespace):
        pass

    if installed:
        content = {c.__name__: c for c in (BaseMetric, MetricResult)}
        _package(monkeypatch, "fastvideo.eval.metrics.base", **content)
    metric = rewards.FastVideoMetric(weights="demo", **({} if installed else {"device": "cpu"}))
    assert isinstance(metric, BaseMetric) == installed
    metric.setup()
    found = metric.compute({"video": batch[0], "text_prompt": "a"})
    assert isinstance(found, MetricResult) == installed
    assert (found.name, found.score) == ("human_anatomy", expected[0].soft)
    assert found.details["micro"] == expected[0].micro
    assert [one.score for one in metric.compute({"video": batch})] == [e.soft for e in expected]
    assert metric.compute({"video": SimpleNamespace(frames=batch[:1])})[0].score == found.score
    assert metric.compute({"video": torch.zeros(2, 3, 64, 64)}).score is None


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        rewards.Nothing  # noqa: B018


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with running(tmp_path_factory.mktemp("service"), token="secret") as service:
        yield service


def test_the_service_is_the_same_function(service, reward, batch, tmp_path):
    remote = human_anatomy(url=service.url, token="secret")
    bad = batch.clone()
    bad[1, 0, 0, 0, 0] = -1
    for clips in (batch, bad, torch.zeros(1, 1, 3, 64, 64)):
        assert remote(clips) == reward(clips)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    paths = [VIDEOS[0], str(tmp_path / "broken.mp4"), str(tmp_path / "none.mp4")]
    assert remote.files(paths) == reward.files(paths)


def test_a_wrong_token_is_raised(service, batch):
    with pytest.raises(ConnectionError, match="wrong or missing token"):
        human_anatomy(url=service.url, token="guess")(batch)


NUMPY_ALONE = """
import sys
import numpy as np
from human_anomaly.rewards import human_anatomy
scores, details = human_anatomy(url={url!r}, token="secret")(np.load({clip!r})[None])
names = {{"torch", "cv2", "PIL", "scipy", "timm", "yacs"}}
heavy = {{name.split(".")[0] for name in sys.modules}} & names
assert not heavy, heavy
print(scores[0])
"""


def test_the_client_needs_numpy_alone(service, batch, expected, wheel, tmp_path):
    """The wheel without its dependencies, in an environment that holds numpy and nothing else."""
    from test_other_programs import pip

    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv/bin/python"
    packages = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    numpy_at = ROOT / np.__path__[0]
    for folder in (numpy_at, numpy_at.with_name("numpy.libs")):
        if folder.is_dir():
            (packages / folder.name).symlink_to(folder)
    pip("install", wheel, "--no-deps", python=python)
    np.save(tmp_path / "clip.npy", batch[0].numpy())
    code = NUMPY_ALONE.format(url=service.url, clip=str(tmp_path / "clip.npy"))
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == expected[0].soft
