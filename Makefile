PYTHON ?= python

.PHONY: check format test
check:
	ruff format --check .
	ruff check .
	mypy
	clang-format --dry-run --Werror cpp/*.cpp cpp/*.h cpp/kernels/*.cpp cpp/kernels/*.h tests/native/*.cpp
	$(PYTHON) -m pytest tests/test_architecture.py

format:
	ruff format .
	ruff check --fix .
	clang-format -i cpp/*.cpp cpp/*.h cpp/kernels/*.cpp cpp/kernels/*.h tests/native/*.cpp

test:
	$(PYTHON) -m pytest
