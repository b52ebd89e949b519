"""`rdrec distill`: rationales for a dataset's training reviews. Options in, progress and the report out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import BaseModel

Options = TypeVar("Options", bound=BaseModel)
INCOMPLETE = 3
INTERRUPTED = 130
_TEACHER = "extractive | openai:URL | transformers:PATH_OR_ID | batch"


def distill(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder of `rdrec prepare`.")],
    teacher: Annotated[str, typer.Option(help=_TEACHER)],
    model: Annotated[str | None, typer.Option(help="Model name that the server knows (openai, batch).")] = None,
    concurrency: Annotated[int, typer.Option(help="Requests at once (openai).")] = 32,
    batch_size: Annotated[int, typer.Option(help="Reviews a generation batch (transformers).")] = 16,
    temperature: Annotated[float, typer.Option(help="Sampling temperature; 0 is greedy.")] = 0.0,
    max_completion_tokens: Annotated[int, typer.Option(help="Tokens an answer may take.")] = 120,
    structured: Annotated[bool, typer.Option(help="Ask for JSON by schema where the server takes it.")] = True,
    request_style: Annotated[
        str,
        typer.Option(
            help="auto | classic (`max_tokens`, a temperature) | modern (`max_completion_tokens`, none); "
            "auto asks the server, and is classic for batch."
        ),
    ] = "auto",
    dtype: Annotated[str, typer.Option(help="auto | float32 | bfloat16 (transformers).")] = "auto",
    language: Annotated[
        str, typer.Option(help="Language of the rationales: a name or code, or auto for each review's own.")
    ] = "auto",
    timeout_s: Annotated[float, typer.Option(help="Seconds a request may take.")] = 60.0,
    max_attempts: Annotated[int, typer.Option(help="Tries a request before its review stays open.")] = 8,
    max_tokens_total: Annotated[int | None, typer.Option(help="Stop before this many tokens are spent.")] = None,
    max_cost: Annotated[float | None, typer.Option(help="Stop before this much money is spent.")] = None,
    price_prompt: Annotated[float, typer.Option(help="Price of a million prompt tokens.")] = 0.0,
    price_completion: Annotated[float, typer.Option(help="Price of a million completion tokens.")] = 0.0,
    min_review_words: Annotated[int, typer.Option(help="Shorter reviews are `ungrounded`.")] = 4,
    min_grounding: Annotated[float, typer.Option(help="Rationales of a lower score are `ungrounded`.")] = 0.5,
    keep_ungrounded: Annotated[bool, typer.Option(help="Train on ungrounded rationales too.")] = False,
    journal: Annotated[
        Path | None, typer.Option(help="Where answers are kept; by default DATASET-rationale-journal.sqlite.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write the report with 20 samples a verdict (Markdown).")] = None,
    shards: Annotated[
        Path | None, typer.Option(help="Write open questions as OpenAI-batch JSONL to this empty folder (batch).")
    ] = None,
    shard_size: Annotated[int, typer.Option(help="Requests a shard.", min=1)] = 50_000,
    answers: Annotated[Path | None, typer.Option(help="Read the *.jsonl that came back (batch).")] = None,
    seed: Annotated[int, typer.Option(help="Picks the report's samples.")] = 0,
) -> None:
    """Distill rationales from the training reviews into rationales.parquet.

    Answers are kept in a journal: a rerun, after a kill or with other thresholds, asks nothing twice. The key of
    a server comes from RDREC_TEACHER_API_KEY, else OPENAI_API_KEY.

    Exit status: 0 complete; 3 a table was written but reviews are open (budget, failed requests); 130 interrupted.
    """
    import asyncio
    import os
    import random
    import time
    from functools import partial

    # Before Arrow is loaded, for it looks but once, and set_memory_pool() does not reach its Parquet writer. Its own
    # allocator takes huge pages and keeps what is freed: 3 MB in use cost 25 MB at 100,000 reviews.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

    from rich.console import Console

    from rdrec_core.errors import InputError
    from training.data.dataset import Dataset
    from training.rationale.asking import AskingTally
    from training.rationale.batch import BatchTeacher, open_questions, read_answers, write_shards
    from training.rationale.budget import Prices
    from training.rationale.distill import Limits, ask_about, judge_and_write, reviews_to_ask, training_texts
    from training.rationale.journal import AnswerJournal
    from training.rationale.judging import Thresholds
    from training.rationale.languages import languages_for
    from training.rationale.progress import DistillProgress, stop_on_interrupt
    from training.rationale.selection import TeacherOptions, open_teacher
    from training.rationale.table import count_reviews
    from training.rationale.teacher import Identity

    if max_cost is not None and price_prompt <= 0 and price_completion <= 0:
        raise InputError("--max-cost needs --price-prompt and --price-completion", field="--max-cost")
    options = _checked(
        TeacherOptions,
        model=model,
        concurrency=concurrency,
        batch_size=batch_size,
        temperature=temperature,
        max_completion_tokens=max_completion_tokens,
        structured=structured,
        request_style=request_style,
        dtype=dtype,
        timeout_s=timeout_s,
        max_attempts=max_attempts,
    )
    thresholds = _checked(
        Thresholds,
        min_review_words=min_review_words,
        min_grounding=min_grounding,
        keep_ungrounded=keep_ungrounded,
    )
    limits = _checked(
        Limits,
        max_tokens_total=max_tokens_total,
        max_cost=max_cost,
        max_completion_tokens=max_completion_tokens,
    )
    prices = Prices(price_prompt, price_completion)
    console = Console(stderr=True)
    say = partial(console.print, soft_wrap=True, highlight=False)
    data = Dataset(dataset)
    languages = languages_for(language, training_texts(data))
    # Beside the folder, not in it: preparing the dataset anew replaces the folder, and answers have been paid for.
    book_path = journal or dataset.resolve().with_name(f"{dataset.resolve().name}-rationale-journal.sqlite")
    stopped = failure = ""

    if teacher == "batch":
        if shards is None and answers is None:
            raise InputError("--teacher batch needs --shards DIR, --answers DIR or both", field="--shards")
        if limits.max_tokens_total is not None or limits.max_cost is not None:
            raise InputError("a budget cannot be kept for a batch; send fewer shards", field="--max-tokens-total")
        batch = BatchTeacher(options.generation(), modern=options.request_style == "modern")
        who: Identity = batch
        with AnswerJournal(book_path, batch) as book:
            if answers is not None:
                say(f"read {answers}: {read_answers(answers, book, prices, time.time()).summary()}")
            if shards is not None:
                questions = open_questions(reviews_to_ask(data, thresholds), book, languages)
                written = write_shards(questions, book, batch, shards, shard_size)
                say(f"wrote {written.questions:,} questions in {written.shards} shards to {shards}")
        if answers is None:
            return
    else:
        if shards is not None or answers is not None:
            raise InputError("--shards and --answers belong to --teacher batch", field="--shards")
        who = live = open_teacher(teacher, options)

        async def ask(book: AnswerJournal) -> AskingTally:
            stop = asyncio.Event()
            with stop_on_interrupt(stop, console), DistillProgress(console, count_reviews(data)) as progress:
                return await ask_about(
                    data,
                    live,
                    book,
                    thresholds=thresholds,
                    limits=limits,
                    prices=prices,
                    languages=languages,
                    stop=stop,
                    observe=progress.update,
                )

        with AnswerJournal(book_path, live) as book:
            try:
                tally = asyncio.run(ask(book))
            except asyncio.CancelledError:
                tally = AskingTally(stopped="interrupted")
        if tally.stopped == "interrupted":
            say("interrupted: no table was written; run the same command again to go on")
            raise typer.Exit(INTERRUPTED)
        say(f"{tally.asked:,} answers in this run, {tally.reasked:,} of them to the strict question")
        stopped, failure = tally.stopped, tally.last_failure

    with AnswerJournal(book_path, who) as book:
        verdicts, unanswered = judge_and_write(data, who.name, book, thresholds, random.Random(seed), languages)
        spent = book.spent()
    verdicts.print(Console())
    say(f"in all {spent.answers:,} answers, {spent.tokens:,} tokens, cost {spent.cost:.2f}")
    if report is not None:
        report.write_text(verdicts.markdown(f"Rationales of {data.info.name} by {who.name}"), encoding="utf-8")
    say(f"wrote {data.rationales_path}")
    if unanswered:
        why = "the budget is spent" if stopped == "budget" else f"they were not answered {failure}".strip()
        say(f"{unanswered:,} reviews are open because {why}; run the same command again to ask them")
        raise typer.Exit(INCOMPLETE)


def _checked(kind: type[Options], **values: object) -> Options:
    """A pydantic model from options; its complaint names the option."""
    from pydantic import ValidationError

    from rdrec_core.errors import InputError

    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise InputError(f"{option}: {first['msg']}", field=option) from error
