"""What ``--on`` may say: nothing of it is ever read by a shell, and nothing looks like an option."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from exporter.cli import options
from exporter.devices.address import Address, parsed
from exporter.devices.device import FINDS_PYTHON, found, kinds
from exporter.devices.kinds import ssh
from exporter.errors import Refused
from tests.cli_fakes.tool import ROOT

KINDS = ("here", "ssh")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ssh://pi@raspberrypi", Address("ssh", "raspberrypi", "pi")),
        ("ssh://Jetson", Address("ssh", "Jetson")),
        ("ssh://pi@10.0.0.7:2222/", Address("ssh", "10.0.0.7", "pi", 2222)),
        ("ssh://u0_a217@192.168.1.5:8022", Address("ssh", "192.168.1.5", "u0_a217", 8022)),
        ("ssh://[fe80::1%eth0]:22", Address("ssh", "fe80::1%eth0", "", 22)),
        ("ssh://a-host_1.lan", Address("ssh", "a-host_1.lan")),
        ("ssh://h?python=/opt/my%20envs/;rm/bin/python", Address("ssh", "h", python="/opt/my envs/;rm/bin/python")),
        ("ssh://h?python=~/env/bin/python3", Address("ssh", "h", python="~/env/bin/python3")),
        ("here", Address("here")),
    ],
)
def test_an_address(text: str, address: Address) -> None:
    assert parsed(text, KINDS) == address


@pytest.mark.parametrize(
    "text",
    [
        "", "pi@raspberrypi", "raspberrypi", "http://h", "sssh://h", "ssh://", "ssh://@h", "ssh://-oProxyCommand=x",
        "ssh://pi@-oProxyCommand=x", "ssh://-l@h", "ssh://h;reboot", "ssh://h`reboot`", "ssh://h$(reboot)",
        "ssh://a b", "ssh://h\nreboot", "ssh://pi;x@h", "ssh://pi%0a@h", "ssh://h:0", "ssh://h:65536", "ssh://h:x",
        "ssh://pi:secret@h", "ssh://h/some/path", "ssh://h#x", "ssh://h?shell=x", "ssh://h?python=python3",
        "ssh://h?python=-c", "ssh://h?python=/a%0ab", "ssh://h?python=/a%1b[2J", "ssh://[fe80::1", "here/",
    ],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(Refused) as refused:
        parsed(text, KINDS)
    assert refused.value.code == "bad-device"
    assert all((refused.value.what, refused.value.where, refused.value.why, refused.value.next))
    assert text.isprintable() or text not in str(refused.value)


def test_a_password_is_never_shown() -> None:
    """It is in the user's history already; it need not be in a log as well."""
    with pytest.raises(Refused) as refused:
        parsed("ssh://pi:secret@h", KINDS)
    assert "secret" not in str(refused.value.as_json())


def test_a_label_says_who_and_where() -> None:
    assert Address("ssh", "h", "pi", 2222, "/x").label == "pi@h:2222"
    assert str(Address("ssh", "h")) == "ssh://h" and Address("here").label == str(Address("here")) == "here"


@pytest.mark.parametrize("text", ["ssh://[fe80::1%eth0]:22", "ssh://pi@[::1]", "ssh://pi@h:2222", "here"])
def test_an_address_can_be_pasted_back(text: str) -> None:
    assert str(parsed(text, KINDS)) == text


def test_what_is_offered_is_an_address() -> None:
    for text in ("qemu://x", "raspberrypi"):
        with pytest.raises(Refused, match=r"it is none of arm64, ssh://user@host\[:port\]"):
            parsed(text, kinds())


def test_the_help_names_every_kind() -> None:
    said = get_args(options.On)[1].help
    assert all(kind in said for kind in kinds())


@pytest.mark.parametrize("page", ["README.md", "docs/devices.md"])
def test_an_example_can_be_pasted_into_any_shell(page: str) -> None:
    """zsh takes an unquoted question mark for a pattern."""
    assert not re.search(r"--on ssh://\S*\?", (ROOT / page).read_text(encoding="utf-8"))


def test_a_kind_is_found_by_its_file() -> None:
    assert "ssh" in kinds() and isinstance(found("ssh://h"), ssh.Ssh)
    with pytest.raises(Refused, match="bad-device"):
        found("ssh")


def test_ssh_is_given_words_and_one_constant() -> None:
    """Names come after ``--``; the command is the same for every device and every user."""
    words = ssh.Ssh(Address("ssh", "h", "pi", 2222, "/;x")).words("BatchMode=yes")
    assert words[0] == "ssh" and words[-2:] == ["--", "h"]
    assert words[words.index("-l") + 1] == "pi" and words[words.index("-p") + 1] == "2222"
    assert "'" not in FINDS_PYTHON and "\n" not in FINDS_PYTHON and "!" not in FINDS_PYTHON
