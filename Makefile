# Everything a person or CI does here, by name. What takes more than a line is a script in scripts/.
.PHONY: help demo test lint format bench soak chaos docs dist clean
.DEFAULT_GOAL := help

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

demo: ## hand a real job to a scripted agent and watch it being rejected, then accepted
	@scripts/demo.sh

test: ## run the whole test suite
	@scripts/test.sh

lint: ## check style and types
	@scripts/lint.sh

format: ## put the code in its one format
	@scripts/bootstrap.sh --dev && .venv/bin/ruff check --quiet --fix . ; .venv/bin/ruff format .

bench: ## measure, side by side with what is compared, and print the table of docs/performance.md
	@scripts/get-tmux.sh --for-tests && scripts/bootstrap.sh --dev && .venv/bin/python scripts/bench

soak: ## put the embedded broker under load for a while
	@scripts/bootstrap.sh --dev && .venv/bin/python scripts/soak_broker

chaos: ## kill every kind of process of ours, 510 times, and see whether anything is lost
	@scripts/get-tmux.sh --for-tests && scripts/bootstrap.sh --dev && .venv/bin/python scripts/chaos

docs: ## write the generated parts of docs/ and the man page again
	@scripts/bootstrap.sh --dev && .venv/bin/python scripts/gen_docs --write && .venv/bin/python scripts/gen_man --write

dist: ## build the wheel and the source archive in dist/
	@scripts/dist.sh

clean: ## remove what was made here: .venv, builds, caches, agents
	@rm -rf .venv .cache/agents .cache/clients build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
