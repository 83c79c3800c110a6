"""The sandbox of deployments ends what was started in it, and the README has the commands that it takes."""

import shlex
import subprocess
import sys

import deployment
import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found under /proc")

FAMILY = "bash -c 'sleep 600 & sleep 600 & echo up; wait'"
STUBBORN = 'bash -c \'trap "" TERM; (trap "" TERM; setsid sleep 600) & echo up; while true; do sleep 1; done\''


@pytest.mark.parametrize("command", [FAMILY, STUBBORN], ids=["a family", "one that ignores SIGTERM"])
def test_whatever_goes_wrong_nothing_is_left(tmp_path, command):
    def broken():
        with deployment.sandbox(tmp_path) as box:
            box.start("sleepers", command)
            deployment.wait_until(lambda: "up" in box.log("sleepers"), "the sleepers")
            assert len(box.alive()) >= 2
            broken.box = box
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert broken.box.alive() == []


def test_children_that_survive_a_killed_parent_are_found(tmp_path):
    with deployment.sandbox(tmp_path) as box:
        box.start("sleepers", FAMILY)
        deployment.wait_until(lambda: "up" in box.log("sleepers"), "the sleepers")
        box.kill("sleepers")
        assert len(box.alive()) == 2
    assert box.alive() == []


def test_a_command_that_fails_or_does_not_end_is_an_error_with_what_it_printed(tmp_path):
    with deployment.sandbox(tmp_path) as box:
        with pytest.raises(RuntimeError, match="no such key"):
            box.do("failing", "bash -c 'echo no such key; exit 3'")
        with pytest.raises(TimeoutError, match="did not end"):
            box.do("sleeping", "sleep 600", timeout_s=0.1)


def test_free_ports_are_free_and_differ():
    ports = deployment.free_ports(20)
    assert len(set(ports)) == 20
    assert not any(deployment.listening(port) for port in ports)


def test_the_readme_has_what_a_deployment_takes():
    assert [len(deployment.readme_commands(*words)) for words in (("flower-superlink",), ("flower-supernode",))] == [
        1,
        3,
    ]
    assert len(deployment.readme_commands("flwr", "supernode", "register")) == 3
    (superlink,) = deployment.readme_commands("flower-superlink")
    assert {"--enable-supernode-auth", "--ssl-certfile"} <= set(shlex.split(superlink))
    assert "127.0.0.1" in superlink
    assert "root-certificates" in deployment.readme_connection()


@pytest.mark.skipif(deployment.missing() is not None, reason=str(deployment.missing()))
@pytest.mark.parametrize("program", ["flower-superlink", "flower-supernode"])
def test_flower_knows_every_option_of_the_readme_and_calls_none_deprecated(program):
    found = deployment.shutil.which(program, path=deployment.Sandbox(deployment.ROOT).environment()["PATH"])
    told = " ".join(subprocess.run([found, "--help"], capture_output=True, text=True, check=True).stdout.split())
    for command in deployment.readme_commands(program):
        for option in (word for word in shlex.split(command) if word.startswith("--")):
            assert f" {option} " in told
            assert not told.rpartition(f" {option} ")[2].split(" --")[0].count("deprecated")
