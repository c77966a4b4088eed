# make demo    see it work: two private servers, an export, an import, and proof
# make test    everything that can be tested here; fetches what it needs
# make bench   what it reaches, beside what the server allows (some minutes)
# make lint    formatting, clippy, documentation, scripts
.PHONY: demo test bench lint servers clean-servers

demo:
	tests/demo

test: servers
	python=$$(tests/python) && PYTHON=$$python cargo test --workspace

bench: servers
	cargo bench --bench throughput -- $(BENCH)

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
	shellcheck .ci/run tests/demo tests/fetch-servers tests/python

# The servers of the matrix, unpacked under target/servers and installed nowhere.
servers:
	tests/fetch-servers

clean-servers:
	rm -rf target/servers
