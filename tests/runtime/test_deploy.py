"""The deployment files: what they name exists, and what they start can be started."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from velora_runtime.pipeline.supervisor import SLOW_US, STUCK_US

from velora_cli.live.live import command as live_command

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "runtime" / "deploy"
UNIT = DEPLOY / "velora-live.service"
IMAGES = sorted(DEPLOY.glob("Dockerfile.*"))
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def settings(section: str) -> dict[str, list[str]]:
    """A section of the unit, with every value that a key was given."""
    found: dict[str, list[str]] = {}
    body = re.split(r"^\[(\w+)\]$", UNIT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for line in body[body.index(section) + 1].splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def environment() -> dict[str, str]:
    """What the unit's example of an environment file sets."""
    lines = (DEPLOY / "live.env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(min|s|)", text).groups()  # type: ignore[union-attr]
    return float(number) * (60 if unit == "min" else 1)


def instructions(image: Path) -> list[tuple[str, str]]:
    """A Dockerfile's instructions with their arguments, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", image.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(verb, rest.strip()) for verb, _, rest in (line.partition(" ") for line in lines) if verb]


def arguments(image: Path, verb: str) -> list[str]:
    return [rest for found, rest in instructions(image) if found == verb]


# ---- the systemd unit -----------------------------------------------------------------------------------


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("needs systemd-analyze: apt-get install systemd")
    text = UNIT.read_text(encoding="utf-8").replace("/opt/velora/bin/velora-live", sys.executable)
    (tmp_path / UNIT.name).write_text(text)
    done = subprocess.run(
        [verify, "verify", "--man=no", str(tmp_path / UNIT.name)], capture_output=True, text=True, check=False
    )
    mine = [line for line in (done.stdout + done.stderr).splitlines() if UNIT.name in line]
    assert mine == []


def test_the_service_comes_back_and_is_watched() -> None:
    service = settings("Service")
    assert (service["Type"], service["NotifyAccess"]) == (["notify"], ["main"])
    assert service["Restart"] == ["always"]
    assert settings("Unit")["StartLimitIntervalSec"] == ["0"]
    watched_s = seconds(service["WatchdogSec"][0])
    assert SLOW_US / 1e6 < watched_s < STUCK_US / 1e6
    assert seconds(service["TimeoutStartSec"][0]) >= 300


def test_the_service_may_use_cameras_and_compile_kernels() -> None:
    """ProtectClock= and DeviceAllow= make systemd close all other devices (systemd.exec(5))."""
    service = settings("Service")
    shut_out = {"PrivateDevices", "ProtectClock", "DeviceAllow", "DevicePolicy", "MemoryDenyWriteExecute"}
    assert shut_out & set(service) == set()
    assert set(service["SupplementaryGroups"][0].split()) >= {"video", "render", "plugdev"}
    families = set(service["RestrictAddressFamilies"][0].split())
    assert families == {"AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"}


def test_the_service_writes_only_where_it_has_a_folder() -> None:
    service = settings("Service")
    assert service["ProtectSystem"] == ["strict"]
    folders = (f"/var/lib/{service['StateDirectory'][0]}", f"/var/cache/{service['CacheDirectory'][0]}")
    places = [item.split("=", 1)[1] for line in service["Environment"] for item in line.split()]
    places += service["WorkingDirectory"]
    assert places
    assert [place for place in places if not place.startswith(folders)] == []


def test_the_services_command_line_is_one_that_the_command_takes() -> None:
    program, *words = settings("Service")["ExecStart"][0].split()
    assert Path(program).name == "velora-live"
    assert f'{Path(program).name} = "velora_cli.main:live"' in PROJECT
    given = [
        part for word in words for part in (environment()[word[1:]].split() if word[0] == "$" else [word])
    ]
    context = live_command.make_context("velora-live", given)
    assert context.params["model"] == "/var/lib/velora/model.velora"
    assert (context.params["quiet"], context.params["decide"]) == (True, ("default",))


# ---- the images -----------------------------------------------------------------------------------------


def test_there_is_an_image_for_each_kind_of_machine() -> None:
    assert [image.name for image in IMAGES] == [f"Dockerfile.{x}" for x in ("cuda", "jetpack6", "jetpack7")]


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.suffix[1:])
class TestImage:
    def test_begins_with_a_tag_that_stays_what_it_is(self, image: Path) -> None:
        assert [verb for verb, _ in instructions(image)][:2] == ["ARG", "FROM"]
        assert arguments(image, "FROM") == ["${BASE}"]
        assert re.fullmatch(r"BASE=nvcr\.io/nvidia/[a-z0-9-]+:[a-z]?\d[\w.-]+", arguments(image, "ARG")[0])

    def test_copies_what_is_there_and_all_that_is_installed(self, image: Path) -> None:
        copies = [shlex.split(rest) for rest in arguments(image, "COPY")]
        sources = [source for *sources, _ in copies for source in sources]
        assert [source for source in sources if not (ROOT / source).exists()] == []
        packages = re.search(r"^packages = (\[.*\])$", PROJECT, re.MULTILINE)
        assert packages is not None
        assert set(json.loads(packages[1])) <= set(sources)
        assert {"pyproject.toml", "README.md", "LICENSE", "constraints.txt"} <= set(sources)
        for *names, target in copies:
            assert target in ("./", *names)  # each lies where it lies in the repository

    def test_installs_extras_that_there_are(self, image: Path) -> None:
        wanted = re.search(
            r"pip install -c constraints\.txt '\.\[([a-z0-9,]+)\]'", "".join(arguments(image, "RUN"))
        )
        assert wanted is not None
        extras = wanted[1].split(",")
        assert [extra for extra in extras if not re.search(rf"^{extra} = \[", PROJECT, re.MULTILINE)] == []
        assert len({"cpu", "gpu"} & set(extras)) == 1  # two builds of one package
        assert {"web", "mqtt"} <= set(extras)

    def test_removes_the_package_lists_in_the_layer_that_fetched_them(self, image: Path) -> None:
        fetching = [run for run in arguments(image, "RUN") if "apt-get" in run]
        assert fetching
        for run in fetching:
            assert "apt-get install -y --no-install-recommends" in run
            assert run.endswith("rm -rf /var/lib/apt/lists/*")

    def test_starts_a_command_that_there_is(self, image: Path) -> None:
        [entry] = json.loads(arguments(image, "ENTRYPOINT")[0])
        default = json.loads(arguments(image, "CMD")[0])
        assert f'{entry} = "velora_cli.main:main"' in PROJECT
        code = "import sys; from velora_cli.main import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, *default], capture_output=True, text=True, check=False, timeout=120
        )
        assert (done.returncode, "--events SRC" in done.stdout) == (0, True)

    def test_keeps_what_is_made_once_on_the_volume(self, image: Path) -> None:
        assert arguments(image, "VOLUME") == ["/data"]
        kept = dict(item.split("=", 1) for rest in arguments(image, "ENV") for item in shlex.split(rest))
        for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "NUMBA_CACHE_DIR"):
            assert kept[name].startswith("/data")
        assert arguments(image, "STOPSIGNAL") == ["SIGTERM"]

    def test_says_how_it_is_built(self, image: Path) -> None:
        assert f"docker build -f runtime/deploy/{image.name} " in image.read_text(encoding="utf-8")
