"""An in-memory stand-in for the REST API of a self-hosted Prefect 3.8.8 server.

    fake = FakePrefect()
    client = httpx.Client(transport=fake.transport, base_url="http://fake/api")    # in this process
    with fake.serve() as url: ...                                                  # for another process

It answers what the real server answers: fields, defaults, status codes, error bodies, and the traps
that make deploying to Prefect interesting. What it promises is asserted against both, the fake and a
real server, in tests/test_fake_is_honest.py: extend that test first, then the fake.

One module a kind (flows, deployments, schedules, ...), all of one shape: the bodies it accepts, the
table of its ROUTES, a short function a route. The rest is shared:

    fake.py      FakePrefect: dispatch, record of requests, aids for tests
    wire.py      a request as the functions see it, answers, refusals, JSON
    fields.py    the field types that several bodies use
    store.py     tables of rows, the clock
    filters.py   filter, sort, page
    dates.py     when a schedule fires
    schema.py    does a value fit a JSON schema
    faults.py    answers that fail on request
    serving.py   the fake on a loopback port
"""

from tests.fake_prefect.fake import FakePrefect, Recorded
from tests.fake_prefect.faults import Fault

__all__ = ["FakePrefect", "Fault", "Recorded"]
