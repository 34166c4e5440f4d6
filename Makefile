# Thin on purpose: every target is one command that can be typed by hand.
PYTHON := .venv/bin/python

.PHONY: help setup up down status test bench plots demo check chaos chaos-scenes chaos-self-test spec spec-quick test-java test-stack test-stack-full test-failover test-kubernetes

help:  ## Show the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/'

setup:  ## Make .venv with the locked dependencies
	@./payflow --version

up:  ## Start everything in the foreground
	@./payflow up

down:  ## Stop everything, keep the data
	@./payflow down

status:  ## Show every process
	@./payflow status

test:  ## Run the whole test suite
	@./payflow test

bench:  ## Measure payments per second against pgbench
	@./payflow bench

plots:  ## Draw the kept results of the bench and write the tables of docs/performance.md
	$(PYTHON) -m payflow_dev.bench.plots bench/results/*.json

demo:  ## Play the story
	@./payflow demo

chaos:  ## Pay under faults for some minutes, then judge
	@./payflow chaos

chaos-scenes:  ## Play the five scenes
	@./payflow chaos --scene all

chaos-self-test:  ## Plant bugs one at a time, and find each
	@./payflow chaos --self-test

check: setup  ## Lint, format, types, import rules, architecture
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -c 'from importlinter.cli import lint_imports_command as lint; lint()'
	$(PYTHON) -m pytest -q tests/architecture

spec: setup  ## Check the model of the protocol exhaustively, and that planted mistakes are found (needs Java and Maven)
	$(PYTHON) -m payflow_dev.spec

spec-quick: setup  ## The same with the small configurations only: some minutes
	$(PYTHON) -m payflow_dev.spec --quick

test-java: setup  ## The tests that need Java and Maven: histories of payments held against the model
	$(PYTHON) -m pytest -q spec/tests

test-stack: setup  ## The tests against servers of the real stack, which they do not install (Java, Maven, Go; Debian: see .ci/run)
	PYTHONHASHSEED=0 $(PYTHON) -m pytest -q --numprocesses=3 --dist=loadscope --no-loadscope-reorder tests/stack

test-kubernetes: setup  ## The chart on a real API server with hollow nodes; builds Kubernetes with Go at first (needs etcd)
	$(PYTHON) -m payflow_dev.kubernetes.programs
	$(PYTHON) -m pytest -q deploy/helm/tests

test-stack-full: setup test-failover  ## All containers as they ship, and what watches them; by hand (docs/howto/run-with-compose.md says what it needs)
	PYTHONPATH=src:. $(PYTHON) tests/stack/full/run.py build $${STAND_INS:-/var/tmp/payflow-stand-ins}
	PYTHONPATH=src:. $(PYTHON) tests/stack/full/run.py check

test-failover: setup  ## A PostgreSQL primary is killed under payments, three copies of each service; by hand, installs Patroni (Debian: etcd-server)
	TEST_COPIES=3 $(PYTHON) -m pytest -q -s tests/stack/by_hand tests/stack/data/test_copies.py
