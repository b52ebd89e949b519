"""Alert rules and dashboard: valid, tested, and asking for nothing that the service does not tell."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

from tests.deploy_tools import promtool, run
from tests.fake_service import user_id, write_bundle
from tests.redis_process import running_redis
from tests.replica import ROOT, running_replica

COMPOSE = ROOT / "deploy/compose"
PROMETHEUS = COMPOSE / "prometheus"


def alerts() -> dict[str, str]:
    """Expressions by name."""
    [group] = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule["expr"] for rule in group["rules"]}


def dashboard() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((COMPOSE / "grafana/dashboards/rdrec.json").read_text())
    return document


def dashboard_expressions() -> list[str]:
    return [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]


def test_prometheus_configuration_rules_and_their_own_tests() -> None:
    run(promtool(), "check", "config", "--syntax-only", PROMETHEUS / "prometheus.yml")
    run(promtool(), "check", "rules", PROMETHEUS / "alerts.yml")
    run(promtool(), "test", "rules", PROMETHEUS / "alerts_test.yml")


def test_every_alert_has_a_test() -> None:
    tested = set(re.findall(r"alertname: (\w+)", (PROMETHEUS / "alerts_test.yml").read_text()))
    assert tested == set(alerts())


@pytest.fixture(scope="module")
def metrics_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """/metrics of a service with Redis after one answer."""
    folder = tmp_path_factory.mktemp("metrics")
    with (
        running_redis(folder / "redis") as redis,
        running_replica(write_bundle(folder / "bundle"), folder / "log", redis_url=redis.url) as replica,
    ):
        answer = httpx.post(f"{replica.url}/recommend/sequential", json={"user_id": user_id(1)}).json()
        told = {"impression_id": answer["impression_id"], "item_id": answer["items"][0]["item_id"]}
        assert httpx.post(f"{replica.url}/feedback", json=told).status_code == 201
        return httpx.get(f"{replica.url}/metrics").text


def test_every_metric_that_is_asked_for_is_served_and_none_is_left_unseen(metrics_text: str) -> None:
    kinds = dict(re.findall(r"^# TYPE (rdrec_\w+) (\w+)", metrics_text, re.MULTILINE))
    served = {name for name, kind in kinds.items() if kind != "histogram" and not name.endswith("_created")}
    histograms = {name for name, kind in kinds.items() if kind == "histogram"}
    asked = set(re.findall(r"\brdrec_\w+", " ".join([*alerts().values(), *dashboard_expressions()])))
    families = {name if name in served else re.sub("_(bucket|sum|count)$", "", name) for name in asked}
    assert families == served | histograms


def test_labels_that_are_asked_for_are_served(metrics_text: str) -> None:
    served: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^(rdrec_\w+)\{([^}]*)\}", metrics_text, re.MULTILINE):
        served.setdefault(name, set()).update(re.findall(r"(\w+)=", labels))
    for expression in [*alerts().values(), *dashboard_expressions()]:
        for name, labels in re.findall(r"\b(rdrec_\w+)\{([^}]*)\}", expression):
            asked = set(re.findall(r"(\w+)(?:=|!=|=~|!~)", labels)) - {"job", "instance"}
            if name in served:  # a counter shows its labels from its first event on
                assert asked <= served[name], name


@pytest.mark.parametrize(("taken", "shown"), [(1, 10), (0, 7), (50, 50), (830, 10_000)])
def test_shares_of_lists_come_with_wilsons_interval(taken: int, shown: int) -> None:
    """The panels' expressions are arithmetic over two sums; the oracle solves Wilson's equation for its two roots."""
    z, share = 1.96, taken / shown
    roots = np.roots([1 + z**2 / shown, -(2 * share + z**2 / shown), share**2])
    for panel in dashboard()["panels"]:
        if not re.match("Lists (of which anything was taken|that led to a purchase)", panel["title"]):
            continue
        found = []
        for target in panel["targets"]:
            sums = re.compile(r"sum by \(arm\) \(increase\(rdrec_(\w+)_total\{[^}]*\}\[6h\]\)\)")
            spelled = sums.sub(lambda name: "shown" if name[1] == "impressions" else "taken", target["expr"])
            found.append(eval(spelled, {"sqrt": math.sqrt, "taken": taken, "shown": shown}))
        assert found == pytest.approx([share, *sorted(roots)], abs=1e-9)


def test_dashboard_is_whole() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)
    sources = yaml.safe_load((COMPOSE / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    assert {panel["datasource"]["uid"] for panel in panels} == {sources[0]["uid"]}
    [provider] = yaml.safe_load((COMPOSE / "grafana/provisioning/dashboards/rdrec.yaml").read_text())["providers"]
    compose = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in compose["services"]["grafana"]["volumes"]


def test_dashboard_expressions_are_promql(tmp_path: Path) -> None:
    """As recording rules, with Grafana's variables filled in, under promtool."""
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "1m").replace("$job", ".*")}
        for number, expression in enumerate(dashboard_expressions())
    ]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    run(promtool(), "check", "rules", "--lint=none", tmp_path / "rules.yml")
