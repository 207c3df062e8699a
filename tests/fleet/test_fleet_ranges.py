"""Which addresses a scan may knock at, and how they are written."""

import pytest

from wattshift_cluster.fleet.ranges import RangeForbidden, addresses, count, parse_ranges


@pytest.mark.parametrize(
    "text",
    [
        "8.8.8.0/24",
        "0.0.0.0/0",
        "10.0.0.0/7",
        "172.32.0.0/16",
        "100.64.0.0/24",
        "169.254.1.0/24",
        "192.169.0.1",
        "224.0.0.1",
        "::1",
        "fd00::/120",
        "10.0.0.0/15",
        "10.0.0.0/8",
    ],
)
def test_a_range_that_is_not_private_or_too_large_is_forbidden(text):
    with pytest.raises(RangeForbidden):
        parse_ranges([text])
    assert RangeForbidden.exit_code == 3


def test_ranges_together_are_at_most_a_16():
    assert count(parse_ranges(["10.1.0.0/16"])) == 65_534
    with pytest.raises(RangeForbidden, match="more than a /16"):
        parse_ranges(["10.1.0.0/16", "10.3.0.0/30"])
    assert len(parse_ranges(["10.1.0.0/16", "10.1.7.0/24"])) == 1


@pytest.mark.parametrize("text", ["", "x", "10.0.0.0/33", "10.0.0", "10.0.0.0-9", "10.0.0.0/8/8"])
def test_what_is_no_range_is_a_mistake_in_the_command(text):
    with pytest.raises(ValueError, match="write for example"):
        parse_ranges([text])


def test_addresses_of_ranges():
    assert list(addresses(parse_ranges(["10.0.0.4/30", "10.0.0.9"]))) == [
        "10.0.0.5",
        "10.0.0.6",
        "10.0.0.9",
    ]
    assert count(parse_ranges(["10.0.0.4/30", "10.0.0.9"])) == 3
    assert list(addresses(parse_ranges(["10.0.0.5/31"]))) == ["10.0.0.4", "10.0.0.5"]
