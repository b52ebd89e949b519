"""The endpoints: which body, which answer, who may ask. No logic beyond that."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Body, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, StringConstraints, TypeAdapter, ValidationError
from starlette.convertors import PathConvertor, register_url_convertor

from service.engine.arm import Arm
from service.parts import Parts
from service.settings import Scope
from service.telemetry.observability import user_hash
from service.web.batch_answers import answer_batch
from service.web.openapi import problems
from service.web.security import Guard, context_of
from service.wire.problems import INVALID_REQUEST, WRONG_MEDIA_TYPE, ProblemError
from service.wire.schemas import (
    ArmAnswer,
    BatchAnswer,
    BatchRequest,
    BundleRequest,
    ExplainAnswer,
    ExplainRequest,
    HealthAnswer,
    HistoryAnswer,
    HistoryItem,
    InteractionAnswer,
    InteractionRequest,
    InteractionsAnswer,
    InteractionsRequest,
    ItemsAnswer,
    ModelAnswer,
    RankingAnswer,
    SequentialRequest,
    SimilarRequest,
    SwapAnswer,
    TopNRequest,
    UsersAnswer,
)

MAX_TIMEOUT_MS = 60_000


class _Anything(PathConvertor):
    """Like `path`, but the id may hold line ends too."""

    regex = "(?s:.*)"


register_url_convertor("anything", _Anything())
Handler = Callable[[Request], Coroutine[Any, Any, Response]]
UserPath = Annotated[str, Path(min_length=1, max_length=128)]
UserQuery = Annotated[str, Query(min_length=1, max_length=128)]
Limit = Annotated[int, Query(ge=1, le=1000)]
Key = Annotated[
    Annotated[str, StringConstraints(min_length=1, max_length=128)] | None,
    Header(alias="Idempotency-Key", description="Repeat it with the repeated request: what it adds is added once."),
]
Few = Annotated[int, Query(ge=1, le=100)]
Prefix = Annotated[str, Query(max_length=128)]


def guarded(scope: Scope, *, direct: bool = False) -> type[APIRoute]:
    """Routes that check key, rate, media type and deadline before the body is read.

    direct: endpoints of (request, body) alone get their body from pydantic's own JSON parser, past the framework's
    resolution of parameters, which costs as much as everything else that the service does for a request.
    """

    class GuardedRoute(APIRoute):
        def get_route_handler(self) -> Handler:
            """See APIRoute."""
            inner = _direct_handler(self) if direct else super().get_route_handler()

            async def handle(request: Request) -> Response:
                parts = parts_of(request)
                await guard_of(request).admit(request, scope)
                if self.body_field is not None:
                    _require_json(request)
                _set_deadline(request, parts.settings.default_timeout_ms(self.path))
                return await inner(request)

            return handle

    return GuardedRoute


def _direct_handler(route: APIRoute) -> Handler:
    assert route.body_field is not None
    body_type: Any = route.body_field.field_info.annotation
    adapter: TypeAdapter[Any] = TypeAdapter(body_type)

    async def handle(request: Request) -> Response:
        try:
            body = adapter.validate_json(await request.body())
        except ValidationError as error:
            errors = error.errors(include_url=False, include_context=False, include_input=False)
            raise RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in errors]) from None
        answer: Response = await route.endpoint(request, body)
        return answer

    return handle


def parts_of(request: Request) -> Parts:
    """The parts of the service that answers this request."""
    parts = request.app.state.parts
    assert isinstance(parts, Parts)
    return parts


def guard_of(request: Request) -> Guard:
    """Who lets this request in."""
    guard = request.app.state.guard
    assert isinstance(guard, Guard)
    return guard


def _name_user(request: Request, user_id: str | None) -> None:
    """Let the log know the request's user, hashed."""
    if user_id is not None:
        salt = parts_of(request).settings.log_salt.get_secret_value()
        context_of(request).user_hash = user_hash(user_id, salt)


def _require_json(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise ProblemError(WRONG_MEDIA_TYPE, f"the body is {media_type or 'of no stated type'}, not application/json")


def _set_deadline(request: Request, default_ms: int) -> None:
    context = context_of(request)
    asked = request.headers.get("x-request-timeout-ms")
    if asked is None:
        timeout_ms = default_ms
    elif asked.isascii() and asked.isdigit() and len(asked) <= 6 and 1 <= int(asked) <= MAX_TIMEOUT_MS:
        timeout_ms = int(asked)
    else:
        raise ProblemError(
            INVALID_REQUEST,
            f"X-Request-Timeout-Ms is a whole number from 1 to {MAX_TIMEOUT_MS}",
            field="X-Request-Timeout-Ms",
        )
    context.deadline = context.started_at + timeout_ms / 1000


def _json(answer: BaseModel | RankingAnswer, status: int = 200) -> Response:
    """The answer as it is: nothing but this service made it."""
    content = orjson.dumps(answer) if isinstance(answer, RankingAnswer) else answer.model_dump_json()
    return Response(content, status_code=status, media_type="application/json")


ask = APIRouter(route_class=guarded("recommend", direct=True), tags=["recommendations"])
write = APIRouter(route_class=guarded("write"), tags=["histories"])
read = APIRouter(route_class=guarded("recommend"), tags=["histories"])
look = APIRouter(route_class=guarded("recommend"), tags=["catalogue"])
model = APIRouter(route_class=guarded("recommend"), tags=["operation"])
admin = APIRouter(route_class=guarded("admin"), tags=["administration"])
open_to_all = APIRouter(tags=["operation"])
ROUTERS = (ask, write, read, look, model, admin, open_to_all)


@ask.post("/recommend/sequential", response_model=RankingAnswer, responses=problems(body=True, engine=True))
async def recommend_sequential(request: Request, body: Annotated[SequentialRequest, Body()]) -> Response:
    """What will this user want next?

    The history is the request's, else the one that the service keeps, else the bundle's. A user of whom nothing is
    known gets the popular items, with `history_source: "none"`.
    """
    parts = parts_of(request)
    _name_user(request, body.user_id)
    return _json(await parts.recommender.sequential(body, context_of(request)))


@ask.post("/recommend/topn", response_model=RankingAnswer, responses=problems(body=True, engine=True))
async def recommend_topn(request: Request, body: Annotated[TopNRequest, Body()]) -> Response:
    """Which of these candidates suit this user best?

    Up to 1000 candidates, scored in chunks of the width that the model was trained with. Without candidates the service
    draws them by co-purchase and popularity.
    """
    parts = parts_of(request)
    _name_user(request, body.user_id)
    return _json(await parts.recommender.topn(body, context_of(request)))


@ask.post("/recommend/similar", response_model=RankingAnswer, responses=problems(body=True))
async def recommend_similar(request: Request, body: Annotated[SimilarRequest, Body()]) -> Response:
    """What is like these items, by who bought them together and by what is written about them?

    No user is needed and no model is asked. Fewer items come back where fewer are like these at all.
    """
    return _json(await parts_of(request).recommender.similar(body, context_of(request)))


@ask.post("/explain", response_model=ExplainAnswer, responses=problems(body=True, engine=True))
async def explain(request: Request, body: Annotated[ExplainRequest, Body()]) -> Response:
    """Why this item for this user?

    One or two sentences from what reviews say of the item and what the user said before, the statements that they speak
    from, a caution where many complain, and the items of the history that speak for it.
    """
    parts = parts_of(request)
    _name_user(request, body.user_id)
    return _json(await parts.recommender.explain(body, context_of(request)))


@ask.post("/recommend/batch", response_model=BatchAnswer, responses=problems(body=True, engine=True))
async def recommend_batch(request: Request, body: Annotated[BatchRequest, Body()]) -> Response:
    """Up to 256 requests at once, each with its own answer or problem.

    `kind` is `sequential`, `topn`, `similar` or `explain`.
    """
    parts = parts_of(request)
    await guard_of(request).charge(request, len(body.requests) - 1)
    at_once = 2 * parts.settings.batch_size
    return _json(await answer_batch(parts.recommender, body, context_of(request), at_once=at_once))


@write.post(
    "/interactions", status_code=201, response_model=InteractionAnswer, responses=problems(body=True, history=True)
)
async def add_interaction(
    request: Request,
    body: Annotated[InteractionRequest, Body()],
    idempotency_key: Key = None,
) -> Response:
    """Add an interaction to the user's history. 201: it is kept, and every later answer knows it."""
    parts = parts_of(request)
    _name_user(request, body.user_id)
    return _json(await parts.histories.append(body, idempotency_key, context_of(request)), 201)


@write.post("/interactions/batch", response_model=InteractionsAnswer, responses=problems(body=True, history=True))
async def add_interactions(
    request: Request,
    body: Annotated[InteractionsRequest, Body()],
    idempotency_key: Key = None,
) -> Response:
    """Add up to 1000 interactions; each has its own result, and those of one user are kept together or not at all.

    They are put in the order of their timestamps, before what is known already where they are older.
    """
    parts = parts_of(request)
    await guard_of(request).charge(request, len(body.interactions) - 1)
    results = await parts.histories.append_all(body.interactions, idempotency_key, context_of(request))
    return _json(InteractionsAnswer(history_source=parts.stores.history.name, results=results))


@read.get("/users/{user_id:anything}/history", response_model=HistoryAnswer, responses=problems())
async def get_history(request: Request, user_id: UserPath, limit: Limit = 100) -> Response:
    """What the service knows of the user, oldest first; empty for a user of whom it knows nothing."""
    parts = parts_of(request)
    _name_user(request, user_id)
    return _json(await parts.histories.read(user_id, limit, context_of(request)))


@read.get("/history", response_model=HistoryAnswer, responses=problems())
async def get_history_by_query(request: Request, user_id: UserQuery, limit: Limit = 100) -> Response:
    """The same for any id: clients and proxies rewrite paths that hold `/`, `.` or `..`, and no query."""
    return await get_history(request, user_id, limit)


@write.delete("/users/{user_id:anything}/history", status_code=204, responses=problems(history=True))
async def forget_user(request: Request, user_id: UserPath) -> Response:
    """Forget the user: the history, the bundle's part of it, and every text that was written from them.

    204: from now on no replica uses or shows them, also after a restart. On a 503 nothing is promised; repeat it.
    """
    parts = parts_of(request)
    _name_user(request, user_id)
    await parts.histories.forget(user_id, context_of(request))
    return Response(status_code=204)


@write.delete("/history", status_code=204, responses=problems(history=True))
async def forget_user_by_query(request: Request, user_id: UserQuery) -> Response:
    """The same for any id, see `GET /history`."""
    return await forget_user(request, user_id)


@look.get("/users", response_model=UsersAnswer, responses=problems(history=True))
async def find_users(request: Request, query: Prefix = "", limit: Few = 20) -> Response:
    """Users of the bundle whose id begins with `query`, but those who were forgotten."""
    parts = parts_of(request)
    users = parts.host.primary.users.user_ids
    found = [users[index] for index in users.starting_with(query, limit)]
    return _json(UsersAnswer(user_ids=await parts.histories.not_forgotten(found)))


@look.get("/items", response_model=ItemsAnswer, responses=problems())
async def find_items(request: Request, query: Prefix = "", limit: Few = 20) -> Response:
    """Items whose id begins with `query` or whose title holds it."""
    arm = parts_of(request).host.primary
    found = arm.search_items(query, limit)
    catalog = arm.catalog
    return _json(ItemsAnswer(items=[HistoryItem(item_id=catalog.item_ids[i], title=catalog.title(i)) for i in found]))


@model.get("/v1/model", response_model=ModelAnswer, responses=problems())
async def get_model(request: Request) -> Response:
    """The bundle that answers: version, recipe, metrics, score modes."""
    parts = parts_of(request)
    return _json(_model_answer(parts.host.primary, parts.host.arms))


@admin.post("/admin/bundle", response_model=SwapAnswer, responses=problems(body=True, bundle=True))
async def swap_bundle(request: Request, body: Annotated[BundleRequest, Body()]) -> Response:
    """Serve another bundle, or the same folder read again. On any failure the present one stays (409).

    Goes on to its end though the caller hang up. Where the service was started with a link, that leads to the new
    bundle from then on.
    """
    host = parts_of(request).host
    new, survives = await host.swap_for_good(body.path)
    return _json(SwapAnswer(**dict(_model_answer(new, host.arms)), survives_restart=survives))


@open_to_all.get("/health/live", response_model=HealthAnswer, responses=problems(guarded=False, unready=True))
async def live(request: Request) -> Response:
    """200 while the process can still help itself; 503 asks for a new one."""
    reasons = parts_of(request).host.dead()
    return _json(HealthAnswer(status="dead" if reasons else "ok", reasons=reasons), 503 if reasons else 200)


@open_to_all.get("/health/ready", response_model=HealthAnswer, responses=problems(guarded=False, unready=True))
async def ready(request: Request) -> Response:
    """200 once every endpoint was warmed up; 503 says why not.

    `degraded` while an engine is being restarted: graph and popularity answer meanwhile, which is more than nobody.
    """
    host = parts_of(request).host
    if reasons := host.unready():
        return _json(HealthAnswer(status="not ready", reasons=reasons), 503)
    degraded = host.degraded()
    return _json(HealthAnswer(status="degraded" if degraded else "ready", reasons=degraded))


@open_to_all.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """Prometheus."""
    return Response(generate_latest(parts_of(request).metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _model_answer(arm: Arm, arms: dict[str, Arm]) -> ModelAnswer:
    manifest = arm.bundle.manifest
    return ModelAnswer(
        model_version=arm.version,
        name=manifest.name,
        created_at=manifest.created_at,
        recipe=manifest.recipe,
        protocol=manifest.protocol,
        label_scheme=manifest.label_scheme,
        n_users=manifest.n_users,
        n_items=manifest.n_items,
        score_mode=arm.score_mode,
        score_modes=manifest.score_modes,
        strategy=arm.strategy,
        candidate_width=manifest.candidate_width,
        text_tasks=[task.name.lower() for task in manifest.text_tasks],
        fusion=manifest.fusion,
        metrics=manifest.metrics,
        arms={
            name: ArmAnswer(model_version=other.version, score_mode=other.score_mode) for name, other in arms.items()
        },
    )
