"""Trained models on pictures of any kind: one image in a call, or files and folders with results on disk."""

from ultrarefiner.prediction.confidence import soft_dice_confidence
from ultrarefiner.prediction.files import predict_files
from ultrarefiner.prediction.finding import FoundFile, FoundFiles, find_pictures
from ultrarefiner.prediction.picture import Picture, as_image
from ultrarefiner.prediction.predictor import Precision, Prediction, Predictor
from ultrarefiner.prediction.reading import PictureFile, open_pictures, read_picture
from ultrarefiner.prediction.report import PredictionReport
from ultrarefiner.prediction.rounds import RefinedRounds, refine_in_rounds
from ultrarefiner.prediction.rows import PredictionFailure, PredictionRow, read_rows
from ultrarefiner.prediction.segmenting import PredictedMasks, segment
from ultrarefiner.prediction.views import Flips

__all__ = [
    "Flips",
    "FoundFile",
    "FoundFiles",
    "Picture",
    "PictureFile",
    "Precision",
    "PredictedMasks",
    "Prediction",
    "PredictionFailure",
    "PredictionReport",
    "PredictionRow",
    "Predictor",
    "RefinedRounds",
    "as_image",
    "find_pictures",
    "open_pictures",
    "predict_files",
    "read_picture",
    "read_rows",
    "refine_in_rounds",
    "segment",
    "soft_dice_confidence",
]
