"""What a classifier says must be a number."""

import numpy as np
import pytest
import torch

from human_anomaly.data.video import VideoError
from human_anomaly.models.classifier import InputForm
from human_anomaly.models.scoring.judge import CropJudge


def test_a_probability_that_is_no_number_is_an_error_of_the_video():
    judge = CropJudge(
        {"hand": lambda images: images.mean((1, 2, 3)) * torch.nan},
        InputForm(size=32),
        device=torch.device("cpu"),
    )
    with pytest.raises(VideoError, match=r"hand classifier gives a p.* that is not a num"):
        judge("hand", [np.zeros((40, 40, 3), np.uint8)])
