"""docs/api.md and docs/operations.md name every problem, endpoint and setting, and none that is not there."""

from __future__ import annotations

import re
from pathlib import Path

from service.settings import Settings
from service.telemetry.observability import Metrics
from service.web.routes import ROUTERS
from service.wire.problems import PROBLEM_TYPES

DOCS = Path(__file__).parents[2] / "docs"


def test_every_problem_and_its_status_stand_in_the_table() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d{3}) \|", (DOCS / "api.md").read_text(), re.M)
    assert sorted(rows) == sorted((kind.slug, str(kind.status)) for kind in PROBLEM_TYPES)


def test_every_endpoint_stands_in_the_api_page() -> None:
    text = (DOCS / "api.md").read_text()
    for router in ROUTERS:
        for route in router.routes:
            assert route.path_format in text  # type: ignore[attr-defined]


def test_every_setting_stands_in_the_operations_page() -> None:
    named = set(re.findall(r"RDREC_([A-Z_]+)", (DOCS / "operations.md").read_text())) - {"", "SETTINGS_FILE"}
    assert {name for name in named if name.strip("_")} == {name.upper() for name in Settings.model_fields}


def test_every_metric_of_the_operations_page_is_measured() -> None:
    known = {metric.name for metric in Metrics().registry.collect()} | {
        "rdrec_queue_depth", "rdrec_ready", "rdrec_breaker_state", "rdrec_history_store_available",
        "rdrec_answer_cache_size", "rdrec_model_info", "rdrec_engine_up", "rdrec_engines", "rdrec_under_way",
        "rdrec_admission_limit", "rdrec_engine_device", "rdrec_bundle_created_timestamp_seconds",
        "rdrec_catalogue_new_items", "rdrec_catalogue_store_available",
    }  # fmt: skip
    named = re.findall(r"`(rdrec_[a-z_]+?)(?:_total)?`", (DOCS / "operations.md").read_text())
    assert len(named) > 15
    assert set(named) <= known
