"""What Prefect's own metrics lack, for Prometheus: runs, lateness, pools, workers, schedules, releases, drift, backups.

    PREFECT_API_URL=http://127.0.0.1:4200/api python infra/monitoring/exporter [--listen 0.0.0.0:9464]

It reads the API in the background and answers scrapes from memory, so a slow API never holds up a scrape. It writes nothing.
Gauges say what the API said at the last reading, whenever this process began. Counters and histograms begin at nought with
the process, as Prometheus expects, and hold every run that ended since: what ended while none ran is only in the gauges.

    command       what is typed, and serving until the end
    reading       whose turn it is, what came of it, and what a scrape is answered
    runs, deployments, pools, releases, drift, backups
                  the readers: from the API to samples, one subject each
    schedules     when a schedule fires, and what the server's scheduler should have made
    names         a bounded number of labels
    metrics       every gauge, its meaning and its labels
"""
