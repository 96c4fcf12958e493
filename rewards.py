"""The scores as a reward of video RL and as a metric of suites: one function, thin adapters.

    reward = human_anatomy("cuda")                         # loads the released weights
    reward = human_anatomy(url="http://127.0.0.1:8000")    # asks serve.py, in any environment
    scores, details = reward(videos, prompts, metadata)    # as Flow-GRPO and PhyMotion call it

Adapters: VideoAlignReward (DanceGRPO), compute_score (verl-omni), FlowFactoryReward and
FastVideoMetric. With `url`, only numpy and the standard library are needed.
"""

import threading
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from types import SimpleNamespace

from human_anomaly.data.client import Client
from human_anomaly.data.clips import to_clips

SCORES = {
    "micro": "video_results",
    "macro": "score_people",
    "soft": "score_soft",
    "frame_mean": "score_frame_mean",
    "clean_frames": "score_clean_frames",
}
DETAILS = {name: SCORES[name] for name in ("micro", "macro", "soft")}
DETAILS |= {"people": "per_person", "unreliable": "unreliable", "error": "error"}
OPTIONS = ("device", "weights", "score", "no_people", "url", "token")  # of `human_anatomy`


def human_anatomy(
    device="cuda",
    weights: str = "release",
    score: str = "soft",
    no_people: float | None = 0.0,
    url: str | None = None,
    token: str | None = None,
) -> "Reward":
    """Return `reward(videos, prompts, metadata) -> (scores, details)`, an entry per video.

    `score` is one of SCORES. A clip without people gets `no_people`, and so does one that cannot be
    scored, whose details say why. `token` is the service's, by default $HUMAN_ANOMALY_TOKEN.
    """
    if score not in SCORES:
        raise ValueError(f"score: expected one of {', '.join(SCORES)}, got {score!r}")
    if url:
        return Reward(Client(url, token), score, no_people)
    from human_anomaly.hubconf import human_anatomy as load

    scorer = load(weights, str(device))
    from human_anomaly.models.scoring.each import OneByOne  # after `load`, which leaves no trace

    return Reward(OneByOne(scorer), score, no_people)


class Reward:
    """The reward that `human_anatomy` returns; several threads may call it."""

    def __init__(self, scorer, score: str, no_people: float | None):
        self.scorer, self.score, self.no_people = scorer, score, no_people

    def __call__(self, videos, prompts=None, metadata=None) -> tuple[list, dict[str, list]]:
        """Score videos in the forms of `data/clips.py`; (N, C, H, W) with N prompts are N pictures.

        Raises ValueError for wrong shapes.
        """
        return self._answer(self.scorer.clips(_clips(videos, prompts)))

    def files(self, paths: Sequence[str]) -> tuple[list, dict[str, list]]:
        """Return the same for video files."""
        return self._answer(self.scorer.files(paths))

    def _answer(self, rows: list[dict]) -> tuple[list, dict[str, list]]:
        key = SCORES[self.score]
        scores = [row[key] if row.get("per_person") else self.no_people for row in rows]
        return scores, {name: [row.get(key) for row in rows] for name, key in DETAILS.items()}


def _clips(videos, prompts) -> list:
    count = None if prompts is None or isinstance(prompts, str) else len(prompts)
    if not isinstance(videos, (list, tuple)):
        pictures = getattr(videos, "ndim", 0) == 4 and count == len(videos)
        videos = videos[:, None] if pictures else videos
    elif count in (None, len(videos)):
        is_pil = count is not None and bool(videos) and hasattr(videos[0], "convert")
        videos = [[v] if is_pil else v[None] if getattr(v, "ndim", 0) == 3 else v for v in videos]
    clips, _ = to_clips(videos)
    if count not in (None, len(clips)):
        raise ValueError(f"expected a clip for each of {count} prompts, got {len(clips)} clips")
    return clips


class VideoAlignReward:
    """Has the `reward(video_paths, prompts)` of VideoAlign's inference; "Overall" is the score."""

    def __init__(self, device="cuda", **options):
        self._reward = human_anatomy(device, **options)

    def reward(
        self, video_paths, prompts, fps=None, num_frames=None, max_pixels=None, use_norm=True
    ) -> list[dict]:
        """Score every frame of the videos; the other arguments are VideoAlign's and not used."""
        scores, details = self._reward.files(video_paths)
        return [{"Overall": s} | _of(details, i) for i, s in enumerate(scores)]


_loaded: dict[tuple, Reward] = {}
_loading = threading.Lock()


def compute_score(data_source, solution=None, ground_truth=None, extra_info=None, **kw) -> dict:
    """Return verl-omni's row of one clip (T, C, H, W), or picture (C, H, W).

    Its `reward_kwargs` may be the options of `human_anatomy`; the weights are loaded once.
    """
    clip = kw.get("solution_image") if solution is None else solution
    options = {name: kw[name] for name in OPTIONS if name in kw}
    with _loading:
        key = tuple(sorted((name, str(value)) for name, value in options.items()))
        reward = _loaded.get(key) or _loaded.setdefault(key, human_anatomy(**options))
    scores, details = reward([clip])
    people, failed = len(details["people"][0] or ()), details["error"][0] is not None
    return {"score": scores[0], "people": people, "failed": failed}


def _of(details: dict[str, list], number: int) -> dict:
    return {key: values[number] for key, values in details.items()}


def _theirs(module: str, *names: str) -> list[type]:
    """Return a package's base class and class of results, or stand-ins if it is not installed."""
    try:
        return [getattr(import_module(module), name) for name in names]
    except ImportError:
        return [object, SimpleNamespace]


@cache
def _flow_factory() -> type:
    base, output = _theirs("flow_factory.rewards", "PointwiseRewardModel", "RewardModelOutput")

    class FlowFactoryReward(base):
        """Flow-Factory's model of pictures or videos; its config may hold our options."""

        required_fields, use_tensor_inputs = ("prompt", "image", "video"), True

        def __init__(self, config, accelerator):
            if base is not object:
                super().__init__(config, accelerator)
            options = {n: getattr(config, n) for n in OPTIONS if hasattr(config, n)}
            options["url"] = getattr(config, "server_url", options.get("url"))
            options["device"] = self.device = getattr(self, "device", accelerator.device)
            self._reward = human_anatomy(**options)

        def __call__(self, prompt, image=None, video=None, **_):
            import torch

            scores, details = self._reward(image if video is None else video, prompt)
            return output(rewards=torch.tensor(scores, device=self.device), extra_info=details)

    return FlowFactoryReward


@cache
def _fastvideo() -> type:
    base, output = _theirs("fastvideo.eval.metrics.base", "BaseMetric", "MetricResult")

    class FastVideoMetric(base):
        """FastVideo's metric: None where there are no people."""

        name, dependencies = "human_anatomy", []
        requires_reference, higher_is_better, needs_gpu = False, True, False

        def __init__(self, **options):
            if base is not object:
                super().__init__()
            self._options, self._reward = {"no_people": None} | options, None

        def setup(self) -> None:
            device = {"device": getattr(self, "device", "cuda")}
            self._reward = human_anatomy(**device | self._options)

        def compute(self, sample: dict):
            if self._reward is None:
                self.setup()
            video = getattr(sample["video"], "frames", sample["video"])
            scores, details = self._reward(video)
            rows = [{"score": s, "details": _of(details, i)} for i, s in enumerate(scores)]
            found = [output(name=self.name, **row) for row in rows]
            return found if video.ndim == 5 else found[0]

    return FastVideoMetric


def __getattr__(name: str) -> type:
    """Build a class on first use, because its base class is another package's."""
    if name in (made := {"FlowFactoryReward": _flow_factory, "FastVideoMetric": _fastvideo}):
        return made[name]()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
