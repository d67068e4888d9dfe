"""The public names are promised: adding or removing one is a decision, not an accident."""

import plimsoll

NAMES = {
    "Budget", "Client", "Decision", "Embedding", "Entity", "Labelling", "Load", "Model", "MultiLabel", "Prediction",
    "Predictor", "Recipe", "Search", "SentenceSimilarity", "Similarity", "Spec", "Tagging", "Target",
    "TextClassification", "TokenClassification", "load", "show", "track", "tune",
}


def test_the_public_names_are_these() -> None:
    assert set(plimsoll.__all__) == NAMES
    for name in NAMES:
        assert getattr(plimsoll, name).__doc__
