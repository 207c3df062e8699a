"""`[[pdus]]`: what is refused, which secrets are read, and that no library loads for nothing."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from wattshift_cluster.config.outlets import Pdu as Section
from wattshift_cluster.errors import ConfigInvalid
from wattshift_cluster.outlets.build import build
from wattshift_cluster.outlets.secrets import read_secret

RIG = {"id": "4", "device": "rig", "power_on": "3.5kW"}
FED = {"register": 100, "opens_after": "5s"}


def fields(**changes):
    return {
        "name": "pdu",
        "protocol": "snmp",
        "address": "127.37.0.9",
        "model": "apc-rpdu2",
        "feeder": "f",
        "feeder_limit": "20kW",
        "outlets": [RIG],
        "community_file": "/nonexistent",
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"community_file": None}, "v2c"),
        ({"username": "op", "password_file": "/x"}, "not both"),
        ({"model": None}, "model or a row"),
        ({"outlets": [RIG, RIG]}, "given twice"),
        ({"outlets": []}, "at least 1"),
        ({"watchdog": FED}, "only a Modbus contactor"),
        ({"protocol": "modbus"}, "needs a coil for outlet 4"),
        (
            {"protocol": "modbus", "outlets": [{**RIG, "coil": 1}], "watchdog": FED},
            "three deadlines",
        ),
        ({"protocol": "redfish", "address": "http://10.0.0.7"}, "needs https"),
        ({"protocol": "redfish", "address": "https://10.0.0.7"}, "password_file"),
        ({"password": "x"}, "Extra inputs"),
    ],
)
def test_a_section_that_cannot_work_is_refused(changes, said):
    with pytest.raises(ValidationError, match=said):
        Section.model_validate(fields(**changes))


def test_nothing_is_cut_without_the_owners_word():
    assert Section.model_validate(fields()).cut is False


def test_an_unknown_model_names_the_known_ones(tmp_path):
    with pytest.raises(ConfigInvalid, match="raritan-pdu2"):
        build(Section.model_validate(fields(model="nobody-knows-it")))


@pytest.mark.parametrize(
    ("mode", "text", "said"),
    [
        (0o644, "secret-words", "others may use it"),
        (0o600, "", "no secret"),
        (0o600, "x" * 300, "no secret"),
    ],
)
def test_a_secret_is_read_only_from_a_private_file(tmp_path, mode, text, said):
    path = tmp_path / "community"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(ConfigInvalid, match=said) as fault:
        read_secret(path, "community_file")
    assert "secret-words" not in str(fault.value)


def test_a_missing_secret_is_a_fault_and_no_default_is_tried():
    with pytest.raises(ConfigInvalid, match="No such file"):
        build(Section.model_validate(fields()))


def test_an_agent_without_pdus_loads_none_of_their_libraries():
    program = (
        "import sys\n"
        "import wattshift_cluster.agent.asics.fences, wattshift_cluster.config.outlets\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted(loaded & {'pysnmp', 'pymodbus', 'aiohttp', 'pyasn1'}))\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert said.stdout.strip() == "[]"
