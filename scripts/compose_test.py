"""Bring the Compose stacks up for real: build the images, deploy the last commit, run flows in the pools' workers, take all down.

    python scripts/compose_test.py [dev] [qa] [prod]

Uses the Docker engine that runs; where none does, and this is root on Debian, starts one of its own (scripts/docker_engine.py). What
is tried is a scratch clone of the last commit. Images and wheels stay in .local/compose-test for the next time; nothing else does.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn
from urllib.error import HTTPError

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts import compose_stack, images  # noqa: E402
from scripts.compose_stack import Stack, TestError, image  # noqa: E402
from scripts.docker_engine import Engine, NoEngine, engine  # noqa: E402
from scripts.images import Content, ImageError  # noqa: E402

REFS = {"dev": "main", "qa": "v1.0.0-rc1", "prod": "v1.0.0"}
"""Of the commit that is tried, as each environment takes it."""

ENVIRONMENT = "environments/dev.yaml"
END_TO_END = "sample-end-to-end"
PROBE = "flows/examples/probe.py"
PROBE_TEXT = '''"""Says what it is. Only in the clone that compose_test.py makes."""

from prefect import flow


@flow(log_prints=True)
def probe() -> None:
    print("probe: as committed")
'''
PROBE_ENTRY = f"\n- {{name: probe, entrypoint: {PROBE}:probe, pool: analytics}}\n"


def main(arguments: Sequence[str] | None = None) -> int:
    words = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _stop)
    began = time.monotonic()
    try:
        play(words.state.resolve(), words.environments or ["dev"])
        say(f"all of it in {time.monotonic() - began:.0f} s")
        return 0
    except NoEngine as error:
        print(f"compose-test: NOT TRIED: {error}", file=sys.stderr)
        return 1
    except (TestError, ImageError) as error:
        print(f"compose-test: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("compose-test: interrupted; everything was taken down", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "environments",
        nargs="*",
        metavar="ENV",
        type=_environment,
        help="dev, qa or prod, several of them (default: dev)",
    )
    state = ROOT / ".local/compose-test"
    parser.add_argument("--state", type=Path, default=state, metavar="DIR", help="default: %(default)s")
    return parser


def _environment(word: str) -> str:
    if word not in REFS:
        raise argparse.ArgumentTypeError(f"no environment {word!r}; there are {', '.join(REFS)}")
    return word


def play(state: Path, environments: Sequence[str]) -> None:
    with engine(state, say) as found, clone(state) as folder:
        commit = images.git(folder, "rev-parse", "HEAD").decode().strip()
        build(found, folder, commit)
        the_images_hold_what_they_say(found, folder, commit)
        for env in environments:
            began = time.monotonic()
            with compose_stack.up(found, folder, env, state / "scratch", say) as stack:
                if env == "dev":
                    deploys_and_runs(stack, commit)
                    an_edit_is_seen_at_once(stack)
                else:
                    nobody_comes_in_without_the_password(stack)
                    results_have_a_block(stack)
                    deploys_and_runs(stack, commit)
                if env == "prod":
                    an_api_may_go(stack)
                the_rest_is_well(stack)
            images.git(folder, "reset", "--quiet", "--hard", commit)
            say(f"{env} in {time.monotonic() - began:.0f} s")


# -- what is tried


def the_images_hold_what_they_say(found: Engine, folder: Path, commit: str) -> None:
    """The labels' commit, nobody's root, a health check; flows in the flows' image only, all of them, and they import."""
    for target in images.TARGETS:
        told = json.loads(found.docker.run("image", "inspect", image(target)))[0]["Config"]
        labels = told["Labels"]
        if (labels["org.opencontainers.image.revision"], told["User"]) != (commit, "10001:10001") or not told[
            "Healthcheck"
        ]:
            raise TestError(
                f"the image {target} is of {labels}, for the user {told['User']}, checked by {told['Healthcheck']}."
            )
    for target in ("worker", "server"):
        inside(found, target, "import importlib.util as u; assert not u.find_spec('flows')")
    wanted = images.git(folder, "ls-tree", "-r", "--name-only", commit, "flows/").decode().split()
    there = inside(found, "flows", LISTED).split()
    if missing := {name for name in wanted if not name.endswith("requirements.in")} - set(there):
        raise TestError(f"the flows' image lacks {', '.join(sorted(missing))}.")
    names = inside(found, "flows", IMPORTED).split()
    say(f"the images hold what they say: {len(there)} files of flows, {len(names)} entrypoints import")


def inside(found: Engine, target: str, code: str) -> str:
    """What the code prints in a container as the platforms start it: no root, nothing writable but /tmp and the home."""
    words = ["--rm", "--network", "none", "--read-only", "--cap-drop", "ALL", "--workdir", "/opt"]
    words += ["--tmpfs", "/tmp", "--tmpfs", "/home/prefect:uid=10001,gid=10001"]
    return found.docker.run("run", *words, image(target), "python", "-c", code)


LISTED = """
from pathlib import Path
root = Path("/opt/flows")
print(*(p.relative_to(root) for p in (root / "flows").rglob("*") if p.is_file() and p.suffix != ".pyc"))
"""
IMPORTED = """
import os, yaml
from pathlib import Path
from prefect.flows import load_flow_from_entrypoint
os.chdir("/opt/flows")
for file in Path("flows").rglob("deployments.yaml"):
    for entry in yaml.safe_load(file.read_text()):
        print(load_flow_from_entrypoint(entry["entrypoint"]).name.replace(" ", "-"))
"""


def nobody_comes_in_without_the_password(stack: Stack) -> None:
    for auth in (":", "admin:wrong"):
        try:
            stack.fetch(f"{stack.api}/deployments/count", {}, auth)
        except HTTPError as error:
            if error.code == 401:
                continue
            raise TestError(f"{stack.api} answered {error.code} to somebody without the password.") from None
        raise TestError(f"{stack.api} answers somebody without the password.")


def results_have_a_block(stack: Stack) -> None:
    say(stack.call("infra/storage/results.py", "block", "s3://bucket/results").strip())


def deploys_and_runs(stack: Stack, commit: str) -> None:
    """By the environment file as it is: the pools come from it, the code from a clone of the commit."""
    say(f"deploying {commit[:12]} as {REFS[stack.env]} to {stack.env}, into an empty Prefect")
    told = stack.deploy("apply", "--ref", REFS[stack.env])
    say(next(line for line in told.splitlines() if line.startswith("Release ")))
    say(f"running {END_TO_END}: it starts runs in all three pools")
    stack.deploy("run", END_TO_END)
    ran_in_its_worker(stack, commit)


def ran_in_its_worker(stack: Stack, commit: str) -> None:
    """Every deployment's run but the schedules': it ended well, is of the commit, and its pool's worker says that it took it."""
    runs = stack.ask("/flow_runs/filter", {"sort": "START_TIME_ASC"})
    runs = [run for run in runs if run["deployment_id"] and not run["auto_scheduled"]]
    pools = compose_stack.logs_by_pool(stack)
    for run in runs:
        pool, state, version = run["work_pool_name"], run["state_type"], run["deployment_version"]
        say(f"  {pool}: {run['name']} {state}, of commit {str(version)[:12]}")
        if (state, version) != ("COMPLETED", commit):
            raise TestError(f"expected COMPLETED and commit {commit}, found {state} and {version}.")
        if f"'{run['id']}'" not in pools[pool]:
            raise TestError(
                f"the worker of {pool} does not speak of the run {run['id']}. It says:\n{pools[pool][-1500:]}"
            )
    if missing := set(pools) - {run["work_pool_name"] for run in runs}:
        raise TestError(f"no run came to {', '.join(sorted(missing))}.")


def an_edit_is_seen_at_once(stack: Stack) -> None:
    """With `source: {strategy: local, ..., directory: /opt/flows}`: saved is enough, no commit and no deploy."""
    say("the same with the code from the mounted folder: commit, deploy, run, edit, run")
    environment, catalogue = stack.clone / ENVIRONMENT, stack.clone / "flows/examples/deployments.yaml"
    local = "source: {strategy: local, repository: '${REPOSITORY_URL}', directory: /opt/flows}\n"
    text = environment.read_text()
    environment.write_text(re.sub(r"(?m)^source:\n(?:[ #].*\n)+", lambda _: local, text))
    catalogue.write_text(catalogue.read_text() + PROBE_ENTRY)
    (stack.clone / PROBE).write_text(PROBE_TEXT)
    stack.git("add", ".")
    stack.git("commit", "--quiet", "--message", "Take the code from the mounted folder")
    stack.deploy("apply")
    before = stack.deploy("run", "probe")
    (stack.clone / PROBE).write_text(PROBE_TEXT.replace("as committed", "as edited"))
    after = stack.deploy("run", "probe")
    for text, output in (("probe: as committed", before), ("probe: as edited", after)):
        if text not in output:
            raise TestError(f"expected a run that prints '{text}'. It printed:\n{output}")
        say(f"  {text}")


def an_api_may_go(stack: Stack) -> None:
    """One of two is killed: whoever asks by way of nginx does not notice."""
    first, *others = stack.compose("ps", "--quiet", "api").split()
    if not others:
        raise TestError("there is one API only.")
    stack.engine.docker.run("kill", first)
    took = []
    for _ in range(20):
        began = time.monotonic()
        stack.ask("/deployments/count", {})
        took.append(time.monotonic() - began)
    say(f"one API killed: 20 of 20 questions answered, the slowest in {max(took):.1f} s")


def the_rest_is_well(stack: Stack) -> None:
    """Backup, restart, metrics: what nobody looks at until it is needed."""
    before = stack.compose("exec", "-T", "backup", "bash", "/opt/backup.sh", "once").strip()
    say(f"backup: {before.splitlines()[0]}")
    say("down and up again: what was deployed is still there")
    count = len(stack.ask("/deployments/filter", {}))
    stack.compose("down", "--timeout", "10")
    compose_stack.start(stack, say)
    if (found := len(stack.ask("/deployments/filter", {}))) != count or not count:
        raise TestError(f"there were {count} deployments before the restart, and there are {found} after it.")
    if b"<title>Prefect" not in stack.fetch(stack.api.removesuffix("api")):
        raise TestError("the API's address shows no UI.")
    if "secret" not in {one["slug"] for one in stack.ask("/block_types/filter", {})}:
        raise TestError("Prefect does not know the block type `secret`: `migrate` did not register any.")
    metrics = stack.compose("exec", "-T", "exporter", "python", "-c", METRICS)
    if "prefect_platform_api_up 1.0" not in metrics.splitlines():
        raise TestError(f"the exporter does not reach the API. It says:\n{metrics[:500]}")
    say("  the exporter reads the API")


METRICS = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9464/metrics').read().decode())"


# -- what it is tried on


@contextmanager
def clone(state: Path) -> Iterator[Path]:
    """A clone of the last commit, as branch main, whatever branch or state the repository is in."""
    folder = state / "clone" / ROOT.name
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.parent.mkdir(parents=True)
    if images.git(ROOT, "status", "--porcelain"):
        say("your work tree has changes that are not committed: trying the last commit, without them")
    head = images.git(ROOT, "rev-parse", "--verify", "HEAD^{commit}").decode().strip()
    try:
        images.git(ROOT, "clone", "--quiet", "--no-tags", "--no-checkout", "--no-hardlinks", str(ROOT), str(folder))
        images.git(folder, "checkout", "--quiet", "-B", "main", head)
        for tag in (REFS["qa"], REFS["prod"]):
            images.git(folder, "tag", tag)
        yield folder
    finally:
        shutil.rmtree(folder.parent, ignore_errors=True)


def build(found: Engine, folder: Path, commit: str) -> None:
    what = Content(commit, images.git(folder, "archive", "--format=tar", commit))
    for target in images.TARGETS:
        began, name = time.monotonic(), image(target)
        base = found.bases.get("python", os.environ.get("PYTHON_IMAGE", ""))
        more = {"base": base, "network": found.build_network}
        images.build(found.docker, folder, what, target, name, pip_conf=found.pip_conf, **more)
        say(f"built {name} in {time.monotonic() - began:.0f} s, {images.megabytes(found.docker, name)}")


def say(line: str) -> None:
    print(line, flush=True)


def _stop(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
