"""`[[openadr]]` of site.toml: what it holds, what it refuses, and what follows from it."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from wattshift_cluster.config.draft import Draft
from wattshift_cluster.config.openadr import OpenAdr, OpenAdr2
from wattshift_cluster.config.openadr_checks import CHECKS
from wattshift_cluster.grid.openadr.source import terms_of
from wattshift_scheduler.signals.words import Work

VTN = {"url": "https://vtn.example.org/3.1.1", "ven_name": "my-site"}


def findings(*sections: OpenAdr | OpenAdr2) -> list[tuple[str, str]]:
    valid = {f"openadr[{at}]": one for at, one in enumerate(sections)}
    raw = {"openadr": [{"name": one.name} for one in sections]}
    draft = Draft(raw, valid)
    return [(path, why) for check in CHECKS for path, _, why in check(draft)]


def vtn(**more: Any) -> OpenAdr:
    return OpenAdr.model_validate({**VTN, **more})


def test_quantities_take_units_and_become_terms() -> None:
    made = vtn(
        name="utility",
        levels=["800kW", "0.5MW", 0],
        subscription="600kW",
        poll="5s",
        commitments={"curtailment": "200kW"},
        currencies={"EUR": 1.1},
        resources=[{"name": "miners", "work": "mining"}],
        targets=["zone-7"],
        units="KW",
    )
    terms = terms_of(made)
    assert (terms.source, terms.ven_name) == ("utility", "my-site")
    assert terms.levels_w == (800e3, 500e3, 0.0)
    assert (terms.subscription_w, terms.units) == (600e3, "KW")
    assert terms.resources == {"miners": Work.MINING}
    assert terms.groups == {"zone-7"}
    assert terms.commitments_w == {"curtailment": 200e3}
    assert made.poll_s == 5
    assert findings(made) == []


@pytest.mark.parametrize(
    "more",
    [
        {"levels": ["500kW", "800kW"]},
        {"levels": [4, 3, 2, 1]},
        {"version": "2.0b"},
        {"poll": "0.1s"},
        {"subscription": "-1kW"},
        {"units": "HP"},
        {"surprise": 1},
        {"resources": [{"name": "x", "work": "sleeping"}]},
    ],
)
def test_what_cannot_be_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        vtn(**more)


@pytest.mark.parametrize(
    ("section", "path"),
    [
        (vtn(client_id="me"), "openadr[0].secret_file"),
        (vtn(secret_file="x"), "openadr[0].client_id"),
        (vtn(url="http://vtn.example.org"), "openadr[0].url"),
        (vtn(token_url="http://login.example.org"), "openadr[0].token_url"),
        (vtn(version="3.0", mqtt=True), "openadr[0].mqtt"),
        (
            vtn(webhook={"listen": "0.0.0.0:8443", "url": "http://site.example.org/x"}),
            "openadr[0].webhook.url",
        ),
        (
            vtn(webhook={"listen": "0.0.0.0:8443", "url": "https://s.org/x", "key": "k.pem"}),
            "openadr[0].webhook.certificate",
        ),
        (vtn(resources=[{"name": "a"}, {"name": "a"}]), "openadr[0].resources[1].name"),
        (OpenAdr2(url="http://vtn.example.org", ven_name="v"), "openadr[0].url"),
        (OpenAdr2(url="https://x.org", ven_name="v", key=Path("k")), "openadr[0].certificate"),
    ],
)
def test_what_does_not_fit_together_is_found(section: OpenAdr | OpenAdr2, path: str) -> None:
    assert [where for where, _ in findings(section)] == [path]


def test_loopback_and_the_owners_word_allow_plain_http() -> None:
    assert findings(vtn(url="http://127.0.0.1:8080")) == []
    assert findings(vtn(url="http://vtn.example.org", plaintext=True)) == []


def test_sources_have_names_of_their_own() -> None:
    assert [where for where, _ in findings(vtn(), vtn())] == ["openadr[1].name"]
