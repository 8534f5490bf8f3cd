"""H11: the images need no privilege, hold no secret, and work on a root that is read-only; settings hide theirs."""

import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from authsvc.settings import Settings as AuthsvcSettings
from runner.settings import Settings as RunnerSettings
from tests.processes import ROOT, module, run_module, start_process
from web.settings import Settings as WebSettings

DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
STAGES = {
    name: (parent, body)
    for parent, name, body in re.findall(
        r"^FROM (\S+) AS (\S+)\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL
    )
}
IMAGES = ("authsvc", "runner", "runner-cpu")
SECRET = "hunter2-very-secret"


def instructions(image: str) -> list[str]:
    """What an image is made by, its parents' first."""
    parent, body = STAGES[image]
    own = [line for line in body.splitlines() if line and not line.startswith("#")]
    return (instructions(parent) if parent in STAGES else []) + own


@pytest.mark.parametrize("image", IMAGES)
def test_h11_an_image_runs_as_nobody_special_and_is_watched(image: str) -> None:
    made_by = instructions(image)
    users = [line.split()[1] for line in made_by if line.startswith("USER ")]
    assert users == ["10001:10001"]
    assert not any("root" in line for line in made_by[made_by.index("USER 10001:10001") :])
    assert any(line.startswith("HEALTHCHECK ") for line in made_by)


@pytest.mark.parametrize("image", IMAGES)
def test_h11_an_image_holds_no_secret(image: str) -> None:
    made_by = instructions(image)
    assert not [line for line in made_by if line.startswith("ARG ")]  # `docker history` shows them
    variables = " ".join(line for line in made_by if line.startswith("ENV "))
    assert not re.search(r"(SECRET|PASSWORD|TOKEN|KEY|DATABASE_URL|REDIS_URL)\w*=", variables)
    # The build's context is a list of what may come in, so `.run/`, `.env` and keys stay out.
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "**"
    assert not [line for line in ignored if re.search(r"\.run|\.env|key|pem|secret", line)]


def test_h11_what_settings_print_hides_secrets(tmp_path: Path) -> None:
    env = {
        "AUTHSVC_DATA_DIR": str(tmp_path),
        "AUTHSVC_DATABASE_URL": f"postgresql://lcm:{SECRET}@127.0.0.1:1/lcm",
        "AUTHSVC_REDIS_URL": f"redis://:{SECRET}@127.0.0.1:1/0",
    }
    for arguments in (("check-config",), ("check-config", "--json"), ("keys", "list")):
        done = run_module("authsvc", *arguments, env=env)
        assert done.returncode != 0  # nothing answers there, and that is said without the password
        assert "127.0.0.1" in done.stdout + done.stderr
        assert SECRET not in done.stdout + done.stderr


def test_h11_no_settings_object_shows_its_secrets(tmp_path: Path) -> None:
    made = (
        AuthsvcSettings(
            data_dir=tmp_path,
            database_url=f"postgresql://lcm:{SECRET}@db/lcm",  # type: ignore[arg-type]
            redis_url=f"rediss://:{SECRET}@cache/0",  # type: ignore[arg-type]
        ),
        RunnerSettings(authsvc_key=f"lcmk_runner:{SECRET}"),  # type: ignore[arg-type]
        WebSettings(api_key=f"lcmk_web:{SECRET}", password=SECRET, secret_key=SECRET),  # type: ignore[arg-type]
    )
    for settings in made:
        assert SECRET not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
        assert SECRET in "".join(
            value.get_secret_value() for value in vars(settings).values() if hasattr(value, "get_secret_value")
        )


def read_only(data: Path, command: list[str]) -> list[str]:
    """Runs a command where everything but one folder is read-only, in that folder, as `docker run --read-only` does."""
    script = (
        'mount --bind "$0" "$0" && mount -o remount,ro,bind / '
        "&& for folder in /tmp /var/tmp /dev/shm; do mountpoint -q $folder && mount -o remount,ro,bind $folder; done; "
        'cd "$0" && exec "$@"'
    )
    return ["unshare", "--mount", "--map-root-user", "sh", "-c", script, str(data), *command]


def can_unshare(data: Path) -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run(read_only(data, ["sh", "-c", "touch ok && ! touch /tmp/no"]), capture_output=True)
    return tried.returncode == 0


def test_h11_authsvc_writes_nothing_outside_its_data_folder(tmp_path: Path) -> None:
    if not can_unshare(tmp_path):
        pytest.skip("this machine lets nobody make a mount namespace")
    command = read_only(tmp_path, module("authsvc", "serve", "--port", "0"))
    env = {"AUTHSVC_DATA_DIR": str(tmp_path), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    with start_process(command, env) as process:
        assert httpx.get(f"{process.url}/health/ready").status_code == 200
        key = run_module("authsvc", "keys", "create", "--apps", "*", env=env).stdout.split()[-1]
        asked = {"app": "fast-lcm-diffusion"}
        answer = httpx.post(f"{process.url}/tokens/", json=asked, headers={"Authorization": f"Key {key}"})
        assert answer.status_code == 201, answer.text
