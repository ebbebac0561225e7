"""prefect-platform's deploy engine: a commit of a repository -> what runs in one environment.

The pipeline, module by module, in the order in which a deploy walks through them:

    environment   environments/NAME.yaml says where it runs, and nothing else
    catalog       flows/**/deployments.yaml say what runs
    project       both, read from the work tree or from a commit
    revision      Git: a ref becomes one commit; may it go there; its files in a folder of their own
    source        how workers get that commit's code
    template      a work pool's job template, and whether job variables fit it
    loading       starts loader.py, a process apart with nothing to steal, which imports the flows
    desired       all of that together: what should exist
    prefect_api   what does exist; the only door to Prefect
    ledger        what was released before, kept in the same API
    merge         one resource three ways, wanted, live and last released -> what it will be
    plan          all of them, in their order, with what goes, and the guards that may refuse it
    prepare       the steps up to here, in order
    render        a plan for people and for machines
    writers       several calls at a time, as long as the API bears it
    apply         a plan -> calls; then everything is read again, and must leave nothing to do
    doctor        looks at an environment, and diagnosis and waiting name what is wrong and the fix
    verbs         one function a verb: looking at what is there, releasing what is wanted
    cli           words, streams, exit codes

Pure are all that decide (fields, environment, catalog, refs, source, template, comparable, desired, merge, plan, diagnosis, waiting, render): values in,
values out. Writing happens in prefect_api, and only `apply` (and `preview`'s destroy) calls what writes there.
"""

__version__ = "0.1.0"
