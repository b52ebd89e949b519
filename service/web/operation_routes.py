"""The service about itself: look-ups of the console, what is served, how it is. No logic beyond that."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from service.engine.arm import Arm
from service.web.openapi import problems
from service.web.routing import guarded, json_answer, parts_of
from service.wire.interactions import HistoryItem
from service.wire.operation import (
    ArmAnswer,
    BundleRequest,
    HealthAnswer,
    ItemsAnswer,
    ModelAnswer,
    SwapAnswer,
    UsersAnswer,
)

Few = Annotated[int, Query(ge=1, le=100)]
Prefix = Annotated[str, Query(max_length=128)]
look = APIRouter(route_class=guarded("recommend"), tags=["catalogue"])
model = APIRouter(route_class=guarded("recommend"), tags=["operation"])
admin = APIRouter(route_class=guarded("admin"), tags=["administration"])
open_to_all = APIRouter(tags=["operation"])


@look.get("/users", response_model=UsersAnswer, responses=problems(history=True))
async def find_users(request: Request, query: Prefix = "", limit: Few = 20) -> Response:
    """Users of the bundle whose id begins with `query`, but those who were forgotten."""
    parts = parts_of(request)
    users = parts.host.primary.users.user_ids
    found = [users[index] for index in users.starting_with(query, limit)]
    return json_answer(UsersAnswer(user_ids=await parts.histories.not_forgotten(found)))


@look.get("/items", response_model=ItemsAnswer, responses=problems())
async def find_items(request: Request, query: Prefix = "", limit: Few = 20) -> Response:
    """Items whose id begins with `query` or whose title holds it."""
    arm = parts_of(request).host.primary
    found = [arm.name_of(index) for index in arm.items.search(query, limit)]
    return json_answer(ItemsAnswer(items=[HistoryItem(item_id=item_id, title=title) for item_id, title in found]))


@model.get("/v1/model", response_model=ModelAnswer, responses=problems())
async def get_model(request: Request) -> Response:
    """The bundle that answers: version, recipe, metrics, score modes."""
    parts = parts_of(request)
    return json_answer(_model_answer(parts.host.primary, parts.host.arms))


@admin.post("/admin/bundle", response_model=SwapAnswer, responses=problems(body=True, bundle=True))
async def swap_bundle(request: Request, body: Annotated[BundleRequest, Body()]) -> Response:
    """Serve another bundle, or the same folder read again. On any failure the present one stays (409).

    Goes on to its end though the caller hang up. Where the service was started with a link, that leads to the new
    bundle from then on.
    """
    parts = parts_of(request)
    survives = await parts.siblings.swap_for_good(body.path)
    answer = _model_answer(parts.host.primary, parts.host.arms)
    return json_answer(SwapAnswer(**dict(answer), survives_restart=survives))


@open_to_all.get("/health/live", response_model=HealthAnswer, responses=problems(guarded=False, unready=True))
async def live(request: Request) -> Response:
    """200 while the process can still help itself; 503 asks for a new one."""
    reasons = (await parts_of(request).siblings.health()).dead
    return json_answer(HealthAnswer(status="dead" if reasons else "ok", reasons=reasons), 503 if reasons else 200)


@open_to_all.get("/health/ready", response_model=HealthAnswer, responses=problems(guarded=False, unready=True))
async def ready(request: Request) -> Response:
    """200 once every endpoint was warmed up; 503 says why not.

    `degraded` while an engine is being restarted: graph and popularity answer meanwhile, which is more than nobody.
    """
    health = await parts_of(request).siblings.health()
    if health.unready:
        return json_answer(HealthAnswer(status="not ready", reasons=health.unready), 503)
    return json_answer(HealthAnswer(status="degraded" if health.degraded else "ready", reasons=health.degraded))


@open_to_all.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """Prometheus."""
    parts = parts_of(request)
    return Response(parts.metrics.exposition(await parts.siblings.state()), media_type=CONTENT_TYPE_LATEST)


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
        devices=arm.devices,
        arms={
            name: ArmAnswer(model_version=other.version, score_mode=other.score_mode) for name, other in arms.items()
        },
    )
