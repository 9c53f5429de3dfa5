"""A cluster of one machine: the part of the Kubernetes API that launches jobs, and what a kubelet does with their pods.

It takes what Kubernetes' own schemas allow and refuses the rest. A pod is a process with the environment that its manifest, the
ConfigMaps and the Secrets say. ``paths`` are where the pod's folders are on this machine.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from shopauto_pipelines_tests.e2e.forks import Forked

VERSION = "1.33"

#: What a process is made of that is given a command of Dagster's; ``shopauto`` is forked as such.
DAGSTER = "import sys; sys.argv = {argv!r}; from dagster._cli import main; main()"


def program(argv: list[str]) -> list[str]:
    """A command line as a process is forked with it."""
    assert argv[0] in ("shopauto", "dagster"), argv
    return argv if argv[0] == "shopauto" else ["-c", DAGSTER.format(argv=argv)]


@dataclass
class Pod:
    """A job that was asked for, and its process where it was not held."""

    manifest: dict[str, Any]
    environment: dict[str, str]
    log: Path
    process: Forked | None = None

    @property
    def status(self) -> dict[str, int]:
        """The status of its job."""
        if self.process is None or self.process.is_alive():
            return {"active": 1}
        return {"failed": 1} if self.process.exitcode else {"succeeded": 1}

    def kill(self) -> None:
        """Take the machine away under it."""
        assert self.process
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join(10)


class Cluster:
    """The API server. While ``holding``, pods wait for a machine; while ``silent``, it tells nothing of them."""

    def __init__(
        self, folder: Path, maps: Mapping[str, Mapping[str, str]], secrets: Mapping[str, Mapping[str, str]]
    ) -> None:
        self.pods: dict[str, Pod] = {}
        self.holding = self.silent = False
        self.refused: list[str] = []
        self._folder, self._maps, self._secrets = folder, maps, secrets
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                *_, namespace, kind = self.path.split("?")[0].split("/")
                self.answer(*outer._take(namespace, kind, body))

            def do_GET(self) -> None:
                *_, kind, name = self.path.split("?")[0].removesuffix("/status").split("/")
                pod = outer.pods.get(name) if kind == "jobs" else None
                if outer.silent:
                    self.answer(403, {"kind": "Status", "code": 403})
                elif pod is None:
                    self.answer(404, {"kind": "Status", "code": 404, "reason": "NotFound"})
                else:
                    self.answer(200, {**pod.manifest, "status": pod.status})

            def answer(self, status: int, body: Any) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.kubeconfig = self._reached()

    def _reached(self) -> Path:
        """A file that tells how to reach it. Pods do not find it: they have no rights in the cluster."""
        told = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "one", "cluster": {"server": f"http://127.0.0.1:{self._server.server_port}"}}],
            "users": [{"name": "one", "user": {}}],
            "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
            "current-context": "one",
        }
        path = self._folder / "kubeconfig"
        path.write_text(yaml.safe_dump(told))
        return path

    def close(self) -> None:
        """End it, and every pod."""
        for pod in self.pods.values():
            if pod.process and pod.process.is_alive():
                pod.kill()
        self._server.shutdown()
        self._server.server_close()

    def _take(self, namespace: str, kind: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Judge a manifest as Kubernetes does, and start its pod."""
        try:
            assert (namespace, kind) == ("shopauto", "jobs")
            kubernetes_validate.validate(_without_nulls(body), VERSION, strict=True)
        except (AssertionError, kubernetes_validate.ValidationError) as error:
            self.refused.append(str(error))
            return 422, {"kind": "Status", "code": 422, "message": str(error)[:500]}
        name = body["metadata"]["name"]
        (container,) = body["spec"]["template"]["spec"]["containers"]
        pod = Pod(body, self._environment(container), self._folder / f"{name}.log")
        pod.log.touch()
        self.pods[name] = pod
        if not self.holding:
            argv = [word.replace(str(self.kubeconfig), "/nowhere") for word in container["args"]]
            pod.process = Forked(program(argv), pod.environment, str(pod.log))
        return 201, body

    def _environment(self, container: Mapping[str, Any]) -> dict[str, str]:
        """What the container's process finds in its environment; a source or key that is not there is an error."""
        told = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
        for source in container.get("env_from", container.get("envFrom", ())):
            for of, known in (("configMapRef", self._maps), ("secretRef", self._secrets)):
                if of in source:
                    told |= known[source[of]["name"]]
        for each in container["env"]:
            if "valueFrom" in each:
                ref = each["valueFrom"]["secretKeyRef"]
                told[each["name"]] = self._secrets[ref["name"]][ref["key"]]
            else:
                told[each["name"]] = each.get("value") or ""
        return told


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value
