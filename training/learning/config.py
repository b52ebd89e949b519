"""Everything that decides a training run: one frozen record, filled from a recipe, a YAML file and flags in turn.

Knows field names and their limits, not what the fields do. A recipe is a YAML file beside this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rdrec_core.errors import InputError
from rdrec_core.types import Task

RECIPES = ("paper", "scratch")
RESUMABLE_FIELDS = {"epochs", "time_budget_min", "checkpoint_min", "patience"}
"""What may differ between a run and its resumption: when to stop, and how often to save."""
CONTINUED_EPOCHS = 3
"""Of a training that goes on from a checkpoint, where none are named."""
CONTINUED_RATE = 0.5
"""Its peak learning rate, as a part of the checkpoint's."""
_STRUCTURE = (
    "recipe", "backbone", "causal_encoder", "prompt_length", "whole_word_rows", "vocabulary_size", "item_words",
    "whole_labels", "starts_from_source", "text_rows", "graph_initialisation",
)  # fmt: skip
"""What a model is made by: a training that goes on from it has the same."""
_RETIRED = {"future_targets": 1, "future_decay": 1.0}
"""Fields that earlier versions stored, and the only values at which their checkpoints still mean the same."""


class Ratio(BaseModel):
    """How many parts of an epoch each group of tasks gets, EG:RG:SR:TR of the paper (Table 6)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    explanation: float = Field(1.0, ge=0)
    rationale: float = Field(1.0, ge=0)
    """Of rationale rows, each of which trains both of its sentences: the user preference and the item attributes."""
    sequential: float = Field(1.0, ge=0)
    topn: float = Field(1.0, ge=0)

    @classmethod
    def parse(cls, text: str) -> Ratio:
        """`1:1:1:3` -> Ratio. Raises InputError where it is not four numbers."""
        parts = text.split(":")
        try:
            return cls(**dict(zip(cls.model_fields, map(float, parts), strict=True)))
        except ValueError as error:
            raise InputError(
                f"ratio {text!r} should be four numbers EG:RG:SR:TR, such as 1:1:1:3", field="ratio"
            ) from error

    def weight(self, task: Task) -> float:
        """Parts of one task."""
        return {
            Task.EXPLANATION: self.explanation,
            Task.SEQUENTIAL: self.sequential,
            Task.TOPN: self.topn,
            Task.USER_PREFERENCE: self.rationale,
            Task.ITEM_ATTRIBUTES: self.rationale,
        }[task]


def current_fields(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as some version stored it, without the fields that are gone since.

    Raises ValueError naming such a field where it says something that this version cannot do.
    """
    for name, value in _RETIRED.items():
        if stored.get(name, value) != value:
            raise ValueError(
                f"{name}={stored[name]!r} was taken out since; only {name}={value!r} can still be read: train again"
            )
    return {name: value for name, value in stored.items() if name not in _RETIRED}


class TrainConfig(BaseModel):
    """One training run. The defaults are the paper's (design page, section 1)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str = "paper"
    backbone: str = "t5-small"
    """A Hugging Face id or folder, or `scratch:tiny|wide|mini|small`."""
    seed: int = 0

    tasks: tuple[Literal["explanation", "sequential", "topn", "user_preference", "item_attributes"], ...] = (
        "explanation", "sequential", "topn", "user_preference", "item_attributes",
    )  # fmt: skip
    ratio: Ratio = Ratio()
    discrete_templates: bool = True
    """Draw the training source texts from all discrete templates; False uses the bare form alone."""
    max_target_tokens: int = Field(20, ge=1)
    """Text targets are cut here, before EOS."""
    cut_targets: Literal["tokens", "sentence"] = "tokens"
    """Where a longer text is cut: at the last token that fits, as published, or at the last sentence or clause that
    fits (a text without one is left out)."""
    min_explained_rating: float = Field(0.0, ge=0)
    """Sentences of reviews with fewer stars (of 5) are no target of the explanation task; the paper takes them all."""
    negatives: int = Field(99, ge=1)
    """Other candidates in a top-N source."""
    subsequence: Literal["random", "prefix"] = "random"
    """Whether a sequential history starts at a random item or at the user's first (of the last 20)."""
    causal_encoder: bool = False
    """Every prefix of a sequential history is a source of its own, encoded in one pass (ADR 2); from scratch only."""
    unknown_user_rate: float = Field(0.0, ge=0, le=1)
    """Share of ranking examples whose user word is `user_0`, so that unknown users with a history are served well."""

    loss: Literal["full", "trie"] = "full"
    """full: softmax over the whole vocabulary. trie: over the children that the catalogue's trie allows, and for texts
    over everything but whole item words, as texts are decoded."""
    sampled_children: int | None = Field(None, ge=1)
    """The trie loss tells a choice from at most so many others of its node, drawn anew for every step; None: all."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    dropout: float | None = Field(None, ge=0, lt=1)
    """None keeps the backbone's."""
    prompt_length: int = Field(3, ge=0)
    whole_word_rows: int = Field(512, ge=1)

    vocabulary_size: int = Field(4000, ge=100)
    """Text pieces of a vocabulary trained here; digit pieces and item words come on top."""
    item_words: Literal["pieces", "whole"] = "pieces"
    """Whether `item_10012` in a source is read in digit pieces or, with a vocabulary trained here, as one token."""
    whole_labels: bool = False
    """Write an item by its whole word too: one choice among all items, instead of one a label piece (ADR 2)."""
    whole_items_up_to: int = Field(100_000, ge=0)
    """Larger catalogues are read in digit pieces in any case: one row an item would outgrow the model."""
    starts_from_source: bool = False
    """The decoder starts from the history's last token, the item bought last, instead of the pad token (ADR 2). From
    scratch only where an item is one token: the last digits of a label say little of an item."""
    graph_initialisation: bool = False
    """Start item words and digit pieces from a spectral embedding of the training co-purchase graph (from scratch)."""

    text_rows: bool = False
    """Where an item is one token, its row is a free part plus a trained map of its words, so that an item without
    purchases has one too. A dataset without words trains without."""
    free_part_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of steps in which an item does without the free part of its row."""

    passes: int = Field(1, ge=1)
    """Passes over the largest task's rows that make an epoch (one part of the ratio)."""
    epochs: int = Field(100, ge=1)
    time_budget_min: float | None = Field(None, gt=0)
    """Minutes of training; the schedule then runs by the clock, or by `epochs` where these are done sooner."""
    patience: int = Field(5, ge=1)
    """Stop after this many epochs that are no better than the best one, by what `select` names."""
    patience_in_all: bool = False
    """Count such epochs over the whole run, as published, not since the best one."""
    select: Literal["loss", "ndcg"] = "loss"
    """Which epoch is kept, and what patience waits for: the lowest mean validation loss, or the best sequential
    NDCG@10."""
    batch_size: int = Field(64, ge=1)
    mixed_batches: bool = False
    """A batch mixes all tasks, as published, instead of holding one; needs loss: full."""
    learning_rate: float = Field(5e-4, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: float = Field(0.0, ge=0, lt=1)
    """Share of the schedule during which the learning rate rises to its peak."""
    clip_norm: float | None = Field(None, gt=0)
    """Gradients longer than this are cut to it; None leaves them."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on CUDA, fp32 elsewhere."""
    validation_limit: int | None = Field(None, ge=1)
    """Validation examples a task, drawn once by seed; None takes all."""
    checkpoint_min: float = Field(5.0, gt=0)
    """Minutes between two saves within an epoch; every epoch saves too."""

    @field_validator("ratio", mode="before")
    @classmethod
    def _ratio_text(cls, value: Any) -> Any:
        return Ratio.parse(value) if isinstance(value, str) else value

    @field_validator("tasks", mode="before")
    @classmethod
    def _tasks_text(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.causal_encoder and (self.loss == "full" or self.discrete_templates or not self.from_scratch):
            raise ValueError("causal_encoder needs a scratch:* backbone, loss: trie and discrete_templates: false")
        if self.graph_initialisation and not self.from_scratch:
            raise ValueError("graph_initialisation needs a scratch:* backbone")
        if self.item_words == "whole" and not self.from_scratch:
            raise ValueError("item_words: whole needs a scratch:* backbone, whose vocabulary is trained here")
        if self.whole_labels and self.item_words != "whole":
            raise ValueError("whole_labels needs item_words: whole")
        if self.mixed_batches and self.loss == "trie":
            raise ValueError("mixed_batches needs loss: full")
        if self.sampled_children and self.loss == "full":
            raise ValueError("sampled_children needs loss: trie")
        return self

    @property
    def from_scratch(self) -> bool:
        """Whether the backbone's weights are drawn fresh."""
        return self.backbone.startswith("scratch:")

    @property
    def task_set(self) -> tuple[Task, ...]:
        """Tasks with a part in the ratio, in prompt order."""
        chosen = (Task[name.upper()] for name in self.tasks)
        return tuple(sorted(task for task in chosen if self.ratio.weight(task) > 0))


def _read_yaml(text: str, source: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{source} is not YAML: {error}", field="config") from error
    if not isinstance(content, dict):
        raise InputError(f"{source} should hold `field: value` lines", field="config")
    return content


def load_config(recipe: str, file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """Recipe, then the YAML file, then overrides (None values count as absent). Raises InputError naming the field."""
    if recipe not in RECIPES:
        raise InputError(f"recipe {recipe!r} is unknown; choose one of {', '.join(RECIPES)}", field="recipe")
    text = files("training.learning").joinpath("recipes", f"{recipe}.yaml").read_text(encoding="utf-8")
    values = _read_yaml(text, f"recipe {recipe}")
    if file is not None:
        values |= _of_file(file)
    values |= {name: value for name, value in (overrides or {}).items() if value is not None}
    return _valid(values | {"recipe": recipe})


def continued_config(
    began: TrainConfig, file: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> TrainConfig:
    """The configuration of a training that goes on from one of `began`: shorter and at a lower rate, unless told.

    Raises InputError for a field that decides how the model is made.
    """
    values: dict[str, Any] = {
        "epochs": CONTINUED_EPOCHS, "time_budget_min": None, "learning_rate": CONTINUED_RATE * began.learning_rate,
    }  # fmt: skip
    if file is not None:
        values |= _of_file(file)
    values |= {name: value for name, value in (overrides or {}).items() if value is not None}
    for name in _STRUCTURE:
        if name in values and values[name] != getattr(began, name):
            raise InputError(
                f"{name}={values[name]!r} makes another model than --init holds ({getattr(began, name)!r}); leave it"
                " out, or train anew", field=name,
            )  # fmt: skip
    return _valid(began.model_dump() | values)


def _of_file(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise InputError(f"{file} does not exist", field="config")
    return _read_yaml(file.read_text(encoding="utf-8"), str(file))


def _valid(values: dict[str, Any]) -> TrainConfig:
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or None
        problem = "is not a field of the configuration" if first["type"] == "extra_forbidden" else first["msg"]
        raise InputError(f"{field or 'configuration'}: {problem}", field=field) from error
