"""A callback of the Hugging Face Trainer that logs what the routers did since the last log."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from resonance_theory.nn.metrics import routing_metrics

__all__ = ["RoutingCallback"]


class RoutingCallback(TrainerCallback):  # type: ignore[misc]
    """Log `rt.nn.routing_metrics` whenever the trainer logs, to wherever it reports: TensorBoard, W&B, its log history.

        trainer = Trainer(model=model, args=TrainingArguments(report_to="tensorboard", logging_steps=10), ...)
        trainer.add_callback(RoutingCallback(trainer))

    The counts of all ranks are added up, and begin anew after every log. NaN, of what was not seen, is left out.

    Args:
        trainer: the trainer, whose model holds routers with statistics.
        full: every statistic, with a number for each expert; else the few that a dashboard needs.
    """

    def __init__(self, trainer: Any, *, full: bool = False) -> None:
        self.trainer, self.full = trainer, full

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After a step of the optimizer, on all ranks."""
        if control.should_log:
            found = routing_metrics(self.trainer.model, full=self.full, reset=True)
            self.trainer.log({name: value for name, value in found.items() if value == value})
