"""One function a verb: it takes what was asked for, and answers the exit code. `apply` and `rollback` make releases."""

from __future__ import annotations

from deployer import following, preview, project, render
from deployer.call import Call
from deployer.errors import Exit, count, invalid
from deployer.looking import drift, examine, history, previews, print_schema, status, target, validate
from deployer.releasing import apply_commit, plan, rollback

__all__ = [
    "apply_commit",
    "destroy",
    "drift",
    "examine",
    "history",
    "plan",
    "previews",
    "print_schema",
    "rollback",
    "run",
    "serve",
    "status",
    "target",
    "validate",
]


def destroy(call: Call) -> Exit:
    with call.site(call.words.env, call.words.preview, goes=True) as site:
        gone = preview.destroy(site, call.console.note)
    name = call.words.preview
    text = f"The preview {name} of {call.words.env} is gone: {count(len(gone), 'deployment')} deleted."
    call.console.result(
        lambda: text,
        lambda: f"**{text}**",
        lambda: {"format": render.FORMAT, "environment": call.words.env, "preview": name, "deleted": gone},
    )
    return Exit.DONE


def run(call: Call) -> Exit:
    with call.site(call.words.env, call.words.preview) as site:
        return following.run(site, call.words.name, call.words.param, call.words.timeout, call.console)


def serve(call: Call) -> Exit:
    from deployer import serving

    declared, problems = project.load_catalog(call.tree)
    if problems:
        raise invalid(problems)
    environments = project.load_environments(call.tree, None)
    production = [e.name for e in environments if e.mode == "production"]
    return serving.serve(call.repository.path, declared, call.words.name, production, call.variables, call.console.note)
