"""--train-test-split: whole videos, some of each kind on both sides, told before cropping."""

import pytest
from preprocess_runs import rows_of, write_video

from human_anomaly import preprocess
from human_anomaly.data.cropping.crop_lists import choose_tested
from human_anomaly.utils import UsageError

TEN = [f"v{i}" for i in range(10)]


@pytest.mark.parametrize(
    ("groups", "share", "counts"),
    [
        # nobody's place is below the share: the first one is tested
        ([TEN], 1e-9, [1]),
        ([TEN[:5], TEN[5:]], 1e-9, [1, 1]),
        # everybody's is: one is left for training
        ([TEN], 1 - 1e-9, [9]),
        ([TEN[:5], TEN[5:]], 1 - 1e-9, [4, 4]),
        # one video of a kind stands where its place is, but no side of the whole is empty
        ([TEN[:1], TEN[1:2]], 1e-9, [1, 0]),
        ([TEN[:1]], 1e-9, [0]),
        ([[]], 0.5, [0]),
    ],
)
def test_each_kind_is_on_both_sides(groups, share, counts):
    tested = choose_tested(map(set, groups), share)
    found = [len(tested & set(group)) for group in groups]
    assert sum(found) == sum(counts)
    assert len(groups[0]) < 5 or found == counts


def test_the_share_is_met_and_keeps_its_members():
    names = {f"video_{i}" for i in range(4000)}
    tested = choose_tested([names], 0.05)
    assert 0.04 < len(tested) / 4000 < 0.06
    assert tested <= choose_tested([names], 0.1)
    half = set(sorted(names)[:2000])
    assert choose_tested([half], 0.05) == tested & half  # more videos move none


def crop_videos(crop, tmp_path, *runs):
    """Write videos of noise, crop them in runs of (names, label), split; return the folder."""
    for names, label in runs:
        for seed, name in enumerate(names):
            write_video(tmp_path / f"{name}.mp4", 6, seed)
        more = [] if label is None else ["--label", str(label)]
        paths = [tmp_path / f"{name}.mp4" for name in names]
        crop(paths, tmp_path / "crops", "--train-test-split", "0.0001", *more)
    return tmp_path / "crops"


def test_a_small_share_of_few_videos_by_label(crop, tmp_path, capsys):
    output = crop_videos(crop, tmp_path, (TEN[:4], 0), (TEN[4:8], 1))
    for side, normal, abnormal in (("train", 3, 3), ("test", 1, 1)):
        rows = rows_of(output / f"human_{side}.jsonl")
        videos = {(row[0].split("_")[0], row[1]) for row in rows}
        assert [sum(label == kind for _, label in videos) for kind in (0, 1)] == [normal, abnormal]
    said = capsys.readouterr().err
    assert "videos for testing: 1 of 4 normal, 1 of 4 abnormal: ['v" in said
    assert "human_test.jsonl: all" in said.split("1 of 4 abnormal")[0]  # normal ones alone
    assert "human_test.jsonl: all" not in said.split("1 of 4 abnormal")[1]


def test_it_is_said_before_cropping(crop, tmp_path, capsys, monkeypatch):
    def stop(*args):
        raise UsageError("cropping begins")

    monkeypatch.setattr(preprocess, "crop_here", stop)
    with pytest.raises(UsageError, match="cropping begins"):
        crop_videos(crop, tmp_path, (TEN[:3], None))
    assert "videos for testing: 1 of 3 unlabelled: ['v" in capsys.readouterr().err
    with pytest.raises(UsageError, match="cropping begins"):
        crop_videos(crop, tmp_path / "one", (TEN[:1], None))
    assert "0 of 1 unlabelled: a single video cannot be split" in capsys.readouterr().err
