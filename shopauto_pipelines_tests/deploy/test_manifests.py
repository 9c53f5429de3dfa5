"""What stands in ``deploy/`` is what Kubernetes takes, and fits together: names, settings, secrets, rights."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema_rs
import kubernetes_validate
import pytest
import yaml
from pydantic import SecretStr

from shopauto_pipelines.platform.settings import PREFIX, PROJECT_ROOT, Settings

DEPLOY = PROJECT_ROOT / "deploy"

#: The versions of Kubernetes that the files are held against.
VERSIONS = ("1.29", "1.33")

MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))

#: Keys of a pod's environment without which it must not start.
NEEDED = {"SHOPAUTO_POSTGRES_URL", "SHOPAUTO_SECRET_KEY"}


def read(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def manifests() -> list[dict[str, Any]]:
    return [one for file in MANIFESTS for one in yaml.safe_load_all(file.read_text())]


def named(kind: str) -> set[str]:
    return {one["metadata"]["name"] for one in manifests() if one["kind"] == kind}


def launcher() -> dict[str, Any]:
    return read("dagster.yaml")["run_launcher"]["config"]


def environment_file() -> dict[str, str]:
    lines = (DEPLOY / "settings.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def parts_of_the_chart() -> dict[str, dict[str, Any]]:
    """Webserver, daemon and code server, as Dagster's chart takes them."""
    values = read("values.yaml")
    (code,) = values["dagster-user-deployments"]["deployments"]
    return {"webserver": values["dagsterWebserver"], "daemon": values["dagsterDaemon"], "code server": code}


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod that comes of the files, as a pod's spec, with what it is."""
    for one in manifests():
        if one["kind"] in ("Deployment", "Job"):
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]
        if one["kind"] == "Pod":
            yield one["metadata"]["name"], one["spec"]
    for name, part in parts_of_the_chart().items():
        container = {
            "name": "dagster",
            "env": part["env"],
            "envFrom": [
                *({"configMapRef": each} for each in part["envConfigMaps"]),
                *({"secretRef": each} for each in part["envSecrets"]),
            ],
            **{key: part[key] for key in ("securityContext", "resources", "volumeMounts")},
        }
        yield (
            name,
            {"containers": [container], "volumes": part["volumes"], "securityContext": part["podSecurityContext"]},
        )
    run = launcher()
    container = {
        "name": "dagster",
        "env": run["run_k8s_config"]["container_config"]["env"],
        "envFrom": [
            *({"configMapRef": {"name": each}} for each in run["env_config_maps"]),
            *({"secretRef": {"name": each}} for each in run["env_secrets"]),
        ],
        "securityContext": run["security_context"],
        "resources": run["resources"],
        "volumeMounts": run["volume_mounts"],
    }
    spec = run["run_k8s_config"]["pod_spec_config"]
    yield (
        "run",
        {
            "containers": [container],
            "volumes": run["volumes"],
            "serviceAccountName": run["service_account_name"],
            **spec,
        },
    )


@cache
def definitions(release: str) -> jsonschema_rs.Registry:
    """Kubernetes' own schemas of every part of an object, nothing beside the declared fields."""
    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    (found,) = folder.glob(f"v{release}.0-local-strict")
    told = json.loads((found / "_definitions.json").read_text().replace("/api/_definitions.json", ""))
    return jsonschema_rs.Registry([("urn:kubernetes", told)])


def refused(what: object, kind: str, release: str) -> list[str]:
    """What Kubernetes would find wrong with a part of an object."""
    schema = {"$ref": f"urn:kubernetes#/$defs/io.k8s.api.core.v1.{kind}"}
    return [str(e) for e in jsonschema_rs.validator_for(schema, registry=definitions(release)).iter_errors(what)]


@pytest.mark.parametrize("release", VERSIONS)
def test_kubernetes_takes_every_manifest_and_every_part_of_the_values(release):
    for one in manifests():
        kubernetes_validate.validate(one, release, strict=True)
    for name, spec in pods():
        assert refused(spec, "PodSpec", release) == [], name
    for name, part in parts_of_the_chart().items():
        probes = {key: value for key, value in part.items() if key.endswith("Probe")}
        assert probes, name
        for key, probe in probes.items():
            assert refused({k: v for k, v in probe.items() if k != "enabled"}, "Probe", release) == [], f"{name} {key}"


def test_a_field_that_kubernetes_does_not_know_would_be_found():
    assert refused({"containers": [{"name": "one", "imagePolicy": "Always"}]}, "PodSpec", VERSIONS[0])


@pytest.mark.skipif(not shutil.which("kubectl"), reason="needs kubectl")
def test_kustomize_makes_of_them_what_kubernetes_takes_with_the_image_and_the_files_that_were_named():
    printed = subprocess.run(["kubectl", "kustomize", str(DEPLOY)], capture_output=True, text=True, check=True).stdout
    made = {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(printed)}
    for one in made.values():
        kubernetes_validate.validate(one, VERSIONS[-1], strict=True)
    image = made["Deployment", "shopauto-collector"]["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == "{repository}:{tag}".format(**parts_of_the_chart()["daemon"]["image"])
    assert made["ConfigMap", "shopauto-instance"]["data"]["dagster.yaml"] == (DEPLOY / "dagster.yaml").read_text()
    assert made["ConfigMap", "shopauto-settings"]["data"] == environment_file()


def test_no_pod_is_root_can_write_to_its_own_file_system_or_becomes_more_than_it_is():
    for name, spec in pods():
        assert spec["securityContext"]["runAsUser"] >= 1000, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in spec["containers"]:
            context = container["securityContext"]
            alone = spec["securityContext"].get("runAsNonRoot") or context.get("runAsNonRoot")
            assert alone, name
            assert context["readOnlyRootFilesystem"], name
            assert not context["allowPrivilegeEscalation"], name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["requests"]["memory"], name
            assert container["resources"]["limits"]["memory"], name
            mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert {"/tmp", environment_file()["SHOPAUTO_HOME"]} <= mounts, name


def test_no_pod_starts_without_the_database_and_the_key_that_all_share():
    for name, spec in pods():
        for container in spec["containers"]:
            asked = {
                each["name"]: each["valueFrom"]["secretKeyRef"] for each in container["env"] if "valueFrom" in each
            }
            needed = NEEDED - {"SHOPAUTO_SECRET_KEY"} if name == "shopauto-migrate" else NEEDED
            assert set(asked) == needed, name
            assert all(ref == {"name": "shopauto-secrets", "key": key} for key, ref in asked.items()), name


def test_what_is_named_is_there():
    generated = {each["name"] for each in read("kustomization.yaml")["configMapGenerator"]}
    for name, spec in pods():
        for volume in spec["volumes"]:
            if claim := volume.get("persistentVolumeClaim"):
                assert claim["claimName"] in named("PersistentVolumeClaim"), name
            if of := volume.get("configMap"):
                assert of["name"] in generated, name
        for container in spec["containers"]:
            assert {m["name"] for m in container["volumeMounts"]} <= {v["name"] for v in spec["volumes"]}, name
            for source in container["envFrom"]:
                assert source.get("configMapRef", {"name": "shopauto-settings"})["name"] in generated, name
                assert source.get("secretRef", {"name": "shopauto-secrets"})["name"] == "shopauto-secrets", name
        if "serviceAccountName" in spec:
            assert spec["serviceAccountName"] in named("ServiceAccount"), name
    run, kustomization = launcher(), read("kustomization.yaml")
    assert run["instance_config_map"] in generated
    assert run["job_namespace"] == kustomization["namespace"] in named("Namespace")
    for name, part in parts_of_the_chart().items():
        (instance,) = (m["mountPath"] for m in part["volumeMounts"] if m["name"] == "instance")
        told = {each["name"]: each.get("value") for each in part["env"]}
        assert told["DAGSTER_HOME"] == instance == run["dagster_home"], name
    by_hand = {"kubernetes/migrate.yaml", "kubernetes/shell.yaml"}
    assert {*kustomization["resources"]} | by_hand == {f"kubernetes/{f.name}" for f in MANIFESTS}


def test_one_image_is_everybodys():
    images = {json.dumps(part["image"]) for part in parts_of_the_chart().values()}
    (renamed,) = read("kustomization.yaml")["images"]
    (image,) = map(json.loads, images)
    assert (image["repository"], image["tag"]) == (renamed["newName"], renamed["newTag"])
    told = {name: spec["containers"][0].get("image") for name, spec in pods()}
    assert told["shopauto-collector"] == renamed["name"]
    assert {told["shopauto-migrate"], told["shopauto-shell"]} == {f"{image['repository']}:{image['tag']}"}


def test_every_setting_is_one_and_none_is_secret(monkeypatch):
    told = environment_file()
    fields = {f"{PREFIX}{name.upper()}": field for name, field in Settings.model_fields.items()}
    assert set(told) <= set(fields)
    secret = {name for name, field in fields.items() if SecretStr in getattr(field.annotation, "__args__", [])}
    assert secret >= NEEDED
    assert not secret & set(told)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    settings = Settings(_env_file=None)
    assert not settings.live


def test_the_engine_leaves_memory_for_the_rest_in_every_pod_that_has_a_limit():
    units = {"MB": 10**6, "GB": 10**9, "Mi": 2**20, "Gi": 2**30}

    def size(text: str) -> int:
        return int(text[:-2]) * units[text[-2:]]

    checked = set()
    for name, spec in pods():
        for container in spec["containers"]:
            own = {each["name"]: each.get("value") for each in container.get("env", [])}
            engine = own.get("SHOPAUTO_ENGINE_MEMORY") or environment_file()["SHOPAUTO_ENGINE_MEMORY"]
            limit = container.get("resources", {}).get("limits", {}).get("memory")
            if limit:
                checked.add(name)
                assert size(engine) <= 0.75 * size(limit), name
    assert {"webserver", "daemon", "code server", "run", "shopauto-shell"} <= checked
    assert len(checked) > 5


def test_the_values_are_for_the_version_that_is_installed():
    (told,) = re.findall(r"--version (\S+)", (DEPLOY / "values.yaml").read_text())
    assert told == version("dagster")
    assert version("dagster-k8s").split(".")[2] == told.split(".")[2]


def test_the_image_is_built_of_files_that_are_there_and_that_the_ignore_file_lets_through():
    lines = (DEPLOY / "Containerfile").read_text().replace("\\\n", " ").splitlines()
    copied = [
        name for line in lines if line.startswith("COPY ") and "--from" not in line for name in line.split()[1:-1]
    ]
    ignored = (PROJECT_ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    assert set(copied) == allowed
    assert all((PROJECT_ROOT / name).exists() for name in copied)
    assert "*" in ignored
    assert not any(fnmatch(".env", line[1:]) for line in ignored if line.startswith("!"))
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["10001:10001"]
    assert not any(line.startswith("ENTRYPOINT") for line in lines), "the chart gives its command as arguments"
