#!/bin/sh
# Install what one image serves into a virtual environment: the Dockerfile's only install step.
# It is a script so that a test can run the very same step in a clean folder, without a Docker engine.
#
#   deploy/install.sh authsvc|runner-cpu|runner PREFIX      (from the repository's root)
set -eu

case "${1:-}" in
    authsvc) requirement="." ;;
    runner-cpu) requirement=".[cpu]" ;;
    runner) requirement=".[gpu]" ;;
    *) echo "usage: deploy/install.sh authsvc|runner-cpu|runner PREFIX" >&2; exit 2 ;;
esac
prefix="${2:?usage: deploy/install.sh authsvc|runner-cpu|runner PREFIX}"

"${PYTHON:-python3}" -m venv "$prefix"
"$prefix/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir \
    --constraint requirements.lock "$requirement"
# Nothing installs packages in a running container.
"$prefix/bin/pip" uninstall --quiet --yes pip
