# The Python that .venv is made from: make lab PYTHON=python3.12
PYTHON ?= python3
# More options for JupyterLab: make lab LAB_FLAGS="--no-browser --port=9000"
LAB_FLAGS ?=
# More options for Voilà: make demo DEMO_FLAGS="--no-browser --port=9000 --theme=dark"
DEMO_FLAGS ?=
NOTEBOOKS ?= $(wildcard notebooks/*.ipynb)
BIN := .venv/bin
# Trainings in order, METHOD or METHOD:PRESET (laptop, if none is named); a stage comes before what starts from it.
RUNS := oracle finegan:first finegan:second finegan_clusters finegan:third finegan infogan:first infogan:second infogan \
  mixnmatch_code:first mixnmatch_code:second mixnmatch_code mixnmatch:first mixnmatch:second mixnmatch \
  ds_comgan:first ds_comgan:second ds_comgan ds_comgan_segmenter \
  face_oracle uniform_posterior:first uniform_posterior stargan:first stargan:second stargan \
  gmvae:first gmvae
SHIPPED := oracle finegan infogan mixnmatch ds_comgan_segmenter face_oracle uniform_posterior stargan gmvae

.DEFAULT_GOAL := help
.PHONY: help setup lab demo test lint notebooks checkpoints clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: ## install requirements.lock into .venv, if it is not there yet (the other targets do this too)
	@command -v "$(PYTHON)" >/dev/null || { echo "There is no $(PYTHON) here. Python 3.11 or newer is needed:" \
	  "install it, or name it as in 'make lab PYTHON=/path/to/python3.12'."; exit 1; }
	@"$(PYTHON)" scripts/setup.py

lab: setup ## open the course in JupyterLab
	$(BIN)/python -m jupyterlab --LabApp.extension_manager=readonly --ServerApp.root_dir="$(CURDIR)" \
	  $(if $(filter 0,$(shell id -u)),--allow-root) $(LAB_FLAGS) notebooks/00_start_here.ipynb

demo: setup ## the panels without code, a page for each notebook that has sliders: for a lecture hall
	$(BIN)/python scripts/demo.py $(DEMO_FLAGS)

# Notebooks, then the browser's tests, come first: they take longest, and so both processes are busy to the end.
test: lint ## lint, unit tests, and every notebook run from top to bottom; offline
	OMP_NUM_THREADS=$$("$(PYTHON)" -c "import os; print(max(1, os.cpu_count() // 2))") $(BIN)/python -m pytest -n 2 --dist loadfile \
	  --no-loadscope-reorder --nbval-lax --nbval-current-env --nbval-cell-timeout=1200 notebooks tests

lint: setup ## code style and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

notebooks: setup ## run every notebook and store its outputs (one: NOTEBOOKS=notebooks/01_finegan.ipynb)
	$(BIN)/python -m nbconvert --to notebook --execute --inplace --ExecutePreprocessor.kernel_name=python3 \
	  --ExecutePreprocessor.timeout=600 --ExecutePreprocessor.record_timing=False \
	  --ExecutePreprocessor.store_widget_state=False $(NOTEBOOKS)
	$(BIN)/python -m nbconvert --to notebook --inplace --CoalesceStreamsPreprocessor.enabled=True $(NOTEBOOKS)

checkpoints: setup ## retrain what data/checkpoints ships (hours)
	@echo "Training $(RUNS), then the ablations that are not in data/results yet:"
	@echo "the training takes about sixteen hours on two CPU cores; less on a GPU."
	@echo "Ctrl-C stops with a snapshot; the same command goes on from there."
	@mkdir -p data/checkpoints
	@for run in $(RUNS); do \
	  name="$${run%%:*}"; preset=laptop; folder="runs/$$name"; \
	  case "$$run" in *:*) preset="$${run#*:}"; folder="runs/$${name}_$$preset";; esac; \
	  $(BIN)/python -m tutorial_lib train $$name --preset $$preset --folder $$folder --resume || exit 1; \
	  case " $(SHIPPED) " in *" $$run "*) \
	    cp $$folder/model.safetensors data/checkpoints/$$name.safetensors && \
	    cp $$folder/model.json data/checkpoints/$$name.json || exit 1;; \
	  esac; \
	done
	$(BIN)/python -m tutorial_lib ablate finegan
	$(BIN)/python -m tutorial_lib ablate mixnmatch
	$(BIN)/python -m tutorial_lib ablate comgan
	$(BIN)/python -m tutorial_lib ablate uniform_posterior
	$(BIN)/python -m tutorial_lib ablate gmvae
	$(BIN)/python -m tutorial_lib evaluate oracle --save
	$(BIN)/python -m tutorial_lib evaluate face_oracle --save
	$(BIN)/python -m tutorial_lib evaluate finegan --save
	$(BIN)/python -m tutorial_lib evaluate mixnmatch --save
	$(BIN)/python -m tutorial_lib evaluate comgan --save
	$(BIN)/python -m tutorial_lib evaluate uniform_posterior --save
	$(BIN)/python -m tutorial_lib evaluate gmvae --save
	$(BIN)/python scripts/readme_results.py
	$(BIN)/python scripts/readme_picture.py

clean: ## remove .venv and caches; keeps data/ and runs/
	rm -rf .venv build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
