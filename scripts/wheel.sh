# Sourced by the fetch scripts: gets one pinned file from the Python package registry, and says plainly what is missing
# when it cannot. pip is used as the registry's client only (mirrors and certificates set for pip apply); nothing of what
# is fetched is installed into a Python environment or run by Python.

# Prints $1 on stderr as this script's own sentence and ends it with code 1.
refuse() {
    echo "$(basename "$0"): $1" >&2
    exit 1
}

# Ends the script with a sentence when this machine cannot fetch packages at all.
require_pip() {
    command -v python3 >/dev/null || refuse "python3 is missing; install it (Debian: apt-get install python3 python3-pip)"
    python3 -m pip --version >/dev/null 2>&1 || refuse "python3 has no pip; install it (Debian: apt-get install python3-pip)"
}

# sha256 lines ("<hex>  <path>", as sha256sum writes them) on stdin: succeeds when every file is there and fits.
checksums_fit() {
    if command -v sha256sum >/dev/null; then
        sha256sum --check --status 2>/dev/null
    else
        shasum -a 256 --check --status 2>/dev/null
    fi
}

# unpack_wheel PACKAGE VERSION SHA256 DIRECTORY [pip options]: downloads the wheel with exactly this checksum and
# unpacks it into DIRECTORY, which must exist.
unpack_wheel() {
    local package=$1 version=$2 sha256=$3 directory=$4
    shift 4
    echo "fetching $package $version" >&2
    echo "$package==$version --hash=sha256:$sha256" >"$directory/wanted.txt"
    python3 -m pip download --quiet --no-deps --only-binary=:all: --require-hashes --retries 2 \
        --dest "$directory/wheel" "$@" --requirement "$directory/wanted.txt" >&2 ||
        refuse "could not download $package $version from the package registry (is the network reachable?)"
    python3 -m zipfile -e "$directory"/wheel/*.whl "$directory"
    rm -r "$directory/wheel" "$directory/wanted.txt"
}
