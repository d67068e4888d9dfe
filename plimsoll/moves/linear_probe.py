"""Linear probe: leave the encoder as it is, and fit the head to its answers by logistic regression."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import PositiveInt

from plimsoll.core.errors import Unsupported
from plimsoll.core.parts import Move, Work


class LinearProbe(Move):
    """Fit a logistic regression to the frozen encoder's pooled states, computed once, as the task's head.

    The penalty is chosen on the validation rows.

    Pays when: rows are few, or a first honest number is wanted in seconds.
    Costs: one pass over the rows; no quality beyond what the pre-trained states hold.
    Source: Alain and Bengio, Understanding intermediate layers using linear classifier probes, ICLR workshop 2017.
    """

    tunes: ClassVar[bool] = True

    max_length: PositiveInt | None = None
    """Tokens an input is cut at. None: the longest row of any split, at most what the model takes and 512."""

    def apply(self, model: Path, work: Work, out: Path) -> None:
        """Write the model with the fitted head to `out`. Raises Unsupported unless the task is one label a text."""
        import torch

        from plimsoll.train import costs, logistic, loop, tuning

        with loop.settings(work):
            made = tuning.prepared(model, work, self.max_length)
            tuned = made.model.to(work.device).eval()
            classifier, labels = getattr(tuned.head, "classifier", None), made.data.targets("train")
            if not isinstance(classifier, torch.nn.Linear) or labels.ndim > 1 or labels.dtype != int:
                kind = work.task.name().replace("_", "-")
                raise Unsupported(f"the head of {kind} is not fitted by logistic regression",
                                  "tune by finetune or lora instead")
            features, held = (tuning.pooled(tuned, tokens, work) for tokens in (made.train, made.validation))
            found, score, penalty = logistic.best(
                features, labels, len(made.data.labels), lambda one: made.score(one.logits(held)))
            with torch.no_grad():
                classifier.weight.copy_(torch.from_numpy(found.weights))
                classifier.bias.copy_(torch.from_numpy(found.biases))
            if work.costs is not None:
                costs.write_without_steps(tuned, classifier, work.costs)
            work.report({"stage": self.name(), "note": f"penalty {penalty:g}: {score:.2%} on validation"})
            tuning.write(tuned, made, work, model, out)
