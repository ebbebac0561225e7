"""infra/: rendered, checked by the tools of each kind, and where it can be, run. `make infra-check` runs what is marked so."""
