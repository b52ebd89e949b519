"""The chart, rendered by the real helm in every shape, against the schemas of Kubernetes and our own rules."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.settings import Settings
from tests.deploy_tools import helm
from tests.replica import ROOT
from training.refreshing.settings import read_settings

CHART = ROOT / "deploy/helm/rdrec"
KUBERNETES = ["1.27", "1.31", "1.37"]
SHA = "a" * 64
SHAPES: dict[str, list[str]] = {
    "defaults": [],
    "image": ["bundle.source=image", "bundle.image.reference=shop/bundle:7", f"bundle.manifestSha256={SHA}"],
    "url": ["bundle.source=url", "bundle.url.secretName=bundle-url", f"bundle.manifestSha256={SHA}"],
    "gpu": ["gpu.enabled=true", "image.tag=gpu", "nodeSelector.accelerator=h100"],
    "redis": ["redis.enabled=true", "redis.appendfsync=always", "redis.storageClass=fast"],
    "external": ["redis.externalUrlSecret=redis-url", "settingsSecret=rdrec-settings", "redis.enabled=true"],
    "scaled": ["autoscaling.enabled=true"],
    "queue": ["autoscaling.enabled=true", "autoscaling.metric=queue", "serviceMonitor.enabled=true"],
    "ingress": [
        "ingress.enabled=true",
        "ingress.tlsSecret=tls",
        "ingress.annotations.a=b",
        f"image.digest=sha256:{SHA}",
    ],
    "tls": ["tlsSecret=shop-tls"],
    "refresh": [
        "refresh.enabled=true",
        "redis.enabled=true",
        "refresh.keySecret=admin-key",
        "refresh.settings.start.dataset=/data/first/dataset",
        "refresh.settings.start.checkpoint=/data/first/checkpoint",
        "refresh.settings.start.bundle=/bundles/first",
        "refresh.settings.events=redis://shop-rdrec-redis:6379/0",
    ],
    "open": ["networkPolicy.enabled=false", "podDisruptionBudget.maxUnavailable=50%"],
}


def render(values: list[str], release: str = "shop") -> list[dict[str, Any]]:
    sets = [argument for value in values for argument in ("--set", value)]
    done = subprocess.run([helm(), "template", release, str(CHART), *sets], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def kinds(documents: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [document for document in documents if document["kind"] == kind]


def deployment(values: list[str]) -> dict[str, Any]:
    [found] = kinds(render(values), "Deployment")
    return found


def pods(documents: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for document in documents:
        if document["kind"] in {"Deployment", "StatefulSet"}:
            yield document["spec"]["template"]["spec"]
        if document["kind"] == "CronJob":
            yield document["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def test_lint() -> None:
    done = subprocess.run([helm(), "lint", "--strict", str(CHART)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_valid_kubernetes(shape: str) -> None:
    documents = render(SHAPES[shape])
    assert documents
    for document in documents:
        if document["kind"] == "ServiceMonitor":  # the operator's own kind: no schema of Kubernetes
            assert document["spec"]["endpoints"][0]["port"] == "http"
            continue
        for version in KUBERNETES:
            kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_container_is_confined(shape: str) -> None:
    for pod in pods(render(SHAPES[shape])):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod.get("initContainers", []) + pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]
            assert not container["image"].endswith(":latest")
            assert ":" in container["image"]


@pytest.mark.parametrize("shape", SHAPES)
def test_names_and_selectors_fit_together(shape: str) -> None:
    documents = render(SHAPES[shape])
    labels = [
        document["spec"]["template"]["metadata"]["labels"]
        for document in documents
        if document["kind"] in {"Deployment", "StatefulSet"}
    ]
    config_maps = {document["metadata"]["name"] for document in kinds(documents, "ConfigMap")}

    def chosen(selector: dict[str, str]) -> int:
        return sum(selector.items() <= label.items() for label in labels)

    for document in documents:
        spec = document.get("spec", {})
        if document["kind"] == "Service":
            assert chosen(spec["selector"]) == 1
        if document["kind"] in {"Deployment", "StatefulSet", "PodDisruptionBudget"}:
            assert chosen(spec["selector"]["matchLabels"]) == 1
        if document["kind"] == "NetworkPolicy":
            assert chosen(spec["podSelector"]["matchLabels"]) == 1
    for pod in pods(documents):
        volumes = {volume["name"] for volume in pod["volumes"]} | {"data"}
        for volume in pod["volumes"]:
            if "configMap" in volume:
                assert volume["configMap"]["name"] in config_maps
        for container in pod.get("initContainers", []) + pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_settings_in_the_chart_exist_in_the_service() -> None:
    known = {f"RDREC_{name.upper()}" for name in Settings.model_fields} | {"RDREC_SETTINGS_FILE"}
    for shape in SHAPES.values():
        [container] = deployment(shape)["spec"]["template"]["spec"]["containers"]
        assert {variable["name"] for variable in container["env"]} <= known


def test_a_pod_has_the_time_to_drain() -> None:
    spec = deployment(["preStopS=7", "drainS=40"])["spec"]
    pod = spec["template"]["spec"]
    [container] = pod["containers"]
    assert pod["terminationGracePeriodSeconds"] > 7 + 40
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["/bin/sleep", "7"]
    assert {"name": "RDREC_DRAIN_S", "value": "40"} in container["env"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"


@pytest.mark.parametrize(("values", "scheme"), [([], "HTTP"), (SHAPES["tls"], "HTTPS")])
def test_probes_speak_as_the_service_does_and_no_service_link_reaches_it(values: list[str], scheme: str) -> None:
    pod = deployment(values)["spec"]["template"]["spec"]
    [container] = pod["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["scheme"] == scheme
    assert pod["enableServiceLinks"] is False
    names = {variable["name"] for variable in container["env"]}
    assert ("RDREC_TLS_CERTIFICATE" in names) == (scheme == "HTTPS")


def test_a_gpu_is_asked_for_beside_the_other_limits() -> None:
    [container] = deployment(SHAPES["gpu"])["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"memory": "2Gi", "nvidia.com/gpu": 1}
    assert container["resources"]["requests"] == {"cpu": "1", "memory": "1Gi"}
    [plain] = deployment([])["spec"]["template"]["spec"]["containers"]
    assert "nvidia.com/gpu" not in plain["resources"]["limits"]


def test_secrets_come_from_secrets() -> None:
    pod = deployment([*SHAPES["external"], *SHAPES["url"]])["spec"]["template"]["spec"]
    secret = {
        v["name"]: v["valueFrom"]["secretKeyRef"] for c in pod["containers"] for v in c["env"] if "valueFrom" in v
    }
    assert secret == {"RDREC_REDIS_URL": {"name": "redis-url", "key": "url"}}
    assert {"name": "settings", "secret": {"secretName": "rdrec-settings"}} in pod["volumes"]
    assert "REDIS" not in str(kinds(render(SHAPES["external"]), "StatefulSet")), (
        "an external Redis replaces the chart's"
    )


def test_autoscaling_leaves_the_number_of_replicas_alone() -> None:
    assert "replicas" not in deployment(SHAPES["scaled"])["spec"]
    assert deployment(["replicas=5"])["spec"]["replicas"] == 5
    [queue] = kinds(render(SHAPES["queue"]), "HorizontalPodAutoscaler")
    assert queue["spec"]["metrics"][0]["pods"]["metric"]["name"] == "rdrec_queue_depth"


def test_the_refresh_job_reads_its_settings_and_finds_the_replicas(tmp_path: Path) -> None:
    documents = render(SHAPES["refresh"])
    maps = {document["metadata"]["name"]: document["data"] for document in kinds(documents, "ConfigMap")}
    (tmp_path / "refresh.yaml").write_text(maps["shop-rdrec-refresh"]["refresh.yaml"])
    settings = read_settings(tmp_path / "refresh.yaml")
    assert settings.replicas.dns in {
        f"http://{document['metadata']['name']}:8000"
        for document in kinds(documents, "Service") if document["spec"].get("clusterIP") == "None"
    }  # fmt: skip
    [job] = kinds(documents, "CronJob")
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    [pod] = [pod for pod in pods(documents) if pod["containers"][0]["name"] == "refresh"]
    mounts = [Path(mount["mountPath"]) for mount in pod["containers"][0]["volumeMounts"]]
    assert settings.replicas.key_file is not None
    for path in (settings.work, settings.bundles, settings.start.dataset, settings.replicas.key_file):
        assert any(path.is_relative_to(mount) for mount in mounts), path
    [container] = deployment(SHAPES["refresh"])["spec"]["template"]["spec"]["containers"]
    served = next(variable["value"] for variable in container["env"] if variable["name"] == "RDREC_BUNDLE")
    assert Path(served) == settings.bundles / settings.link, "the link that the job moves is what a pod opens"


def test_the_chart_carries_the_script_as_it_is() -> None:
    maps = {document["metadata"]["name"]: document["data"] for document in kinds(render([]), "ConfigMap")}
    assert maps["shop-rdrec-fetch"]["fetch_bundle.py"].strip() == (CHART / "files/fetch_bundle.py").read_text().strip()


@pytest.mark.parametrize(
    "wrong",
    [
        ["replicas=0"], ["bundle.source=ftp"], ["bundle.source=image"], ["imaage.tag=x"], ["env.TIMEOUT=1"],
        ["refresh.enabled=true"],
        ["bundle.source=url", "bundle.url.secretName=s"], ["autoscaling.metric=moon"], ["image.digest=latest"],
    ],
)  # fmt: skip
def test_wrong_values_are_refused(wrong: list[str]) -> None:
    sets = [argument for value in wrong for argument in ("--set-string" if "TIMEOUT" in value else "--set", value)]
    done = subprocess.run([helm(), "template", "shop", str(CHART), *sets], capture_output=True, text=True)
    assert done.returncode != 0
    assert "schema" in done.stderr
