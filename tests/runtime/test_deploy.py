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


def test_the_service_has_descriptors_to_spare_and_leaves_no_memory_on_disk() -> None:
    service = settings("Service")
    assert (service["LimitNOFILE"], service["LimitCORE"]) == (["1024"], ["0"])
    pytest.importorskip("uvicorn", reason="needs the web extra: pip install -e '.[web]'")
    from velora_runtime.web.streams import MOST_CONNECTIONS, RESERVE

    assert 4 * (MOST_CONNECTIONS + RESERVE) <= 1024


@pytest.mark.slow
def test_a_run_asks_the_kernel_for_nothing_that_the_service_may_not(tmp_path: Path) -> None:
    trace, analyze = shutil.which("strace"), shutil.which("systemd-analyze")
    if trace is None or analyze is None:
        pytest.skip("needs strace and systemd-analyze: .ci/install-peers, apt-get install systemd")
    service = settings("Service")
    assert service["SystemCallErrorNumber"] == ["EPERM"]
    allowed = {call for name in service["SystemCallFilter"] for call in calls_of(analyze, name)}
    code = "import sys; from velora_cli.main import main; main()"
    assets = ROOT / "velora_edge" / "assets"
    options = [
        "demo",
        "--events",
        assets / "demo.raw",
        "--rgb",
        assets / "demo.mp4",
        "--duration",
        "3",
        "--serve",
        "127.0.0.1:0",
        "--record",
        tmp_path / "rec",
        "--quiet",
    ]
    done = subprocess.run(
        [trace, "-f", "-c", "-o", tmp_path / "calls", sys.executable, "-c", code, "live", *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "calls").read_text().splitlines()
    asked = {line.split()[-1] for line in table if re.match(r"\s*\d+\.\d+ ", line)} - {"total"}
    assert {"mmap", "futex", "listen"} <= asked
    assert asked - allowed == set()


def calls_of(analyze: str, name: str) -> set[str]:
    """The system calls of one of systemd's sets, those of the sets in it included."""
    if not name.startswith("@"):
        return {name}
    done = subprocess.run(
        [analyze, "syscall-filter", "--no-pager", name], capture_output=True, text=True, check=True
    )
    names = [line.strip() for line in done.stdout.splitlines()[1:]]
    return {call for it in names if it and it[0] != "#" for call in calls_of(analyze, it)}


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
    assert [image.name for image in IMAGES] == [
        f"Dockerfile.{x}" for x in ("cpu", "cuda", "jetpack6", "jetpack7")
    ]


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.suffix[1:])
class TestImage:
    def test_begins_with_a_tag_that_stays_what_it_is(self, image: Path) -> None:
        assert [verb for verb, _ in instructions(image)][:2] == ["ARG", "FROM"]
        assert arguments(image, "FROM") == ["${BASE}"]
        maker = r"docker\.io/library" if image.suffix == ".cpu" else r"nvcr\.io/nvidia"
        assert re.fullmatch(rf"BASE={maker}/[a-z0-9-]+:[a-z]?\d[\w.-]+", arguments(image, "ARG")[0])

    def test_copies_what_is_there_and_all_that_is_installed(self, image: Path) -> None:
        copies = [shlex.split(rest) for rest in arguments(image, "COPY")]
        sources = [source for *sources, _ in copies for source in sources]
        assert [source for source in sources if not (ROOT / source).exists()] == []
        packages = re.search(r"^packages = (\[.*\])$", PROJECT, re.MULTILINE)
        assert packages is not None
        assert set(json.loads(packages[1])) <= set(sources)
        locked = f"runtime/deploy/requirements.{image.suffix[1:]}.txt"
        assert {"pyproject.toml", "README.md", "LICENSE", locked} <= set(sources)
        for *names, target in copies:
            assert target in ("./", *names)  # each lies where it lies in the repository

    def test_installs_files_of_the_index_by_their_hashes_and_nothing_else(self, image: Path) -> None:
        name = f"requirements.{image.suffix[1:]}.txt"
        installs = [run for run in arguments(image, "RUN") if "pip install" in run]
        assert [re.sub(r"\s+", " ", run) for run in installs] == [
            f"pip install --require-hashes -r {name} && pip install --no-deps --no-build-isolation ."
        ]
        locked = re.findall(r"^([\w.-]+)==\S+((?: \\\n +\S+)+)$", (DEPLOY / name).read_text(), re.MULTILINE)
        assert len(locked) == len(re.findall(r"^[a-z]", (DEPLOY / name).read_text(), re.MULTILINE)) > 20
        assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", hashes) for _, hashes in locked)
        packages = {package for package, _ in locked}
        assert {"hatchling", "numpy", "uvicorn", "paho-mqtt"} <= packages
        assert len({"onnxruntime", "onnxruntime-gpu"} & packages) == 1  # two builds of one package

    def test_what_it_installs_is_what_the_tests_passed_with(self, image: Path) -> None:
        locked = (DEPLOY / f"requirements.{image.suffix[1:]}.txt").read_text()
        pinned = re.findall(
            r"^([\w.-]+)==([\w.]+)(?: ;.*)?$", (ROOT / "constraints.txt").read_text(), re.MULTILINE
        )
        wrong = [
            (name, version)
            for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", locked, re.MULTILINE)
            if name in {it for it, _ in pinned} and (name, version) not in pinned
        ]
        assert wrong == []

    def test_does_not_run_as_root(self, image: Path) -> None:
        [user] = arguments(image, "USER")
        assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
        verbs = [verb for verb, _ in instructions(image)]
        assert "RUN" not in verbs[verbs.index("USER") :]
        made = next(run for run in arguments(image, "RUN") if "useradd" in run)
        assert f"--uid {user.partition(':')[0]} " in made
        assert re.search(r"install -d -o velora -g velora -m 0750 /data$", made)

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
