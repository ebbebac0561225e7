"""The whole way in one go: a commit to dev, a run of it, promotion to QA and production, a change, and a rollback.

On three Prefect APIs of this machine's own (local.py), and in a scratch clone: the repository it is called in stays as
it is, and no other Prefect API is met.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from deployer.render import status_text  # noqa: E402
from scripts import local, marked  # noqa: E402
from scripts.act import ActError  # noqa: E402

ENVIRONMENTS = ("dev", "qa", "prod")
CATALOGUE = "flows/ingestion/deployments.yaml"
BEFORE, AFTER = "days_back: 365", "days_back: 730"
SMOKE = "sample-end-to-end"


class DemoError(Exception):
    """The demo cannot go on, in words."""


@dataclass(frozen=True)
class Stage:
    """Where the demo plays: a scratch clone, and the state of the Prefect APIs beside it."""

    state: Path

    @property
    def clone(self) -> Path:
        return self.state / "clone" / ROOT.name

    def git(self, *words: str) -> str:
        author = ("-c", "user.name=Demo", "-c", "user.email=demo@localhost", "-c", "core.hooksPath=/dev/null")
        return run(["git", "-C", str(self.clone), *author, *words])

    def deploy(self, verb: str, env: str, *words: str, expect: int = 0) -> None:
        """Type the command, and run it as a user would. Its output goes where ours goes."""
        say(f"$ python scripts/deploy.py {verb} --env {env} {' '.join(quoted(w) for w in words)}".rstrip())
        done = subprocess.run(self._command(verb, env, *words), check=False, env=clean_environment())
        if done.returncode != expect:
            raise DemoError(f"`deploy.py {verb} --env {env}` ended with {done.returncode}; its message stands above.")

    def answer(self, verb: str, env: str) -> Any:
        return json.loads(run([*self._command(verb, env), "--format", "json"]))

    def _command(self, verb: str, env: str, *words: str) -> list[str]:
        variables = self.state / f"{env}.env"
        tool = str(ROOT / "scripts" / "deploy.py")
        return [
            sys.executable,
            tool,
            verb,
            "--env",
            env,
            "--repo",
            str(self.clone),
            "--env-file",
            str(variables),
            *words,
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    return perform("demo", str(__doc__), play, arguments)


def perform(name: str, about: str, play: Callable[[Stage], None], arguments: Sequence[str] | None) -> int:
    """Play it on a stage of its own, `.local/NAME` unless another is named; answer the exit code."""
    signal.signal(signal.SIGTERM, stop)
    words = _parser(name, about).parse_args(arguments)
    stage = Stage(words.state.resolve())
    began = time.monotonic()
    try:
        play(stage)
        seconds = time.monotonic() - began
        say(f"\nThe demo took {seconds:.0f} s. Your repository is as it was.")
        if not words.end:
            say("The three Prefect APIs stay up for you to look around; `make down` ends them.")
        return 0
    except (DemoError, ActError, marked.LocalError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        words.end = True
        return 130
    finally:
        if words.end:
            local.down(ROOT, stage.state, say=say)


def play(stage: Stage) -> None:
    head = clone_head(stage)
    step("Start three Prefect APIs, and a worker for each of their pools")
    up = local.up(stage.clone, stage.state, port_base=0, say=say)
    write_variables(stage)

    step(f"A merge to main: deploy {head[:12]} to dev")
    stage.deploy("apply", "dev")

    step("Run the sample through all three work pools: load, indicators, the clean-up's count, and checks of them")
    stage.deploy("run", "dev", SMOKE)

    step("A release candidate's tag: the same commit to QA. A release's tag: to production")
    stage.git("tag", "v1.0.0-rc1")
    stage.deploy("apply", "qa", "--ref", "v1.0.0-rc1")
    stage.git("tag", "v1.0.0")
    stage.deploy("apply", "prod", "--ref", "v1.0.0")

    step("The next change: one parameter, in a second commit. Plan first, then deploy it to dev and to production")
    second = change_a_parameter(stage)
    stage.deploy("plan", "dev")
    stage.deploy("apply", "dev")
    stage.git("tag", "v1.1.0", second)
    stage.deploy("apply", "prod", "--ref", "v1.1.0")

    step("It was a mistake: put production back to v1.0.0")
    stage.deploy("rollback", "prod", "--to", "v1.0.0", "--reason", "two years are too many")
    stage.deploy("history", "prod")

    step("What is where")
    say(status_text([stage.answer("status", name)["environments"][0] for name in ENVIRONMENTS]))
    say("\nLook at it in Prefect's UI:")
    for one in up:
        say(f"  {one.name:<5} {one.ui_url}")


def clone_head(stage: Stage) -> str:
    """A fresh stage with a clone of the last commit, as branch main, whatever branch or state the repository is in."""
    head = run(["git", "-C", str(ROOT), "rev-parse", "--verify", "HEAD^{commit}"])
    if run(["git", "-C", str(ROOT), "status", "--porcelain"]):
        say(
            f"Your work tree has changes that are not committed. The demo deploys the commit {head[:12]}, without them."
        )
    local.down(ROOT, stage.state)
    shutil.rmtree(stage.state, ignore_errors=True)
    stage.clone.parent.mkdir(parents=True)
    run(["git", "clone", "--quiet", "--no-tags", "--no-checkout", "--no-hardlinks", str(ROOT), str(stage.clone)])
    stage.git("checkout", "--quiet", "-B", "main", head)
    return head


def write_variables(stage: Stage) -> None:
    """What `python scripts/local.py env NAME` prints, for each environment."""
    for name in ENVIRONMENTS:
        found = local.env(name, stage.clone, stage.state)
        (stage.state / f"{name}.env").write_text(local.FORMATS["dotenv"](found) + "\n")


def change_a_parameter(stage: Stage) -> str:
    file = stage.clone / CATALOGUE
    text = file.read_text()
    if BEFORE not in text:
        raise DemoError(
            f"{CATALOGUE} no longer says '{BEFORE}', which the demo changes. Mend the constants in {Path(__file__).name}."
        )
    file.write_text(text.replace(BEFORE, AFTER, 1))
    say(f"{CATALOGUE}: {BEFORE} -> {AFTER}")
    stage.git("commit", "--quiet", "--all", "--message", "Load two years of prices")
    return stage.git("rev-parse", "HEAD")


def clean_environment() -> dict[str, str]:
    """Without the user's PREFECT_* variables: a demo never meets a real API."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "GITHUB_"))}


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean_environment())
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise DemoError(f"`{' '.join(command[:4])} ...` failed: {said[-1] if said else done.returncode}")
    return done.stdout.strip()


def quoted(word: str) -> str:
    return f'"{word}"' if " " in word else word


step_number = iter(range(1, 100))


def step(title: str) -> None:
    say(f"\n=== {next(step_number)}. {title}\n")


def say(line: str) -> None:
    print(line, flush=True)


def stop(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _parser(name: str, about: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument(
        "--state", type=Path, default=ROOT / ".local" / name, metavar="DIR", help=f"default: .local/{name}"
    )
    parser.add_argument("--end", action="store_true", help="end the Prefect APIs afterwards")
    return parser


if __name__ == "__main__":
    sys.exit(main())
