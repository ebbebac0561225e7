# What a developer types is what CI runs. `make demo` and `make test` are all that a fresh clone needs; both set it up.
# GNU make 3.81 is enough (macOS).

PYTHON  ?= python3
PYTHONS := 3.13 3.12 3.11
RUN     := .venv/bin/python
PARALLEL := --numprocesses auto --no-loadscope-reorder

# These would reach into .venv: slower starts without bytecode, and modules that the lock does not know.
unexport PYTHONDONTWRITEBYTECODE PYTHONHOME PYTHONPATH

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-github test test-stack check format bench up down lock install infra-setup infra-check \
        ha try-upgrade image compose-test

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

setup: ## Create .venv from the lock, unless it is there and current
	@cmp -s requirements.txt .venv/requirements.txt && test -x $(RUN) || $(MAKE) --no-print-directory install

demo: setup ## Deploy, run, promote and roll back on three Prefect APIs of this machine's own
	@$(RUN) scripts/demo.py

demo-github: setup ## The same through the GitHub workflows, run by act instead of GitHub
	@$(RUN) scripts/demo_github.py

test: setup ## Run the tests with coverage; TESTS=tests/test_x.py runs some, without the coverage floor
	@$(RUN) -m pytest $(or $(TESTS),-m "not stack" --ignore tests/infra --cov $(PARALLEL))

test-stack: setup ## Run the tests that need a whole stack: three Prefect APIs, their workers, the GitHub workflows
	-@$(if $(TESTS),,$(RUN) infra/upgrade/trial.py --prepare)
	@$(RUN) -m pytest $(or $(TESTS),-m stack $(PARALLEL))

infra-setup: setup ## Install the tools that check infra/ into .venv-infra
	@$(RUN) scripts/infra_setup.py

infra-check: infra-setup ## Check infra/: images, Compose, Helm and Kubernetes, Terraform, monitoring, scripts
	@$(RUN) -m pytest $(or $(TESTS),-m "not stack" $(PARALLEL) tests/infra)

ha: setup ## Kill and restart parts of a whole platform while a hundred runs go, and tell what became of them
	@$(RUN) scripts/ha.py $(if $(RUNS),--runs $(RUNS)) $(if $(JSON),--json $(JSON))

try-upgrade: setup ## Upgrade a whole platform from the previous Prefect while runs go on
	@$(RUN) infra/upgrade/trial.py

image: ## Build the images server, worker and flows from the last commit; ARGUMENTS="worker --tag x"
	@$(PYTHON) scripts/images.py $(ARGUMENTS)

compose-test: infra-setup ## Bring the Compose dev stack up, deploy to it, run flows in it; ENVIRONMENTS="dev qa prod"
	@$(RUN) scripts/compose_test.py $(ENVIRONMENTS)

check: setup ## Lint, format, types, file hygiene and the lock: every hook on every file
	@$(RUN) -m pre_commit run --all-files

format: setup ## Mend what the linter and the formatter can mend
	@$(RUN) -m ruff check --fix --quiet; $(RUN) -m ruff format

bench: setup ## Measure deploys and loads; writes bench/results.json
	@$(RUN) -m bench

up: setup ## Start the local Prefect APIs (dev, qa, prod) and their workers
	@$(RUN) scripts/local.py up

down: setup ## Stop what `make up` and `make demo` started
	@$(RUN) scripts/local.py down && $(RUN) scripts/local.py down --state .local/demo && \
	$(RUN) scripts/local.py down --state .local/demo-github

lock: ## Bring requirements.txt in line with what is declared; UPGRADE=pandas (or all) moves pins
	@$(PYTHON) scripts/lock.py $(if $(UPGRADE),--upgrade $(UPGRADE))

# .venv is ready when it holds a copy of the lock that it was made from. The copy is written last: after a failed or
# interrupted installation there is none, and the next call starts afresh. Only wheels, so that nothing is compiled here.
# The path file lets `.venv/bin/python flows/ingestion/sample.py` find the package `flows`.
install:
	@set -e; \
	for python in "$(PYTHON)" $(PYTHONS:%=python%) ""; do \
	    "$$python" -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] not in sys.argv)' $(PYTHONS) 2>/dev/null && break; \
	done; \
	if test -z "$$python"; then \
	    echo "Python $(PYTHONS): none of these is here ($(PYTHON) is $$($(PYTHON) -V 2>&1))." >&2; \
	    echo "Install one of them, or name one: make setup PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	fi; \
	python=$$("$$python" -c 'import sys; print(sys.executable)'); \
	rm -rf .venv; \
	if command -v uv >/dev/null; then \
	    echo "Creating .venv with $$("$$python" -V) and uv."; \
	    uv venv --quiet --python "$$python" .venv; \
	    uv pip install --quiet --python $(RUN) --require-hashes --only-binary :all: -r requirements.txt; \
	else \
	    echo "Creating .venv with $$("$$python" -V) and pip: about two minutes, once."; \
	    "$$python" -m venv .venv; \
	    $(RUN) -m pip install -qq --disable-pip-version-check --no-compile --no-deps \
	        --require-hashes --only-binary :all: -r requirements.txt; \
	fi; \
	for site in .venv/lib/python*/site-packages; do test ! -d "$$site" || pwd >"$$site/this-checkout.pth"; done; \
	$(RUN) -m compileall -qq -j 0 .venv/lib || true; \
	cp requirements.txt .venv/requirements.txt
