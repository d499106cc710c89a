# `make` prints this help. Every target does its own set-up.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
PYTHONS ?= 3.8 3.10 3.12
UNITS ?=
SECONDS ?= 600
MODEL ?= daemon/defectd/demo/boards.torchscript
IMAGES ?=
BUNDLE ?=

help:  ## print this help
	@echo "defectd: every unit judged, accounted for, and published"
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | sort | awk -F'\t' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(VENV)/.ready  ## make .venv with everything but Debian packages

$(VENV)/.ready: pyproject.toml Makefile
	$(PYTHON) -c 'import sys; sys.exit(not (3, 8) <= sys.version_info[:2] <= (3, 13) and "Python 3.8 to 3.13 is needed; set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet '$(TORCH)'
	$(BIN)/pip install --quiet --editable '.[demo,dev]'
	touch $@

demo: setup  ## inspect a simulated line of 240 boards a minute (UNITS=40 stops by itself; MQTT_HOST= uses your broker)
	$(BIN)/defectd demo $(if $(UNITS),--units $(UNITS))

demo-scores: setup  ## what the demo's model reaches on boards that it never saw
	$(BIN)/python -m defectd.demo.train --score daemon/defectd/demo/boards.torchscript

test: setup mosquitto  ## the tests (Mosquitto is installed with apt where that is allowed)
	$(BIN)/python -m pytest

mosquitto:
	@command -v mosquitto >/dev/null || test -x /usr/sbin/mosquitto || { \
	  if [ "$$(id -u)" = 0 ]; then apt-get update -qq && apt-get install -qq -y --no-install-recommends mosquitto; \
	  elif sudo -n true 2>/dev/null; then sudo apt-get update -qq && sudo apt-get install -qq -y --no-install-recommends mosquitto; \
	  else echo "Mosquitto is missing, so the MQTT 5 tests will skip. To run them: sudo apt-get install mosquitto"; fi; } || true

test-pythons: mosquitto  ## what needs no torch on 3.8, 3.10 and 3.12 (PATH or pyenv), on the oldest with brokers and disks
	for version in $(PYTHONS); do ./tests/on-python $$version tests/unit || exit 1; done
	./tests/on-python $(firstword $(PYTHONS)) tests/integration

test-gpu: setup  ## CUDA events, graphs, pinned memory: on a machine with a GPU
	$(BIN)/python -m pytest tests/gpu

fuzz: setup  ## coverage-guided fuzzing of what reads commands, manifests and envelopes (SECONDS=)
	$(BIN)/pip install --quiet --editable '.[fuzz]'
	PYTHONPATH=daemon:tests $(BIN)/python -m fuzz --seconds $(SECONDS)

prove: prove-loop prove-models prove-rollout prove-grid prove-telemetry prove-deploy  ## all acceptance suites

prove-models: setup mosquitto  ## best.pt to bundle to line; needs DEFECTD_DEEPPCB and DEFECTD_PEER_PYTHON
	PYTHONPATH=daemon:tests $(BIN)/python -m acceptance.prove_models

prove-rollout: setup mosquitto  ## good and bad candidates on a running line, and the bad days of a rollout
	PYTHONPATH=daemon:tests $(BIN)/python -m acceptance.prove_rollout

prove-telemetry: setup mosquitto  ## heat, clocks, latency: machines that are not here; needs prometheus and DEFECTD_JETSON_SIM
	PYTHONPATH=daemon:tests $(BIN)/python -m acceptance.prove_telemetry

prove-cameras: setup mosquitto  ## GigE Vision, RTSP, several views, 1 to 8 cameras; needs Aravis and GStreamer (docs/cameras.md)
	PYTHONPATH=daemon:tests $(BIN)/python -m acceptance.prove_cameras

types-tensorrt: setup  ## the TensorRT modules against the vendor's bindings (fetches them)
	$(BIN)/python tests/tensorrt-stubs

test-jetpack5:  ## a bundle (BUNDLE=) served by torch 2.1.2 on Python 3.8, as on JetPack 5; fetches 4.7 GB
	./tests/on-jetpack5 '$(BUNDLE)'

prove-grid: setup mosquitto  ## strike a rollout in every state in every way, and cut the power at every write
	PYTHONPATH=daemon:tests $(BIN)/python -m acceptance.prove_grid

prove-sandbox: setup  ## each wall of the unit's sandbox, tried from inside on a real host (DEFECTD_SYSTEMD_HOST=); 2 minutes
	@test -n "$$DEFECTD_SYSTEMD_HOST" || { echo "DEFECTD_SYSTEMD_HOST is not set: see docs/hardening.md"; exit 1; }
	$(BIN)/python -m pytest tests/e2e/test_sandbox.py

test-deploy: setup  ## playbooks, locks and the resolver for JetPack 5, 6 and 7; needs a package index, no host
	./deploy/controller
	$(BIN)/pip install --quiet 'uv>=0.5'
	cd deploy && ANSIBLE_CONFIG=ansible.cfg ../.venv-deploy/bin/ansible-playbook --syntax-check --inventory localhost, \
	  --extra-vars target=localhost playbooks/*.yml >/dev/null
	$(BIN)/python -m pytest tests/deploy tests/integration/test_wheelhouse.py

prove-deploy: setup mosquitto  ## make deploy on real hosts, struck in each phase (root, DEFECTD_SYSTEMD_HOST=); 80 minutes
	PYTHONPATH=daemon:tests $(BIN)/python -m acceptance.prove_deploy

prove-loop: setup mosquitto  ## kill everything and count the units; bad input; agreement with Ultralytics
	PYTHONPATH=daemon:tests $(BIN)/python -m acceptance.prove_loop

bench: setup mosquitto  ## latency and throughput beside the bare model and Ultralytics (MODEL= IMAGES=)
	$(BIN)/python -m defectd.bench --model '$(MODEL)' $(if $(IMAGES),--images '$(IMAGES)')

# MODEL has a default of its own above: only what was said on the command line goes to a station.
DEPLOYED = HOST='$(HOST)' VERSION='$(VERSION)' CONFIG='$(CONFIG)' CHECK='$(CHECK)' ASK='$(ASK)' PURGE='$(PURGE)' WAVES='$(WAVES)' \
  $(if $(INVENTORY),INVENTORY='$(INVENTORY)') $(if $(filter command line,$(origin MODEL)),MODEL='$(MODEL)',MODEL=)

deploy:  ## install or upgrade stations: HOST=a[,b|group] (VERSION= CONFIG= MODEL= CHECK=1 ASK=1 INVENTORY=)
	@$(DEPLOYED) ./deploy/run deploy

status:  ## how stations are: HOST=
	@$(DEPLOYED) ./deploy/run status

logs:  ## their journals: HOST=
	@$(DEPLOYED) ./deploy/run logs

doctor:  ## what is wrong there, and what to do: HOST=
	@$(DEPLOYED) ./deploy/run doctor

rollback:  ## back to the release before: HOST= (VERSION=)
	@$(DEPLOYED) ./deploy/run rollback

undeploy:  ## take it out: HOST= (PURGE=1: configuration, events and models, too)
	@$(DEPLOYED) ./deploy/run undeploy

wheels:  ## fetch what stations install, before a visit to a factory without internet (TARGET=cp310-aarch64)
	@./deploy/controller && PYTHONPATH=deploy .venv-deploy/bin/python -m wheelhouse fetch $(TARGET)

lock:  ## write deploy/lock anew (TARGET=)
	@./deploy/controller && PYTHONPATH=deploy .venv-deploy/bin/python -m wheelhouse lock $(TARGET)

lint: setup  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup  ## mypy --strict
	$(BIN)/mypy

layers: setup  ## import-linter: who may import whom
	$(BIN)/lint-imports

format: setup  ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup  ## write docs/wire.md, docs/configuration.md and the JSON Schemas anew from the models
	$(BIN)/python -m defectd.reference docs

package: setup  ## wheel and sdist in dist/
	$(BIN)/python -m build --quiet

clean:  ## remove what make made
	rm -rf $(VENV) .venv-* dist .mypy_cache .ruff_cache .pytest_cache

.PHONY: prove-cameras help setup demo demo-scores test test-pythons test-deploy test-gpu fuzz prove prove-loop prove-grid prove-models prove-rollout prove-sandbox prove-telemetry prove-deploy types-tensorrt test-jetpack5 bench mosquitto lint types layers format docs package clean deploy status logs doctor rollback undeploy wheels lock
