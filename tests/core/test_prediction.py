"""Predictions as JSON."""

from __future__ import annotations

import json

from plimsoll.core.prediction import Entity, Prediction, Tagging


def test_every_prediction_is_json_with_scores_of_six_digits() -> None:
    assert Prediction("music", 1 / 3).record() == {"label": "music", "score": 0.333333}
    entity = Entity(label="place", text="New York", start=1, end=3, score=2 / 3)
    tagged = Tagging(("in", "New", "York"), ("O", "B-place", "I-place"), (entity,)).record()
    assert json.loads(json.dumps(tagged)) == {
        "words": ["in", "New", "York"], "tags": ["O", "B-place", "I-place"],
        "entities": [{"label": "place", "text": "New York", "start": 1, "end": 3, "score": 0.666667}]}
