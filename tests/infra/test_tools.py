"""The tools that check infra/: ours come first, and what is not what it was is not installed."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from scripts import infra_setup


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(infra_setup, "HOME", tmp_path / "venv")
    return tmp_path / "venv"


def program(path: Path, text: str = "exit 0") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def package() -> bytes:
    """As npm packs it: a zip in a tar."""
    inner, outer = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(inner, "w") as layer:
        layer.writestr("helm/helm", "#!/bin/sh\necho helm\n")
        layer.writestr("kubectl/kubectl", "#!/bin/sh\necho kubectl\n")
    with tarfile.open(fileobj=outer, mode="w:gz") as archive:
        member = tarfile.TarInfo("package/lib/layer.zip")
        member.size = len(inner.getvalue())
        archive.addfile(member, io.BytesIO(inner.getvalue()))
    return outer.getvalue()


def test_our_own_tool_comes_before_the_systems(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = program(tmp_path / "system/promtool")
    monkeypatch.setenv("PATH", str(theirs.parent))
    assert infra_setup.find("promtool") == str(theirs)
    ours = program(home / "tools/promtool")
    assert infra_setup.find("promtool") == str(ours)
    assert infra_setup.find("no-such-tool") is None


def test_helm_and_kubectl_come_out_of_their_package_as_programs(home: Path) -> None:
    infra_setup.unpack(package(), home / "tools")
    said = [subprocess.run([home / "tools" / n], capture_output=True, text=True).stdout for n in ("helm", "kubectl")]
    assert said == ["helm\n", "kubectl\n"]
    assert sorted(path.name for path in (home / "tools").iterdir()) == ["helm", "kubectl"]


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="the package is for Linux; elsewhere nothing is fetched")
def test_a_package_that_is_not_the_known_one_is_not_installed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other.tgz").write_bytes(package())
    program(tmp_path / "bin/npm", f'cp "{tmp_path}/other.tgz" .')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setattr(infra_setup, "find", lambda name: None)
    with pytest.raises(SystemExit, match=r"its SHA-256 differs\. Nothing of it was installed"):
        infra_setup.install_kubernetes_tools()
    assert not (home / "tools").exists()


def test_without_npm_or_network_it_says_what_is_missing_and_goes_on(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program(tmp_path / "bin/npm", "exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin")
    infra_setup.install_kubernetes_tools()
    assert "helm and kubectl are not here" in capsys.readouterr().err
