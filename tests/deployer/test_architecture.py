"""The engine keeps its shape: what decides is pure, imports flow one way, and only three verbs can change anything."""

from __future__ import annotations

import ast
import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import pytest

from deployer import cli, schema
from deployer.errors import Exit
from tests.repository import Repo

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "deployer"

ORDER = [
    "errors",
    "yamlfile",
    "fields",
    "model",
    "environment",
    "catalog",
    "refs",
    "source",
    "template",
    "comparable",
    "desired",
    "schema",
    "merge",
    "plan",
    "finding",
    "seen",
    "diagnosis",
    "waiting",
    "render",
    "github",
    "saved",
    "revision",
    "project",
    "prefect_api.client",
    "prefect_api.artifacts",
    "prefect_api.variables",
    "prefect_api.secrets",
    "prefect_api.limits",
    "prefect_api.pools",
    "prefect_api.queues",
    "prefect_api.runs",
    "prefect_api.health",
    "prefect_api.schedules",
    "prefect_api.automations",
    "prefect_api.deployments",
    "prefect_api",
    "prefect_api.relay",
    "ledger",
    "loading",
    "stats",
    "prepare",
    "doctor",
    "writers",
    "apply",
    "preview",
    "console",
    "following",
    "serving",
    "call",
    "looking",
    "releasing",
    "verbs",
    "cli",
]
"""Each module imports only what stands before it."""

ALONE = "loader"
"""A program of its own: it imports nothing of the package, and nothing imports it."""

PURE = [
    "errors",
    "yamlfile",
    "fields",
    "model",
    "environment",
    "catalog",
    "refs",
    "source",
    "template",
    "comparable",
    "desired",
    "schema",
    "merge",
    "plan",
    "finding",
    "seen",
    "diagnosis",
    "waiting",
    "render",
]
IMPURE = {
    "prefect",
    "httpx",
    "os",
    "subprocess",
    "time",
    "socket",
    "random",
    "tempfile",
    "shutil",
    "pathlib",
    "sys",
    "threading",
}


@cache
def files() -> dict[str, Path]:
    """Module -> file, without the package's name: `plan`, `prefect_api`, `prefect_api.pools`."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(files()[module].read_text())


def imports(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Local name -> what it stands for, by its full name, for every import below the node."""
    for found in ast.walk(node):
        if isinstance(found, ast.Import):
            yield from ((alias.asname or alias.name, alias.name) for alias in found.names)
        if isinstance(found, ast.ImportFrom):
            assert found.level == 0, "imports are absolute"
            yield from ((alias.asname or alias.name, f"{found.module}.{alias.name}") for alias in found.names)


def modules_imported(module: str) -> set[str]:
    """Modules of the package that this one imports, at its top or inside a function."""
    known = {f"{PACKAGE}.{name}": name for name in files() if name}
    found = set()
    for _, name in imports(tree(module)):
        owner = name if name in known else name.rpartition(".")[0]
        found |= {known[owner]} if owner in known else set()
    return found


# -- imports


def test_every_module_has_its_place_in_the_order() -> None:
    assert sorted([*ORDER, ALONE]) == sorted(name for name in files() if name)


@pytest.mark.parametrize("module", ORDER)
def test_imports_flow_one_way(module: str) -> None:
    assert modules_imported(module) <= set(ORDER[: ORDER.index(module)])


def test_the_loader_stands_alone() -> None:
    assert modules_imported(ALONE) == set()
    assert [m for m in ORDER if ALONE in modules_imported(m)] == []


@pytest.mark.parametrize("module", [*ORDER, ALONE])
def test_prefect_is_imported_by_nothing_but_the_loader_and_serve_and_there_only_when_it_is_needed(module: str) -> None:
    everywhere = {name.partition(".")[0] for _, name in imports(tree(module))}
    assert "prefect" not in everywhere or module in (ALONE, "serving")
    top = [node for node in tree(module).body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert "prefect" not in {name.partition(".")[0] for node in top for _, name in imports(node)}


def test_only_the_door_to_prefect_speaks_http() -> None:
    assert [m for m in ORDER if "httpx" in {name.partition(".")[0] for _, name in imports(tree(m))}] == [
        "prefect_api.client"
    ]


@pytest.mark.parametrize("module", PURE)
def test_what_decides_is_pure(module: str) -> None:
    """No network, no file, no process, no clock: the same values give the same answer."""
    assert not IMPURE & {name.partition(".")[0] for _, name in imports(tree(module))}
    assert modules_imported(module) <= set(PURE)
    used = {node.attr for node in ast.walk(tree(module)) if isinstance(node, ast.Attribute)}
    assert not used & {"now", "utcnow", "today", "environ", "getenv", "read_text", "write_text"}
    called = {n.func.id for n in ast.walk(tree(module)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    assert not called & {"open", "print", "input", "eval", "exec"}


# -- who writes

Function = tuple[str, str]  # module, name; a method's name is Class.method
WRITING_METHODS = {"patch", "put", "delete", "create"}


@cache
def functions() -> dict[Function, ast.AST]:
    found: dict[Function, ast.AST] = {}
    for module in ORDER:
        for node in tree(module).body:
            if isinstance(node, ast.FunctionDef):
                found[module, node.name] = node
            if isinstance(node, ast.ClassDef):
                found |= {(module, f"{node.name}.{f.name}"): f for f in node.body if isinstance(f, ast.FunctionDef)}
    return found


@cache
def uses(function: Function) -> frozenset[Function]:
    """All functions that it may call. A method of something unknown may be any method of that name, and `module.create`
    any function of that name at the door to Prefect (modules that are values are called so): too many rather than too few."""
    module, _ = function
    known = named_in(module)
    foreign = from_elsewhere(functions()[function], known)
    found = set()
    for node in ast.walk(functions()[function]):
        if isinstance(node, ast.Name):
            owner, _, name = known.get(node.id, f"{module}.{node.id}").rpartition(".")
            found.add((owner, name))
        if isinstance(node, ast.Attribute) and not made_elsewhere(node.value, known):
            base = node.value.id if isinstance(node.value, ast.Name) else ""
            if base not in foreign:
                found |= {(known[base], node.attr)} if known.get(base) in files() else called_so(base, node.attr)
    return frozenset({defined(*each) for each in found} & set(functions()))


@cache
def named_in(module: str) -> dict[str, str]:
    """Local name -> what it stands for; the package's own without the package's name."""
    return {name: full.removeprefix(f"{PACKAGE}.") for name, full in imports(tree(module))}


def defined(module: str, name: str) -> Function:
    """Where it is defined, if the module only passes it on."""
    while (module, name) not in functions():
        passed = named_in(module).get(name) if module in files() else None
        if passed is None or passed in files():
            break
        module, _, name = passed.rpartition(".")
    return module, name


def from_elsewhere(node: ast.AST, known: dict[str, str]) -> set[str]:
    """Variables that hold something of another library's making, such as `timer = threading.Timer(...)`."""
    assigned = [n for n in ast.walk(node) if isinstance(n, ast.Assign) and made_elsewhere(n.value, known)]
    return {ast.unparse(target) for n in assigned for target in n.targets}


def made_elsewhere(value: ast.expr, known: dict[str, str]) -> bool:
    """Is it a call of another library, such as `threading.Timer(...)`?"""
    root = value.func if isinstance(value, ast.Call) else None
    while isinstance(root, ast.Attribute):
        root = root.value
    full = known.get(root.id, "") if isinstance(root, ast.Name) else ""
    return bool(full) and full.partition(".")[0] not in {name.partition(".")[0] for name in files()}


@cache
def called_so(base: str, name: str) -> frozenset[Function]:
    if base == "module":
        return frozenset((m, f) for m, f in functions() if f == name and m.startswith("prefect_api."))
    return frozenset((m, f) for m, f in functions() if f.endswith(f".{name}"))


@cache
def writes(function: Function) -> bool:
    """Does it send a request that changes something? Reads are GETs and POSTs to a filter or a count."""
    asked = [n for n in ast.walk(functions()[function]) if isinstance(n, ast.Call) and ast.unparse(n.func) in REQUEST]
    if function == PAGES:
        return False
    return function == ("loading", "Loader.create") or any(not is_read(call) for call in asked)


PAGES = ("prefect_api.client", "Client._pages")
"""Posts to whatever path it is given: see the test below."""

REQUEST = {"self.request", "client.request", "self.client.request"}


def is_read(call: ast.Call) -> bool:
    method = ast.unparse(call.args[0])
    return method == "'GET'" or (method == "'POST'" and path_of(call.args[1]).endswith(("/filter", "/count")))


def test_requests_are_made_in_no_other_words() -> None:
    for (module, name), node in functions().items():
        said = {ast.unparse(n.func) for n in ast.walk(node) if isinstance(n, ast.Call)}
        words = {text for text in said if text.endswith(".request")} - {"desired.request", "self.http.request"}
        assert words <= REQUEST, (module, name)


def path_of(node: ast.expr) -> str:
    """The end of a path, as far as it is written out."""
    if isinstance(node, ast.JoinedStr):
        node = node.values[-1]
    return str(node.value) if isinstance(node, ast.Constant) else ""


def reaches_a_write(function: Function) -> bool:
    seen: set[Function] = set()
    left = [function]
    while left:
        here = left.pop()
        if here not in seen:
            seen.add(here)
            left += uses(here)
    return any(writes(found) for found in seen)


def verbs() -> dict[str, str]:
    """Verb -> the function that does it."""
    choices = next(a for a in cli.parser()._actions if a.dest == "verb").choices
    assert isinstance(choices, dict)
    return {verb: parser.get_default("function") for verb, parser in choices.items()}


def test_pages_are_read_from_filters_only() -> None:
    for function, node in functions().items():
        for call in (n for n in ast.walk(node) if isinstance(n, ast.Call)):
            said = ast.unparse(call.func)
            assert "._pages" not in said or function[0] == PAGES[0], function
            if said.endswith(("client.pages", "client.early")):
                assert path_of(call.args[0]).endswith("/filter"), function


def test_only_apply_rollback_and_destroy_can_change_anything_and_run_can_start_a_run() -> None:
    reaching = {verb for verb, function in verbs().items() if reaches_a_write(defined("verbs", function))}
    assert reaching == {"apply", "rollback", "destroy", "run"}


def test_run_can_write_nothing_but_a_flow_run() -> None:
    seen, left = set(), [defined("verbs", verbs()["run"])]
    while left:
        here = left.pop()
        if here not in seen and here != ("prefect_api.runs", "start"):
            seen.add(here)
            left += uses(here)
    assert [function for function in seen if writes(function)] == []


def test_the_search_for_writes_finds_them() -> None:
    found = {function for function in functions() if writes(function)}
    expected = {("prefect_api.client", f"Client.{name}") for name in WRITING_METHODS}
    expected |= {("loading", "Loader.create"), ("prefect_api.runs", "start"), ("prefect_api.runs", "schedule")}
    assert expected <= found
    assert defined("prefect_api", "connect") == ("prefect_api.client", "connect")
    assert not reaches_a_write(("prefect_api", "read")) and reaches_a_write(("apply", "apply"))


# -- the command line


@pytest.mark.parametrize("verb", ["", *verbs()])
def test_help_works_for_every_verb(verb: str) -> None:
    said = io.StringIO()
    with redirect_stdout(said):
        assert cli.main([*verb.split(), "--help"], {}) == Exit.DONE
    assert said.getvalue().startswith(f"usage: deploy.py {verb}".rstrip())


def test_every_verb_is_a_function() -> None:
    assert [function for function in verbs().values() if defined("verbs", function) not in functions()] == []


def test_exit_codes_are_unique_and_those_that_are_documented() -> None:
    text = cli.parser().format_help()
    assert len({int(code) for code in Exit}) == len(Exit)
    assert [code for code in Exit if f"{int(code)} " not in text.partition("exit codes:")[2]] == []


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    return Repo(tmp_path_factory.mktemp("repo"))


WITHOUT_PREFECT = [
    *(["--help"], ["apply", "--help"], ["validate", "--static"], ["target", "--ref", "refs/heads/main"], ["schema"]),
]


@pytest.mark.parametrize("words", WITHOUT_PREFECT, ids=" ".join)
def test_what_needs_no_prefect_does_not_import_it_and_answers_within_a_second(words: list[str], repo: Repo) -> None:
    program = (
        "import sys; from deployer import cli; code = cli.main(sys.argv[1:]);"
        "needless = {name.partition('.')[0] for name in sys.modules} & {'prefect', 'pandas', 'sqlalchemy', 'fastapi'};"
        "print(*needless, file=sys.stderr); sys.exit(code or len(needless))"
    )
    where = [] if "--help" in words else ["--repo", str(repo.path)]
    spent = [cpu_seconds([sys.executable, "-c", program, *words, *where]) for _ in range(2)]
    assert min(spent) < 1


def cpu_seconds(command: list[str]) -> float:
    """What a command costs by itself: without the coverage that this process may be under."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("COV")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env={**kept, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# -- the repository


@pytest.mark.parametrize("kind", ["environment", "deployments"])
def test_the_committed_schemas_are_those_that_the_models_make(kind: str) -> None:
    committed = json.loads((ROOT / PACKAGE / "schemas" / f"{kind}.schema.json").read_text())
    assert committed == schema.schemas()[kind], (
        f"python scripts/deploy.py schema {kind} > deployer/schemas/{kind}.schema.json"
    )


def test_schema_prints_what_is_committed(repo: Repo) -> None:
    for kind in ("environment", "deployments"):
        said = io.StringIO()
        with redirect_stdout(said):
            assert cli.main(["schema", kind, "--repo", str(repo.path)], {}) == Exit.DONE
        assert said.getvalue() == (ROOT / PACKAGE / "schemas" / f"{kind}.schema.json").read_text()


REGISTRIES = [
    *("pypi" + ".org", "python" + "hosted.org", "registry.npm" + "js.org", "hub.docker" + ".com", "crates" + ".io"),
]


def test_no_file_names_a_package_registrys_host() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    names = [name for name in listed.split("\0") if name and (ROOT / name).is_file()]
    texts = {name: (ROOT / name).read_bytes().decode(errors="replace") for name in names}
    assert len(texts) > 50
    assert [(name, host) for name, text in texts.items() for host in REGISTRIES if host in text] == []
