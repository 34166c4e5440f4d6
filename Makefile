# Thin on purpose: every target is one command that can be typed by hand.
PYTHON := .venv/bin/python

.PHONY: help setup up down status test bench plots demo check chaos chaos-scenes chaos-self-test

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
