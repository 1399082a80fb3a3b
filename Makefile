# Each target is one or two plain commands. A bare machine needs the Rust toolchain, make, a C compiler and python3 with
# pip; whatever else is needed is fetched, pinned by checksum, into models/ and .tools/. With npm, that includes a Chromium.

.PHONY: run test lint fuzz-check recall bench eval deny

# Builds, starts the server on 127.0.0.1:8080 and fills an empty data directory with the demo chatbot.
run:
	@scripts/fetch-model || echo "going on without the embedding model: retrieval is by keywords alone" >&2
	cargo build --release --locked
	exec target/release/frontdesk serve --demo fixtures/demo

# Everything that has to hold before a merge, on SQLite and on PostgreSQL. The last line is the test runner's summary.
test: lint
	scripts/fetch-model
	scripts/check-dependencies
	cargo test --workspace --locked --doc
	scripts/with-postgres scripts/run-tests

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

# That the fuzz targets build, libFuzzer included. They are a workspace of their own, so this compiles much anew; `make
# test` compiles and runs all of them but that.
fuzz-check:
	cargo check --manifest-path ingest/fuzz/Cargo.toml --bins
	cargo check --manifest-path retrieval/fuzz/Cargo.toml --bins

# What index backends find among 100,000 chunks, through graphs: of one tenant, and of one among a thousand.
recall:
	scripts/with-postgres cargo test --release --locked --package retrieval --test it -- --include-ignored finds_the_nearest_of_100_000

# CPU per turn, latency, throughput, memory. A table on stdout and JSON under target/.
bench:
	@scripts/fetch-model || echo "going on without the embedding model: the local-model rows are left out" >&2
	cargo build --release --locked --package frontdesk --package frontdesk-bench
	target/release/frontdesk-bench

# How good retrieval is, on the test sets of ../shared/eval or of EVAL_DIR=<folder>. Writes EVAL.md; takes minutes to hours.
eval:
	cargo build --release --locked --package frontdesk
	scripts/eval

# The whole of deny.toml, where cargo-deny is installed. Its advisory database has to be on the machine already.
deny:
	scripts/check-dependencies
	@if cargo deny --version >/dev/null 2>&1; then \
	    cargo deny --locked --offline check --disable-fetch; \
	else \
	    echo "cargo-deny is not installed (cargo install cargo-deny): advisories were not checked" >&2; \
	fi
