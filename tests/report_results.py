"""A folder of results with known rows, for tests of the report."""

import cv2
import numpy as np

from human_anomaly.data.video import Source
from human_anomaly.models.report.evidence import Evidence
from human_anomaly.utils import write_json, write_jsonl

THRESHOLDS = {"human": 0.45, "face": 0.3, "hand": 0.32}
HOSTILE = [
    "<script>alert(1)<_script>.mp4",
    '"><img src=x onerror=alert(2)>.mp4',
    "it's 100% ünï漢字 & more #1?.mp4",
    "{{ 7*7 }} ' onmouseover='alert(3).mp4",
    " two  spaces .mp4",
    "plain.mp4",
]


def part(name, bbox, p):
    return {"part": name, "bbox": bbox, "detector_score": 0.9, "square": bbox, "p_abnormal": p}


def person(*parts, number=0):
    abnormal = any(p["p_abnormal"] > THRESHOLDS[p["part"]] for p in parts)
    bbox = parts[0]["bbox"] if parts else [0, 0, 9, 9]
    return {"id": number, "abnormal": abnormal, "bbox": bbox, "parts": list(parts)}


def frame_row(index, *people, fps=25):
    normal = sum(not p["abnormal"] for p in people)
    score = normal / len(people) if people else None
    return {"frame": index, "time": index / fps, "score": score, "people": list(people)}


def moving(index, p, number=0):
    """One person who walks to the right, with a hand of the given p."""
    x = 20 + 12 * index
    body, hand = [x, 40, x + 60, 200], [x, 60, x + 30, 90]
    return frame_row(index, person(part("human", body, 0.1), part("hand", hand, p), number=number))


def write_clip(path, frames, size=(320, 240), fps=25):
    """A video whose grey level tells the frame: about 10, 18, 26, ..."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, size)
    for i in range(frames):
        writer.write(np.full((size[1], size[0], 3), 10 + 8 * i, np.uint8))
    writer.release()


def half_heat(_part, crops):
    return [np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8) for _ in crops]


def video_summary(source, rows):
    people = [p for r in rows for p in r["people"]]
    score = sum(not p["abnormal"] for p in people) / len(people) if people else None
    flagged = sum(p["abnormal"] for p in people)
    return {
        "video_path": str(source.path),
        "frames_file": f"{source.stem}.frames.jsonl",
        "video_results": score,
        "ci95": [score, score] if people else None,
        "score_frame_mean": score,
        "score_clean_frames": score,
        "score_soft": score,
        "score_people": score,
        "frames": len(rows),
        "frames_expected": len(rows),
        "people": len(people),
        "tracks": len({p["id"] for p in people}),
        "abnormal_people": flagged,
        "abnormal_by_part": {"human": 0.0, "face": 0.0, "hand": score or 0.0},
        "skipped_crops": 0,
        "warnings": [],
        "seconds": 1.0,
    }


def write_scores(folder, videos, failed=()):
    thresholds = {k.upper(): v for k, v in THRESHOLDS.items()}
    changed = {"DETECTOR.SCORE_THR": 0.2, "TRAIN.EPOCHS": 3}
    write_json(
        folder / "scores.json",
        {
            "version": 1,
            "settings": {"thresholds": thresholds, "cfg": None, "changed": changed},
            "mean": {"video_results": 0.5},
            "videos": videos,
            "failed": list(failed),
        },
    )


def make_results(folder, names=HOSTILE, frames=20, explain=None):
    """Write clips with these names, their result files and evidence; return the sources.

    In the first half of each video a hand is flagged, in the first video in all of it; the last
    one has no people.
    """
    (folder / "clips").mkdir(parents=True)
    write_clip(folder / "clip.mp4", frames)
    evidence = Evidence(folder, THRESHOLDS, report=True, explain=explain)
    sources, videos = [], []
    for k, name in enumerate(names):
        path = folder / "clips" / name
        path.write_bytes((folder / "clip.mp4").read_bytes())
        source = Source(path, path.stem)
        rows = [moving(i, 0.9 - 0.02 * k if k == 0 or i < 10 - k else 0.1) for i in range(frames)]
        if k == len(names) - 1:
            rows = [frame_row(i) for i in range(frames)]
        write_jsonl(evidence.rows(source.stem), rows)
        evidence.catch_up(source)
        sources.append(source)
        videos.append(video_summary(source, rows))
    failed = [{"video_path": "<b>bad</b>.mp4", "error": "no <i>video</i>"}]
    write_scores(folder, videos, failed)
    return sources
